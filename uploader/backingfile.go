package uploader

import (
	"os"

	"golang.org/x/sys/unix"

	"uploadfs/uploader/api"
)

// backingFile is the descriptor of a session's backing file, shared by all that
// read it. It is open while something uses it: a descriptor that is kept on a
// deleted file keeps its pages too. The session's mutex guards it.
type backingFile struct {
	f    *os.File // nil while uses is 0
	uses int
}

// acquire makes f usable until release. The first use opens it with open.
func (b *backingFile) acquire(open func() (*os.File, error)) error {
	if b.uses == 0 {
		f, err := open()
		if err != nil {
			return err
		}
		b.f = f
	}
	b.uses++
	return nil
}

// release ends a use and reports whether it was the last one.
func (b *backingFile) release() (last bool) {
	if b.uses--; b.uses > 0 {
		return false
	}
	b.f.Close()
	b.f = nil
	return true
}

// isOpen reports whether something uses the file.
func (b *backingFile) isOpen() bool { return b.uses > 0 }

// fd is the descriptor, for calls that take a number. The file must be open.
func (b *backingFile) fd() int { return int(b.f.Fd()) }

// duplicate opens the same file once more. It needs neither a name nor a permission.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, api.LocalError("dup", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
