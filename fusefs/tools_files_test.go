package fusefs_test

import "testing"

// TestToolFiles runs shells and the core utilities.
func TestToolFiles(t *testing.T) {
	runTools(t, stackOptions{}, []tool{
		{name: "cp", do: `cp "$1" f; cmp "$1" f`},
		{name: "cp -a", do: `cp -a "$1" f; cp -a "$2" d; diff -r "$2" d; [[ ! d/a.txt -nt "$2/a.txt" ]]`},
		{name: "cp within", do: `cp "$1" f; cp f g; cmp f g; cp -a "$2/a.txt" h; cp -a h i; cmp h i; [[ ! h -nt i && ! i -nt h ]]`},
		{name: "cp over", do: `cp "$1" f; cp "$2/a.txt" f; cmp "$2/a.txt" f`, uploads: 2},
		{name: "cp --sparse", do: `truncate -s 1536K "$3/h"; dd if="$1" of="$3/h" bs=128K seek=4 count=1 conv=notrunc status=none
			cp --sparse=always "$3/h" f; cmp "$3/h" f; cp --sparse=always f g; cmp f g; cp f h; cmp f h`},
		{name: "dd", do: `dd if="$1" of=f bs=4k status=none; cmp "$1" f`},
		{name: "dd conv=notrunc", do: `cp "$1" f; printf HEAD | dd of=f conv=notrunc status=none; cmp -i 4 "$1" f`, uploads: 2},
		{name: "dd seek", do: `dd if="$2/a.txt" of=f bs=128K seek=9 status=none; cmp -i 0:1152K "$2/a.txt" f`},
		{name: "dd oflag=direct", do: `dd if="$1" of=f bs=128K oflag=direct status=none; cmp "$1" f`},
		{name: "dd oflag=append,sync", do: `cp "$2/a.txt" f; dd if="$2/a.txt" of=f bs=64k oflag=append,sync conv=notrunc status=none`, uploads: 2},
		{name: "cat", do: `cat "$1" > f; cmp "$1" f`},
		{name: "tee", do: `tee f g < "$1" > /dev/null; cmp "$1" f; cmp "$1" g`},
		{name: ">", do: `echo a > f; echo b > f; [[ $(cat f) = b ]]`, uploads: 2},
		{name: ">>", do: `cat "$1" > f; echo more >> f; cmp -n 1152K "$1" f`, uploads: 2},
		{name: "> nothing", do: `: > f; touch g; echo -n > h`},
		{name: "one redirection, many writers", do: `{ echo a; cat "$1"; (echo b); } > f; for i in 1 2 3; do seq 100; done > g; (echo c & wait) > h`},
		{name: "here document", do: "cat > f <<'END'\nsome\ntext\nEND"},
		{name: "split", do: `split -b 384K "$1" f.; cat f.* | cmp - "$1"`},
		{name: "sort -o", do: `sort -o f "$2/b.jsonl"; sort -o f f; cmp f "$2/b.jsonl"`, uploads: 2},
		{name: "truncate", do: `cp "$1" f; truncate -s 640K f; cmp -n 640K f "$1"`, uploads: 2},
		{name: "truncate of nothing", do: `truncate -s 1152K f; [[ $(stat -c %s f) = 1179648 ]]`},
		{name: "fallocate", do: `fallocate -l 1152K f; [[ $(stat -c %s f) = 1179648 ]]`},
		{name: "fallocate --punch-hole", do: `cp "$1" f; fallocate -p -o 128K -l 256K f; cmp -i 384K -n 384K f "$1"; cmp -i 128K:0 -n 256K f /dev/zero`, uploads: 2},
		{name: "mv in", do: `cp "$1" "$3/f"; mv "$3/f" .; cmp "$1" f; cp -r "$2" "$3/d"; mv "$3/d" .; diff -r "$2" d`},
		{name: "mv out", do: `cp "$1" f; mv f "$3"; cmp "$1" "$3/f"`, uploads: 1},
		{name: "mv within", do: `cp "$1" f; mkdir d; mv f d/g; mv d e; cp "$2/a.txt" f; mv e/g f; cmp "$1" f`, uploads: 2},
		{name: "mv, two names exchanged", do: `echo a > f; echo b > g; mv f h; mv g f; mv h g; [[ $(cat f g) = $'b\na' ]]`, sent: map[string]string{"f": "g", "g": "f"}},
		{name: "install", do: `install -D -m 640 "$1" d/f; cmp "$1" d/f; [[ $(stat -c %a d/f) = 640 ]]`},
		{name: "ln", do: `cp "$1" f; ln f g; echo more >> g; cmp f g; ln g h; rm h`, uploads: 2},
		{name: "ln -s", do: `ln -s f l; cat "$1" > l; cmp "$1" f`},
		{name: "rm", do: `cp "$1" f; rm f; mkdir -p d/e; cp "$2/a.txt" d/e; rm -r d`, uploads: 2},
		{name: "chmod, chown, touch", do: `cp "$1" f; chmod 400 f; chown "$(id -u)" f; touch -d 2001-01-01 f; [[ $(stat -c '%a %Y' f) = "400 $(date -d 2001-01-01 +%s)" ]]`},
		{name: "open for reading and writing", do: `cp "$2/a.txt" f; exec 3<> f; head -c 6 <&3 > /dev/null; exec 3>&-; cmp "$2/a.txt" f`},
		{name: "unlinked while open", do: `exec 3<> f; rm f; cat "$1" >&3; cmp "$1" /proc/self/fd/3; exec 3>&-; echo kept > g`},
		{name: "renamed while open", do: `exec 3> f; cat "$1" >&3; mv f g; cat "$1" >&3; exec 3>&-; cat "$1" "$1" | cmp - g`},
	})
}
