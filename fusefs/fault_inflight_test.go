package fusefs_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api/local"
)

// heldCall holds every call of one kind at a stage until it is opened.
type heldCall struct {
	op      local.Op
	stage   local.Stage
	lost    bool // its answer is dropped when the gate opens; later ones are answered
	reached chan struct{}
	gate    chan struct{}
	open    func()
}

func (s *stack) holdComplete(stage local.Stage, lost bool) *heldCall {
	return s.hold(local.OpComplete, stage, lost)
}

func (s *stack) hold(op local.Op, stage local.Stage, lost bool) *heldCall {
	h := &heldCall{op: op, stage: stage, lost: lost, reached: make(chan struct{}, 100), gate: make(chan struct{})}
	h.open = sync.OnceFunc(func() { close(h.gate) })
	s.API.SetIntercept(h.intercept)
	s.t.Cleanup(h.open)
	return h
}

func (h *heldCall) intercept(p local.Point) *local.Fault {
	if p.Op != h.op || p.Stage != h.stage {
		return nil
	}
	select {
	case <-h.gate:
		return nil
	default:
	}
	h.reached <- struct{}{}
	select {
	case <-h.gate:
	case <-p.Request.Context().Done():
	}
	if h.lost {
		return &local.Fault{Reset: true}
	}
	return nil
}

const writeF = `
with open("f", "wb", 0) as f: f.write(b"1" * 100000)
print("closed", flush=True)
`

// meanwhile are changes that take away the content whose Complete is under way, and
// whether a file f is left that can name the File.
var meanwhile = map[string]struct {
	script string
	named  bool // by `info` of f
}{
	"unlink":             {`rm f`, false},
	"rename over":        {`echo other > g.tmp; mv -f g.tmp f`, false},
	"truncate":           {`: > f`, true},
	"truncate to a byte": {`truncate -s 1 f`, true},
	"rewrite":            {`echo new > f`, true},
	"edit":               {`printf XX | dd of=f bs=1 seek=50 conv=notrunc status=none`, true},
}

// TestCompleteIsNotCutOff changes or removes a file while Complete is under way. Its
// File is named: by `info`, or for a file without a name by the log.
func TestCompleteIsNotCutOff(t *testing.T) {
	for how, c := range meanwhile {
		for _, stage := range []local.Stage{local.StageReceived, local.StageDone} {
			for _, lost := range []bool{false, true} {
				name := how + ", " + string(stage)
				if lost {
					name += ", its answer lost"
				}
				t.Run(name, func(t *testing.T) {
					s := newStack(t, stackOptions{})
					h := s.holdComplete(stage, lost)
					first := s.start(writeF)
					<-h.reached
					changed := s.runBehind(c.script)
					require.Eventually(t, func() bool { return s.changedSince(t, "f", "1") }, 30*time.Second, 5*time.Millisecond)
					if !c.named {
						first.expect("closed") // no File of a removed file is waited for
					}
					h.open()
					if c.named {
						first.expect("closed")
					}
					require.NoError(t, first.wait())
					<-changed
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					defer cancel()
					require.Empty(t, s.Up.Drain(ctx))
					var id string // of the File of the first content
					for _, f := range s.API.Files() {
						if string(s.content(f.ID)) == strings.Repeat("1", 100000) {
							require.Empty(t, id, "one File for one content")
							id = f.ID
						}
					}
					require.NotEmpty(t, id, "Complete was cut off")
					require.True(t, s.log.has("completed", id), "the log names it")
					if c.named {
						require.Contains(t, s.attr("f", "info"), id)
					}
					require.False(t, s.log.has("expires by itself"))
					require.Zero(t, s.pending())
				})
			}
		}
	}
}

// TestCreateIsNotCutOff changes or removes a file while Create is under way. Its
// Upload is used or cancelled: none is left to expire.
func TestCreateIsNotCutOff(t *testing.T) {
	for how, c := range meanwhile {
		t.Run(how, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			h := s.hold(local.OpCreate, local.StageDone, false)
			first := s.start(writeF)
			<-h.reached
			changed := s.runBehind(c.script)
			require.Eventually(t, func() bool { return s.changedSince(t, "f", "1") }, patience, 5*time.Millisecond)
			h.open()
			first.expect("closed")
			require.NoError(t, first.wait())
			<-changed
			s.drained()
			require.Eventually(t, func() bool { return s.pending() == 0 }, patience, 5*time.Millisecond, "an Upload is left to expire")
		})
	}
}

// runBehind is run, in the background. The channel is closed at its end.
func (s *stack) runBehind(script string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if out, err := s.sh(script); err != nil {
			s.t.Errorf("%s: %v", out, err)
		}
	}()
	return done
}

// changedSince reports whether the file is gone, or does not begin with so many
// bytes of the content that is being sent.
func (s *stack) changedSince(t *testing.T, name, begin string) bool {
	t.Helper()
	out, err := s.sh(`head -c 100000 "$1" | tr -d "$2" | wc -c; stat -c %s "$1"`, name, begin)
	return err != nil || strings.TrimSpace(out) != "0\n100000"
}

// TestLostAnswerOfAFileThatIsGone loses the answer of a Complete while another
// client's File looks the same. Both are named.
func TestLostAnswerOfAFileThatIsGone(t *testing.T) {
	for how, c := range meanwhile {
		t.Run(how, func(t *testing.T) {
			s := newStack(t, stackOptions{})
			h := s.holdComplete(local.StageDone, true)
			first := s.start(writeF)
			<-h.reached
			changed := make(chan struct{})
			go func() {
				defer close(changed)
				s.sh(c.script)
			}()
			require.Eventually(t, func() bool { return s.changedSince(t, "f", "1") }, 30*time.Second, 5*time.Millisecond)
			// The gate holds the first Complete only: the other client's passes.
			theirs := make(chan string, 1)
			s.API.SetIntercept(nil)
			theirs <- s.foreign("f", []byte(strings.Repeat("2", 100000)))
			s.API.SetIntercept(h.intercept)
			h.open()
			first.expect("closed")
			<-changed
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			require.Empty(t, s.Up.Drain(ctx))
			ours := slices.DeleteFunc(s.ids(), func(id string) bool { return string(s.content(id)) != strings.Repeat("1", 100000) })
			require.Len(t, ours, 1)
			require.True(t, s.log.has("a File may exist", ours[0], <-theirs), "both candidates are named")
			require.False(t, s.log.has("expires by itself"))
		})
	}
}

// TestUnmountAwaitsTheCompleteOfARemovedFile: a drain waits for its answer, and an
// unmount without one says what it has cut off.
func TestUnmountAwaitsTheCompleteOfARemovedFile(t *testing.T) {
	for _, drain := range []bool{true, false} {
		s := newStack(t, stackOptions{})
		h := s.holdComplete(local.StageDone, false)
		first := s.start(writeF)
		<-h.reached
		s.run(`rm f`)
		first.expect("closed")
		require.NoError(t, first.wait())
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.Equal(t, []string{"f"}, s.Up.Drain(ctx), "it is under way")
		if drain {
			h.open()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			require.Empty(t, s.Up.Drain(ctx))
			cancel()
			require.True(t, s.log.has("completed", s.ids()[0]))
		}
		s.unmount()
		require.Equal(t, !drain, s.log.has("a File may exist"))
		s.mount()
	}
}
