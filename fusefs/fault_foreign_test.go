package fusefs_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// resetFirstComplete breaks the connection of the first Complete for each Upload
// before it is carried out.
func resetFirstComplete() local.InterceptFunc {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(p local.Point) *local.Fault {
		if p.Op != local.OpComplete || p.Stage != local.StageHead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		path := p.Request.URL.Path
		if seen[path] {
			return nil
		}
		seen[path] = true
		return &local.Fault{Reset: true}
	}
}

// TestTwoMountsOnOneKey: both write a file of the same name and size, and no
// connection that carries the first Complete of an Upload survives. Each ends with a
// File of its own content.
func TestTwoMountsOnOneKey(t *testing.T) {
	a := newStack(t, stackOptions{})
	b := newStack(t, stackOptions{Share: a})
	for round := range 5 {
		a.API.SetIntercept(resetFirstComplete())
		one, two := []byte("content one "+string(rune('0'+round))), []byte("content two "+string(rune('0'+round)))
		done := make(chan error, 2)
		for _, w := range []struct {
			s       *stack
			content []byte
		}{{a, one}, {b, two}} {
			go func() {
				_, err := w.s.sh(`printf %s "$1" > out.json`, string(w.content))
				done <- err
			}()
		}
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		a.completed("out.json", one)
		b.completed("out.json", two)
		require.NotEqual(t, a.attr("out.json", "file_id"), b.attr("out.json", "file_id"))
	}
}

// TestAnOlderFileIsNotOurs: a script has made a File of the same name and size
// before our Upload began, and the connection breaks before our Complete.
func TestAnOlderFileIsNotOurs(t *testing.T) {
	s := newStack(t, stackOptions{})
	foreign := s.foreign("out.json", []byte("their"))
	s.API.SetIntercept(resetFirstComplete())
	s.run(`printf 'ours!' > out.json`)
	s.completed("out.json", []byte("ours!"))
	require.NotEqual(t, foreign, s.attr("out.json", "file_id"))
	require.Len(t, s.ids(), 2)
}

// TestAFileThatIsListedLate: the answer is lost, and the list lags behind. The close
// waits for it, and says so meanwhile.
func TestAFileThatIsListedLate(t *testing.T) {
	s := newStack(t, stackOptions{API: local.Options{Faults: local.Faults{ListLag: time.Second}}})
	s.run(`printf soon > f`)
	s.loseAnswer()
	done := make(chan error, 1)
	go func() {
		_, err := s.sh(`printf late > f`)
		done <- err
	}()
	s.eventually("f", "retrying")
	require.NoError(t, <-done)
	s.completed("f", []byte("late"))
	require.Len(t, s.ids(), 2)
}

// TestANamesakeOfAnotherContent: the answer is lost, our File was deleted, and
// another client makes one of the same name and size at that moment. Its content
// can be read, and is not ours.
func TestANamesakeOfAnotherContent(t *testing.T) {
	s := newStack(t, stackOptions{Purpose: "user_data"})
	s.run(`mkdir d; setfattr -n user.uploadfs.purpose -v evals d`)
	var once atomic.Bool
	s.API.SetIntercept(func(p local.Point) *local.Fault {
		if p.Op != local.OpComplete || p.Stage != local.StageDone || once.Swap(true) {
			return nil
		}
		s.delete(s.ids()[0])
		s.foreignOf("evals", "f", []byte("their"))
		return &local.Fault{Reset: true}
	})
	_, err := s.sh(`sh -c 'exec 3> d/f; printf "ours!" >&3; exec 3>&-' && test "$(getfattr --only-values -n user.uploadfs.state d/f)" = completed`)
	require.Error(t, err)
	require.Equal(t, "failed", s.attr("d/f", "state"))
	require.Contains(t, s.attr("d/f", "error"), s.ids()[0])
	require.Contains(t, s.attr("d/f", "error"), "has another content")
}
