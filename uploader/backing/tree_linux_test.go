package backing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func newTree(t *testing.T) *Tree {
	t.Helper()
	tree, err := Open(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	return tree
}

func (t *Tree) at(rel string) string { return filepath.Join(t.Name(), rel) }

func put(t *testing.T, tree *Tree, rel string) Key {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(tree.at(rel)), 0o700))
	require.NoError(t, os.WriteFile(tree.at(rel), []byte(rel), 0o600))
	info, err := tree.Stat(rel)
	require.NoError(t, err)
	return info.Key
}

func TestOpenWantsADirectory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	_, err := Open(name)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	_, err = Open(name)
	require.ErrorIs(t, err, unix.ENOTDIR)
}

func TestNothingLeadsOutOfTheTree(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600))
	tree := newTree(t)
	put(t, tree, "d/f")
	require.NoError(t, os.Symlink(outside, tree.at("out")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), tree.at("d/out")))
	require.NoError(t, os.Symlink("f", tree.at("d/in")))
	require.NoError(t, os.Symlink("d", tree.at("dir")))
	for _, rel := range []string{"out/secret", "d/out", "d/in", "dir/f", "dir"} {
		_, err := tree.OpenAt(rel, unix.O_RDONLY, 0)
		require.ErrorIs(t, err, unix.ELOOP, rel)
		_, ok := tree.Getxattr(rel, "user.x")
		require.False(t, ok)
	}
	for _, rel := range []string{"..", "../x", "d/../../x", "/etc/passwd"} {
		_, err := tree.OpenAt(rel, unix.O_RDONLY, 0)
		require.Error(t, err, rel)
	}
	info, err := tree.Stat("d/in")
	require.NoError(t, err)
	require.False(t, info.Regular(), "a symlink is described, not followed")
	_, err = tree.Stat("out/secret")
	require.Error(t, err)
	_, err = tree.OpenDir("dir")
	require.Error(t, err)
}

func TestStat(t *testing.T) {
	tree := newTree(t)
	key := put(t, tree, "d/f")
	require.NoError(t, os.Link(tree.at("d/f"), tree.at("g")))
	info, err := tree.Stat("g")
	require.NoError(t, err)
	require.Equal(t, key, info.Key, "a file is the same under each name")
	require.EqualValues(t, 2, info.Nlink)
	require.EqualValues(t, 3, info.Size)
	require.True(t, info.Regular())
	require.NotZero(t, info.Mtime)
	require.NotZero(t, info.Ctime)
	require.Contains(t, key.String(), ".")

	root, err := tree.Stat("")
	require.NoError(t, err)
	require.EqualValues(t, unix.S_IFDIR, root.Mode&unix.S_IFMT)
	_, err = tree.Stat("missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = tree.Stat("d/f/below")
	require.ErrorIs(t, err, unix.ENOTDIR)
	_, err = StatFd(-1)
	require.ErrorIs(t, err, unix.EBADF)
}

func TestAPathLongerThanPathMax(t *testing.T) {
	tree := newTree(t)
	part := strings.Repeat("x", 250)
	rel := ""
	at, err := tree.OpenDir("")
	require.NoError(t, err)
	for len(rel) < 3*4096 {
		require.NoError(t, unix.Mkdirat(at, part, 0o700))
		next, err := unix.Openat(at, part, unix.O_PATH|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(at))
		at, rel = next, rel+part+"/"
	}
	fd, err := unix.Openat(at, "f", unix.O_CREAT|unix.O_RDWR, 0o600)
	require.NoError(t, err)
	require.NoError(t, unix.Setxattr(procName(fd), "user.x", []byte("deep"), 0))
	want, err := StatFd(fd)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	require.NoError(t, unix.Close(at))

	rel += "f"
	info, err := tree.Stat(rel)
	require.NoError(t, err)
	require.Equal(t, want, info)
	value, ok := tree.Inherited(rel, "user.x")
	require.True(t, ok)
	require.Equal(t, "deep", value)
	found, err := tree.Find(want.Key, "gone/f")
	require.NoError(t, err)
	require.Equal(t, rel, found)
	f, err := tree.OpenKey(want.Key, "gone")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = tree.OpenAt(strings.Repeat("y", 5000), unix.O_RDONLY, 0)
	require.ErrorIs(t, err, unix.ENAMETOOLONG)
	_, err = tree.OpenAt("missing/"+rel, unix.O_RDONLY, 0)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func procName(fd int) string { return filepath.Join("/proc/self/fd", strconv.Itoa(fd)) }

func TestOpenKeyFindsTheFileUnderWhateverName(t *testing.T) {
	tree := newTree(t)
	key := put(t, tree, "a/f")
	other := put(t, tree, "a/other")
	open := func(hint string) error {
		f, err := tree.OpenKey(key, hint)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := StatFd(int(f.Fd()))
		require.NoError(t, err)
		require.Equal(t, key, info.Key)
		return nil
	}
	require.NoError(t, open("a/f"))
	require.NoError(t, os.Rename(tree.at("a/f"), tree.at("a/g")))
	require.NoError(t, open("a/f"))
	require.NoError(t, os.Mkdir(tree.at("b"), 0o700))
	require.NoError(t, os.Rename(tree.at("a/g"), tree.at("b/h")))
	for _, hint := range []string{"a/f", "a/other", "missing/f", "a", "a/other/below", ""} {
		require.NoError(t, open(hint), hint)
	}
	require.NoError(t, unix.Mkfifo(tree.at("a/fifo"), 0o600))
	require.NoError(t, os.Symlink("../b/h", tree.at("a/link")))
	require.NoError(t, open("a/fifo"), "it does not wait for a writer")
	require.NoError(t, open("a/link"))

	require.NoError(t, os.Remove(tree.at("b/h")))
	require.ErrorIs(t, open("b/h"), fs.ErrNotExist)
	_, err := tree.Find(Key{Ino: other.Ino, Birth: other.Birth + 1}, "a/other")
	require.ErrorIs(t, err, fs.ErrNotExist, "a reused inode number is another file")
}

func TestFindPrefersWhatIsNear(t *testing.T) {
	tree := newTree(t)
	key := put(t, tree, "a/f")
	require.NoError(t, os.MkdirAll(tree.at("z"), 0o700))
	require.NoError(t, os.Link(tree.at("a/f"), tree.at("z/f")))
	require.NoError(t, os.Link(tree.at("a/f"), tree.at("top")))
	for hint, want := range map[string]string{"a/f": "a/f", "z/f": "z/f", "z/gone": "z/f", "a/gone": "a/f", "gone": "top"} {
		found, err := tree.Find(key, hint)
		require.NoError(t, err)
		require.Equal(t, want, found, hint)
	}
}

func TestWalk(t *testing.T) {
	tree := newTree(t)
	want := []string{"a", "d/b", "d/e/c", "d/e/odd\xffname\n"}
	for _, rel := range want {
		put(t, tree, rel)
	}
	require.NoError(t, os.Mkdir(tree.at("empty"), 0o700))
	require.NoError(t, os.Symlink("d", tree.at("loop")))
	require.NoError(t, unix.Mkfifo(tree.at("fifo"), 0o600))
	var got []string
	require.NoError(t, tree.Walk(func(rel string, info Info) error {
		require.True(t, info.Regular())
		got = append(got, rel)
		return nil
	}))
	sort.Strings(got)
	require.Equal(t, want, got)

	n := 0
	require.NoError(t, tree.Walk(func(string, Info) error { n++; return fs.SkipAll }))
	require.Equal(t, 1, n)
	stop := errors.New("stop")
	require.ErrorIs(t, tree.Walk(func(string, Info) error { return stop }), stop)
}

func TestWhatVanishesDuringAWalkIsPassedOver(t *testing.T) {
	tree := newTree(t)
	for _, rel := range []string{"a/f", "b/f", "c/f"} {
		put(t, tree, rel)
	}
	var got []string
	require.NoError(t, tree.Walk(func(rel string, _ Info) error {
		got = append(got, rel)
		for _, dir := range []string{"a", "b", "c"} {
			if !strings.HasPrefix(rel, dir) {
				require.NoError(t, os.RemoveAll(tree.at(dir)))
			}
		}
		return nil
	}))
	require.Len(t, got, 1)
}

func TestAttributesAreInheritedFromTheNearest(t *testing.T) {
	tree := newTree(t)
	put(t, tree, "a/b/f")
	set := func(rel, value string) {
		require.NoError(t, unix.Setxattr(tree.at(rel), "user.x", []byte(value), 0))
	}
	get := func(rel string) string {
		value, _ := tree.Inherited(rel, "user.x")
		return value
	}
	_, ok := tree.Inherited("a/b/f", "user.x")
	require.False(t, ok)
	set("", "root")
	require.Equal(t, "root", get("a/b/f"))
	require.Equal(t, "root", get(""))
	set("a", "a")
	require.Equal(t, "a", get("a/b/f"))
	require.Equal(t, "a", get("a/b/missing"), "also for a name that is not there yet")
	set("a/b/f", "")
	value, ok := tree.Inherited("a/b/f", "user.x")
	require.True(t, ok, "an empty value is one")
	require.Equal(t, "", value)
	large := strings.Repeat("v", 3000)
	set("a/b", large)
	value, ok = tree.Getxattr("a/b", "user.x")
	require.True(t, ok)
	require.Equal(t, large, value)
}

func TestTheFirstHole(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "sparse")
	require.NoError(t, err)
	defer f.Close()
	const block = 1 << 20
	_, err = f.WriteAt(make([]byte, block), 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1}, 4*block)
	require.NoError(t, err)
	hole, err := FirstHole(int(f.Fd()), 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, hole, int64(block))
	require.LessOrEqual(t, hole, int64(4*block+1))
	hole, err = FirstHole(int(f.Fd()), 4*block)
	require.NoError(t, err)
	require.EqualValues(t, 4*block+1, hole, "the end, where there is none")
	_, err = FirstHole(int(f.Fd()), 5*block)
	require.ErrorIs(t, err, unix.ENXIO)
}

func TestWhetherTheFileHasAWriter(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, make([]byte, 8192), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, No, HasWriter(f))
	w, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	require.Equal(t, Yes, HasWriter(f))
	mapped, err := unix.Mmap(int(w.Fd()), 0, 8192, unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	again, err := ReopenReadOnly(w)
	require.NoError(t, err)
	defer again.Close()
	_, err = again.Write([]byte("x"))
	require.Error(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, Yes, HasWriter(f), "a mapping is in no table of descriptors")
	mapped[0] = 1
	require.NoError(t, StartWriteback(f))
	require.NoError(t, unix.Munmap(mapped))
	require.Equal(t, No, HasWriter(f))
}

func TestWithoutALeaseItIsNotKnownWhetherThereIsAWriter(t *testing.T) {
	dir, err := os.Open(t.TempDir()) // leases are for regular files
	require.NoError(t, err)
	defer dir.Close()
	require.Equal(t, Unknown, HasWriter(dir))
}
