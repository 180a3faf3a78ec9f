package fusefs

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"uploadfs/fusefs/procfs"
	"uploadfs/uploader"
)

// How a copying writer is recognised.
const (
	copyAhead    = 4 << 20         // the most a copier has read and not yet written, bytes
	copySample   = 4 << 10         // bytes compared at a time
	copyDeadline = 2 * time.Second // for looking at a file that may be on a dead network filesystem
)

// copySource predicts the size of a file that is copied into the mount: the size of
// the file that it is copied from. cp, dd, cat, mv, pv, install, curl file: and
// shutil.copyfile have exactly one regular file open for reading. They read it from
// the start and write the same bytes to the same offsets. Programs that have an
// input open and write something else (gzip, tar) are recognised by samples.
type copySource struct {
	callers *callers
	by      procfs.Process
	ino     uint64 // of the file being written
}

// copySource predicts the size of a file that by has opened for writing; nil if the
// opener is not known.
func (r *callers) copySource(by procfs.Process, ino uint64) uploader.SizeOracle {
	if by.PID == 0 {
		return nil
	}
	return &copySource{r, by, ino}
}

// Size implements [uploader.SizeOracle]. It reads the opener's descriptors through
// /proc, which touches no file. Then it reads the source in a goroutine of its own:
// that can wait for ever on a dead network filesystem, and is given up in time.
func (c *copySource) Size(ctx context.Context, file io.ReaderAt, off, n, written int64) (int64, bool) {
	ctx, cancel := context.WithTimeout(ctx, copyDeadline)
	defer cancel()
	source, at, ok := c.source(written)
	if !ok || !c.by.Alive() {
		return 0, false
	}
	type answer struct {
		size int64
		ok   bool
	}
	found := make(chan answer, 1)
	go func() {
		size, ok := sameSamples(source, file, off, n)
		found <- answer{size, ok && size >= at}
	}()
	select {
	case a := <-found:
		return a.size, a.ok
	case <-ctx.Done():
		return 0, false
	}
}

// source finds the one file that the opener reads from, and how far the opener has
// written. In write-back the daemon has seen less than was written, so the position
// of the opener's own descriptor counts where it is further on.
func (c *copySource) source(written int64) (name string, at int64, ok bool) {
	all, err := procfs.Descriptors(c.by.PID)
	if err != nil {
		return "", 0, false
	}
	devices, err := procfs.MountDevices(c.by.PID)
	if err != nil {
		return "", 0, false
	}
	at = written
	output := -1
	var inputs []procfs.Descriptor
	for _, d := range all {
		ours := devices[d.MountID] == c.callers.mountDevice()
		if ours && d.Ino == c.ino && d.Writable() {
			at, output = max(at, d.Pos), d.FD
		}
		// A descriptor whose mount is not listed is a pipe, a socket or
		// the like. The daemon must not touch files of its own mount.
		if _, listed := devices[d.MountID]; listed && !ours && !d.Writable() && !isDevice(c.by.PID, d.FD) {
			inputs = append(inputs, d)
		}
	}
	if len(inputs) != 1 {
		return "", 0, false
	}
	// The copier goes on meanwhile, so the input's position is read between
	// two readings of the output's. With sendfile and an offset it stays at 0.
	in, err := procfs.ReadDescriptor(c.by.PID, inputs[0].FD)
	if err != nil {
		return "", 0, false
	}
	last := at
	if output >= 0 {
		if d, err := procfs.ReadDescriptor(c.by.PID, output); err == nil {
			last = max(last, d.Pos)
		}
	}
	if in.Pos != 0 && (in.Pos < at || in.Pos > last+copyAhead) {
		return "", 0, false
	}
	return procfs.DescriptorPath(c.by.PID, in.FD), at, true
}

// isDevice reports whether a descriptor was opened by a name below /dev or /proc,
// such as a terminal or /dev/null.
func isDevice(pid, fd int) bool {
	name, err := procfs.DescriptorTarget(pid, fd)
	return err == nil && (strings.HasPrefix(name, "/dev/") || strings.HasPrefix(name, "/proc/"))
}

// sameSamples compares the first, middle and last bytes of [off, off+n) of the
// source and of the file, and returns the source's size if they are equal.
func sameSamples(source string, file io.ReaderAt, off, n int64) (int64, bool) {
	var st syscall.Stat_t
	if err := syscall.Stat(source, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return 0, false
	}
	// O_NONBLOCK, so that the open cannot wait; no O_NOATIME, which needs rights.
	fd, err := syscall.Open(source, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	in := os.NewFile(uintptr(fd), source)
	defer in.Close()
	a, b := make([]byte, copySample), make([]byte, copySample)
	for _, at := range []int64{off, off + n/2, off + n - copySample} {
		at = max(at, off)
		want := min(copySample, off+n-at)
		if _, err := in.ReadAt(a[:want], at); err != nil && err != io.EOF {
			return 0, false
		}
		if k, err := file.ReadAt(b[:want], at); int64(k) < want && err != nil {
			return 0, false
		}
		if !bytes.Equal(a[:want], b[:want]) {
			return 0, false
		}
	}
	return st.Size, true
}
