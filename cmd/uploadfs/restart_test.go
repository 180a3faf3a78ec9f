//go:build linux

package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api/local"
	"uploadfs/uploader/journal"
	"uploadfs/uploader/state"
)

// patientWriter is a program that keeps a file open and writes the lines that it is
// told to its beginning. It says what came of each.
const patientWriter = `
exec 3<> "$0" || exit
echo open
while read line; do
	if printf %s "$line" >&3; then echo written; else echo failed; fi
done 2> /dev/null`

// writing is a program that has a file of the mount open.
type writing struct {
	b   *box
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// writeTo starts a program that opens the file for reading and writing.
func (b *box) writeTo(name string) *writing {
	w := &writing{b: b, cmd: b.command("sh", "-c", patientWriter, filepath.Join(b.point, name))}
	var err error
	w.in, err = w.cmd.StdinPipe()
	require.NoError(b, err)
	out, err := w.cmd.StdoutPipe()
	require.NoError(b, err)
	w.out = bufio.NewReader(out)
	require.NoError(b, w.cmd.Start())
	b.Cleanup(w.end)
	require.Equal(b, "open", w.answer())
	return w
}

func (w *writing) answer() string {
	line, err := w.out.ReadString('\n')
	require.NoError(w.b, err)
	return strings.TrimSpace(line)
}

// write writes to the beginning of the file, and returns what the program says.
func (w *writing) write(text string) string {
	_, err := io.WriteString(w.in, text+"\n")
	require.NoError(w.b, err)
	return w.answer()
}

// end ends the program, which closes the file.
func (w *writing) end() {
	w.in.Close()
	w.cmd.Wait()
}

// terminate ends the daemon by a signal that it obeys.
func (b *box) terminate() {
	pid := b.pid()
	require.NoError(b, unix.Kill(pid, unix.SIGTERM))
	awaitEnd(b, pid)
}

// A program that has a waiting file open goes on writing to it after the daemon has
// ended, where its descriptor is the kernel's. What it leaves is not sent.
func TestAProgramOutlivesTheDaemon(t *testing.T) {
	for _, c := range []struct {
		name string
		end  string // of the daemon
		when string // it writes; "": it has the file open and writes nothing
	}{
		{"killed, written before the next mount", "killed", "before"},
		{"killed, written after the next mount", "killed", "after"},
		{"killed, not written", "killed", ""},
		{"terminated, written before the next mount", "terminated", "before"},
		{"terminated, written after the next mount", "terminated", "after"},
		{"terminated, not written", "terminated", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachUser(t, func(b *box) {
				server := newAPI(b.T)
				server.use(b)
				started, release := server.block(b.T)
				args := []string{"--close", "background", "--drain-timeout", "10ms"}
				b.mount(args...)
				content := b.input("in", 300_000)
				b.shOK(`cp in "$M/f"`)
				<-started
				passes := b.status().WritePath == "passthrough"
				program := b.writeTo("f")
				if c.end == "killed" {
					b.kill()
				} else {
					b.terminate()
				}
				changed := false
				write := func() {
					said := program.write("other bytes")
					if !passes {
						return // it ends in a cache that no daemon will see
					}
					require.Equal(b, "written", said)
					changed = true
					copy(content, "other bytes")
				}
				if c.when == "before" {
					write()
				}
				release()
				b.mount(args...)
				if passes {
					b.await("it is watched", func() bool { return b.info("f").State == state.Writing })
				}
				if c.when == "after" {
					write()
				}
				if passes {
					require.Empty(b, server.Files(), "nothing is sent while it may change")
				}
				program.end()
				b.await("it is decided", func() bool {
					st := b.info("f").State
					return st == state.Interrupted || st == state.Completed
				})
				if changed {
					st := b.info("f")
					require.Equal(b, state.Interrupted, st.State)
					require.Contains(b, st.Error, "a program went on writing to it after the last daemon had ended")
					require.Empty(b, server.Files())
					b.ok("retry", filepath.Join(b.point, "f"))
					b.ok("wait", filepath.Join(b.point, "f"))
				}
				server.one(b, "f", content)
				b.ok("unmount", b.point)
			})
		})
	}
}

// Programs change the metadata of files that wait. The next mount still knows what
// each close has left.
func TestMetadataOfWaitingFilesChanges(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		started, release := server.block(b.T)
		args := []string{"--close", "background", "--hold-for", "1h", "--exclude", "*.log"}
		b.mount(args...)
		names := []string{"chmod", "chgrp", "touch", "utimes", "setfattr", "rmfattr", "link", "unlink", "rename", "over", "exchange1", "exchange2", "fallocate", "mode"}
		for _, name := range names {
			b.shOK(`echo "the content of ` + name + `" > "$M/` + name + `"; echo held > "$M/` + name + `.tmp"; echo excluded > "$M/` + name + `.log"`)
		}
		<-started
		for _, suffix := range []string{"", ".tmp", ".log"} {
			b.shOK(`cd "$M"; s=` + suffix + `
				chmod 640 chmod$s; chgrp $(id -g) chgrp$s; touch touch$s; touch -d @1000 utimes$s
				setfattr -n user.a -v b setfattr$s; setfattr -n user.a -v b rmfattr$s; setfattr -x user.a rmfattr$s
				ln link$s link2$s; ln unlink$s gone$s; rm gone$s; mv rename$s renamed$s; mv renamed$s rename$s
				ln over$s other$s; : > new$s; mv new$s other$s
				fallocate -l 3 -n fallocate$s; chmod 200 mode$s; exec 3>> mode$s; exec 3>&-; chmod 600 mode$s
				`)
		}
		if b.user.uid == os.Geteuid() {
			require.NoError(b, unix.Renameat2(unix.AT_FDCWD, filepath.Join(b.point, "exchange1"),
				unix.AT_FDCWD, filepath.Join(b.point, "exchange2"), unix.RENAME_EXCHANGE))
		}
		b.kill()
		release()
		b.mount(args...)
		for _, name := range names {
			require.Equal(b, state.Held, b.info(name+".tmp").State, "%s: %s", name, b.info(name+".tmp").Error)
			require.Equal(b, state.Excluded, b.info(name+".log").State, "%s: %s", name, b.info(name+".log").Error)
			require.Empty(b, b.uploadfs("wait", filepath.Join(b.point, name)).stderr)
		}
		b.uploadfs("unmount", b.point)
	})
}

// A state directory that was copied elsewhere goes on with all that it knows.
func TestACopiedStateDirectory(t *testing.T) {
	eachUser(t, func(b *box) {
		server := newAPI(b.T)
		server.use(b)
		args := []string{"--part-size", "8MiB", "--close", "background", "--hold-for", "1h", "--exclude", "*.log", "--drain-timeout", "10ms"}
		b.mount(args...)
		content := b.input("in", crashBytes)
		b.shOK(`mkdir -p "$M/d"; cp in "$M/completed"; echo held > "$M/d/held.tmp"; echo held > "$M/held.tmp"; echo excluded > "$M/a.log"`)
		b.ok("wait", filepath.Join(b.point, "completed"))
		before := b.info("completed")
		started, release := server.block(b.T)
		b.shOK(`cp in "$M/waiting"`)
		<-started
		b.kill()
		b.shOK(`cp -a state copy; rm -rf state`)
		release()
		b.state = filepath.Join(b.dir, "copy")
		b.mount(args...)
		st := b.info("completed")
		require.Equal(b, before.FileID, st.FileID)
		require.Equal(b, before.PartIDs, st.PartIDs)
		require.Equal(b, state.Completed, st.State)
		require.Equal(b, state.Held, b.info("held.tmp").State)
		require.Equal(b, state.Held, b.info("d/held.tmp").State)
		require.Equal(b, state.Excluded, b.info("a.log").State)
		b.ok("wait", filepath.Join(b.point, "waiting"))
		server.one(b, "waiting", content)
		server.one(b, "completed", content)
		b.uploadfs("unmount", b.point)
	})
}

// disk is an ext4 filesystem of its own, whose power can be cut.
type disk struct {
	b            *box
	image, point string
}

// Of ext4: the ioctl that ends the filesystem as a power cut does, and what it does
// with the journal before.
const (
	ext4Shutdown   = 0x8004587d // _IOR('X', 125, __u32)
	withJournal    = 1          // it is written: times and sizes are on the disk, other data may not be
	withoutJournal = 2
)

// newDisk puts the state directory on a filesystem of its own.
func newDisk(b *box) *disk {
	if os.Geteuid() != 0 {
		b.Skip("only root can mount a filesystem")
	}
	d := &disk{b, filepath.Join(b.dir, "image"), filepath.Join(b.dir, "disk")}
	require.NoError(b, os.Mkdir(d.point, 0o755))
	b.shOK("truncate -s 128M image && mkfs.ext4 -q -F image")
	b.state = filepath.Join(d.point, "state")
	d.mount()
	b.Cleanup(func() { b.sh("umount disk") })
	return d
}

func (d *disk) mount() { d.b.shOK("mount -o loop image disk") }

// cutPower ends the daemon and its filesystem, and gives the machine another boot.
func (d *disk) cutPower(journal int) {
	b := d.b
	pid := b.pid()
	dir, err := os.Open(d.point)
	require.NoError(b, err)
	require.NoError(b, unix.IoctlSetPointerInt(int(dir.Fd()), ext4Shutdown, journal))
	require.NoError(b, dir.Close())
	require.NoError(b, unix.Kill(pid, unix.SIGKILL))
	awaitEnd(b, pid)
	b.shOK(`umount -l "$M"`)
	b.shOK("umount disk")
	d.mount()
	b.reboot()
}

// reboot shows the processes of the tests another boot ID from now on.
func (b *box) reboot() {
	if os.Geteuid() != 0 {
		b.Skip("only root can mount over the boot ID")
	}
	const name = "/proc/sys/kernel/random/boot_id"
	id := filepath.Join(b.dir, "boot_id")
	require.NoError(b, os.WriteFile(id, []byte("00000000-0000-4000-8000-"+time.Now().Format("150405.00000")+"\n"), 0o644))
	require.NoError(b, unix.Mount(id, name, "", unix.MS_BIND, ""))
	b.Cleanup(func() { require.NoError(b, unix.Unmount(name, 0)) })
}

// recorded is the one number that a query of the journal gives.
func (b *box) recorded(query string) (n int64) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.state, journal.Name)+"?mode=ro")
	require.NoError(b, err)
	defer db.Close()
	require.NoError(b, db.QueryRow(query).Scan(&n))
	return n
}

// flushJournal brings the journal to the disk, as the kernel would in a while.
func (b *box) flushJournal() { b.shOK("sync disk/state/journal.db disk/state/journal.db-wal") }

// preallocate writes a file as rsync --preallocate does.
const preallocate = `preallocate() { exec 3> "$M/$1"; fallocate -l $(stat -c %s in) "$M/$1"; cat in >&3; exec 3>&-; }; `

// preallocated writes several files so: the kernel may have brought the data of one or
// the other to the disk before the power fails.
func (b *box) preallocated(size int) (content []byte, names []string) {
	content = b.input("in", size)
	for i := range 8 {
		name := "f" + strconv.Itoa(i)
		b.shOK(preallocate + "preallocate " + name)
		names = append(names, name)
	}
	return content, names
}

// lost are those of the files that have not the content any more, but still its size.
func (b *box) lost(names []string, content []byte) map[string]bool {
	lost := map[string]bool{}
	for _, name := range names {
		left, err := os.ReadFile(filepath.Join(b.state, "tree", name))
		require.NoError(b, err)
		require.Len(b, left, len(content))
		if !bytes.Equal(content, left) {
			lost[name] = true
		}
	}
	require.NotEmpty(b, lost, "the power cut has lost nothing: this test tests nothing")
	return lost
}

func TestZerosAfterAPowerCut(t *testing.T) {
	for _, path := range []string{"passthrough", "writeback"} {
		t.Run(path, func(t *testing.T) {
			b := newBox(t, users()[0])
			d := newDisk(b)
			server := newAPI(t)
			server.use(b)
			started, release := server.block(t)
			args := []string{"--part-size", "8MiB", "--close", "background", "--write-path", path}
			b.mount(args...)
			content, names := b.preallocated(1 << 20)
			<-started
			b.flushJournal()
			d.cutPower(withJournal)
			b.lost(names, content)

			release()
			b.mount(args...)
			for _, name := range names {
				st := b.info(name)
				require.Equal(b, state.Interrupted, st.State)
				require.Contains(b, st.Error, "the machine was restarted before its content was known to be on the disk")
			}
			require.Empty(b, server.Files(), "zeros are no content")
			b.ok("unmount", b.point)
		})
	}
}

// What has waited for a while is on the disk, and goes on after a power cut.
func TestWhatIsOnTheDiskSurvivesAPowerCut(t *testing.T) {
	b := newBox(t, users()[0])
	d := newDisk(b)
	server := newAPI(t)
	server.use(b)
	started, release := server.block(t)
	args := []string{"--part-size", "8MiB", "--close", "background"}
	b.mount(args...)
	content := b.input("in", 8<<20)
	b.shOK(preallocate + "preallocate f")
	<-started
	b.await("it is recorded as on the disk", func() bool {
		return b.recorded("SELECT durable_size FROM files WHERE path = 'f'") == int64(len(content))
	})
	b.flushJournal()
	d.cutPower(withoutJournal)
	release()
	b.mount(args...)
	b.ok("wait", filepath.Join(b.point, "f"))
	server.one(b, "f", content)
	b.ok("unmount", b.point)
}

// What is on the disk goes on after a power cut, and must not become a second File where
// the first Complete was carried out.
func TestAPowerCutMakesNoSecondFile(t *testing.T) {
	b := newBox(t, users()[0])
	d := newDisk(b)
	server := newAPI(t)
	server.use(b)
	started, release := server.block(t)
	args := []string{"--close", "background", "--drain-timeout", "10ms"}
	b.mount(args...)
	content := b.input("in", 300_000)
	b.shOK(`cp in "$M/f"`)
	<-started
	b.terminate()
	release()
	completed, cut := make(chan struct{}, 1), make(chan struct{})
	server.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op == local.OpComplete && p.Stage == local.StageDone {
			completed <- struct{}{}
			<-cut
			server.SetIntercept(nil)
		}
		return nil
	})
	b.mount(args...)
	<-completed
	d.cutPower(withoutJournal)
	close(cut)
	b.mount(args...)
	b.ok("wait", filepath.Join(b.point, "f"))
	server.one(b, "f", content)
	b.ok("unmount", b.point)
}

// A power cut can bring back what a file held before its last close. That is not what
// the close spoke of, even if the API has been sent all of it.
func TestAPowerCutBringsAnEarlierContentBack(t *testing.T) {
	edit := `printf "another start" | dd conv=notrunc status=none of="$M/f"; `
	for name, c := range map[string]struct {
		write string
		stop  local.Op // the second call
	}{
		"of a File": {`cp in "$M/f"; ` + binary + ` wait "$M/f"; sync -f disk; ` + edit, local.OpCreate},
		"of a part": {`exec 3> "$M/f"; fallocate -l $(stat -c %s in) "$M/f"; cat in >&3
			until getfattr --only-values -n user.uploadfs.part_ids "$M/f" 2> /dev/null | grep -q .; do sleep 0.02; done
			sync "$M/f"; sync -f disk; ` + edit + `exec 3>&-`, local.OpPart},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, users()[0])
			d := newDisk(b)
			server := newAPI(t)
			server.use(b)
			var calls atomic.Int32
			second, cut := make(chan struct{}, 1), make(chan struct{})
			server.SetIntercept(func(p local.Point) *local.Fault {
				if p.Op == c.stop && p.Stage == local.StageReceived && calls.Add(1) == 2 {
					second <- struct{}{}
					<-cut
					return &local.Fault{Reset: true}
				}
				return nil
			})
			args := []string{"--part-size", "8MiB", "--close", "background", "--write-path", "writeback"}
			b.mount(args...)
			content := b.input("in", 8<<20)
			b.shOK(c.write)
			<-second
			before := len(server.Files())
			b.flushJournal()
			d.cutPower(withJournal)
			left, err := os.ReadFile(filepath.Join(b.state, "tree", "f"))
			require.NoError(b, err)
			require.True(b, bytes.Equal(content, left), "the edit has reached the disk: this test tests nothing")

			close(cut)
			b.mount(args...)
			st := b.info("f")
			require.Equal(b, state.Interrupted, st.State)
			require.Contains(b, st.Error, "the machine was restarted before its content was known to be on the disk")
			require.Len(b, server.Files(), before)
			b.ok("unmount", b.point)
		})
	}
}

// After a clean end nothing is in doubt, whatever the boot.
func TestACleanReboot(t *testing.T) {
	b := newBox(t, users()[0])
	server := newAPI(t)
	server.use(b)
	args := []string{"--close", "background", "--drain-timeout", "10ms", "--hold-for", "1h"}
	b.mount(args...)
	b.shOK(`echo done > "$M/completed"`)
	b.ok("wait", filepath.Join(b.point, "completed"))
	started, release := server.block(t)
	content := b.input("in", 300_000)
	b.shOK(`cp in "$M/f"; echo held > "$M/held.tmp"`)
	<-started
	b.terminate()
	b.reboot()
	release()
	b.mount(args...)
	b.ok("wait", filepath.Join(b.point, "f"))
	server.one(b, "f", content)
	b.ok("wait", filepath.Join(b.point, "held.tmp")) // the drain has begun to send it
	require.Equal(t, state.Completed, b.info("completed").State)
	require.NotContains(t, b.shOK("cat state/uploadfs.log"), "compared after a restart")
	b.ok("unmount", b.point)
}

// A killed daemon is no power cut, and a power cut is one even where nothing is lost.
func TestAKilledDaemonIsNoPowerCut(t *testing.T) {
	for name, cut := range map[string]bool{"killed": false, "another boot": true} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, users()[0])
			server := newAPI(t)
			server.use(b)
			started, release := server.block(t)
			b.mount("--close", "background")
			content := b.input("in", 300_000)
			b.shOK(`cp in "$M/f"`)
			<-started
			b.kill()
			if cut {
				b.reboot()
			}
			release()
			b.mount("--close", "background")
			if cut {
				require.Equal(t, state.Interrupted, b.info("f").State)
			} else {
				b.ok("wait", filepath.Join(b.point, "f"))
				server.one(b, "f", content)
			}
			b.ok("unmount", b.point)
		})
	}
}

// A File is whole though its local copy is not.
func TestADamagedLocalCopy(t *testing.T) {
	b := newBox(t, users()[0])
	d := newDisk(b)
	server := newAPI(t)
	server.use(b)
	b.mount("--part-size", "8MiB")
	content, names := b.preallocated(1 << 20)
	ids := map[string]string{}
	for _, name := range names {
		server.one(b, name, content)
		ids[name] = b.info(name).FileID
	}
	b.flushJournal()
	d.cutPower(withJournal)
	lost := b.lost(names, content)
	b.mount("--part-size", "8MiB")
	b.await("each is compared", func() bool {
		return b.recorded("SELECT count(*) FROM files WHERE durable_size = 0 AND state = 'completed'") == 0
	})
	for _, name := range names {
		st := b.info(name)
		if !lost[name] {
			require.Equal(b, state.Completed, st.State)
			require.Equal(b, ids[name], st.FileID)
			continue
		}
		require.Equal(b, state.Interrupted, st.State)
		require.Contains(b, st.Error, "its local copy is damaged, and its File at the API is whole")
		require.Equal(b, []string{ids[name]}, st.Superseded)
	}
	require.Contains(b, b.ok("status", b.point), "its local copy is damaged")
	require.Len(b, server.Files(), len(names))
	require.Equal(b, 1, b.uploadfs("unmount", b.point).code, "they were found to be damaged in this mount")
}
