package uploader

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
)

// TestChangeOfTwoFilesBesideAnUnref: an exchange of two names must not wait for the
// table of sessions while it has one of them locked, because what has locked the table
// may wait for that session.
func TestChangeOfTwoFilesBesideAnUnref(t *testing.T) {
	u := openTest(t, Options{})
	var changes []MetadataChange
	unreferenced := make(chan struct{})
	var once sync.Once
	for _, rel := range []string{"a", "b"} {
		u.write(t, rel, "content")
		f, err := os.OpenFile(u.path(rel), os.O_RDWR, 0)
		require.NoError(t, err)
		defer f.Close()
		info, err := backing.StatFd(int(f.Fd()))
		require.NoError(t, err)
		w, err := u.OpenWriter(info.Key, rel, f, Found)
		require.NoError(t, err)
		defer w.Close()
		changes = append(changes, MetadataChange{Key: info.Key, Mtime: true, Stat: func() (backing.Info, error) {
			once.Do(func() {
				u.mu.Lock()
				s := u.sessions[info.Key]
				s.refs++
				u.mu.Unlock()
				go func() {
					defer close(unreferenced)
					u.unref(s)
				}()
				for u.mu.TryLock() { // until unref has it, and waits for the session
					u.mu.Unlock()
					runtime.Gosched()
				}
			})
			return backing.StatFd(int(f.Fd()))
		}})
	}
	require.NoError(t, u.ChangeMetadata(func() error { return nil }, changes...))
	<-unreferenced
}
