//go:build linux

package fusefs

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// facts are those of a close by the opener itself, which is seen and lives, with
// the changes of the functions.
func facts(changes ...func(*closeFacts)) closeFacts {
	f := closeFacts{dirty: true, inExec: no, exiting: no, unseen: UnseenBackground}
	f.neverExeced = func() fact { return no }
	f.openerGoesOn = func() fact { return no }
	f.holdsAnother = func() fact { return no }
	f.mapsIt = func() fact { return no }
	for _, change := range changes {
		change(&f)
	}
	return f
}

func exits(status syscall.WaitStatus) func(*closeFacts) {
	return func(f *closeFacts) { f.exiting, f.exit = yes, exitFact{known: true, status: status, later: true} }
}

func killedBy(s syscall.Signal) func(*closeFacts) { return exits(syscall.WaitStatus(s)) }

// exitsUnseen is an exit of which only a pidfd tells the status, or nothing at all.
func exitsUnseen(later bool) func(*closeFacts) {
	return func(f *closeFacts) { f.exiting, f.exit = yes, exitFact{later: later} }
}

// hidden is a caller of which /proc shows nothing.
func hidden(later bool) func(*closeFacts) {
	return func(f *closeFacts) {
		f.inExec, f.exiting, f.exit = unknown, unknown, exitFact{later: later}
		f.neverExeced = func() fact { return unknown }
		f.holdsAnother = func() fact { return unknown }
		f.mapsIt = func() fact { return unknown }
	}
}

func withOpener(goesOn fact) func(*closeFacts) {
	return func(f *closeFacts) { f.openerGoesOn = func() fact { return goesOn } }
}

func holds(another fact) func(*closeFacts) {
	return func(f *closeFacts) { f.holdsAnother = func() fact { return another } }
}

func maps(it fact) func(*closeFacts) {
	return func(f *closeFacts) { f.mapsIt = func() fact { return it } }
}

func TestDecideClose(t *testing.T) {
	clean := func(f *closeFacts) { f.dirty, f.openerGoesOn, f.holdsAnother = false, nil, nil }
	exec := func(f *closeFacts) { f.inExec, f.openerGoesOn, f.holdsAnother, f.mapsIt = yes, nil, nil, nil }
	half := func(f *closeFacts) { f.half = true }
	neverExeced := func(f *closeFacts) { f.neverExeced = func() fact { return yes } }
	execUnknown := func(f *closeFacts) { f.neverExeced = func() fact { return unknown } }
	commit := func(f *closeFacts) { f.unseen = UnseenCommit }
	suspectKilled := func(f *closeFacts) { f.suspectKilled = true }
	suspectCrashed := func(f *closeFacts) { f.suspectKilled, f.suspectCrashed = true, true }
	const failure = syscall.WaitStatus(3 << 8)

	for _, c := range []struct {
		name string
		f    closeFacts
		want closeAction
	}{
		{"nothing has changed", facts(clean), reportError},
		{"nothing has changed, and the caller is killed", facts(clean, killedBy(syscall.SIGKILL)), reportError},
		{"inside execve", facts(exec), sendFull},
		{"inside execve, and nothing has changed", facts(clean, exec), reportError},

		{"mapped", facts(maps(yes)), awaitMapping},
		{"mapped, and nothing has changed yet", facts(clean, maps(yes)), awaitMapping},
		{"mapped, another descriptor", facts(maps(yes), holds(yes)), sendFull},
		{"mapped, descriptors unknown", facts(maps(yes), holds(unknown)), awaitMapping},
		{"mapped, descriptors unknown, commit", facts(maps(yes), holds(unknown), commit), awaitMapping},
		{"mapped by a helper", facts(maps(yes), withOpener(yes)), sendFull},
		{"mapped half", facts(maps(yes), half), awaitMapping},
		{"an exiting program maps nothing", facts(maps(yes), exits(0)), commitAndWait},
		{"mappings unknown", facts(maps(unknown)), commitAndWait},
		{"mappings unknown, and nothing has changed", facts(clean, maps(unknown)), reportError},
		{"mappings and descriptors unknown", facts(maps(unknown), holds(unknown)), sendFull},

		{"the last descriptor", facts(), commitAndWait},
		{"another descriptor", facts(holds(yes)), sendFull},
		{"exit 0", facts(exits(0)), commitAndWait},
		{"exit 0 does not ask for descriptors", facts(exits(0), holds(unknown)), commitAndWait},
		{"exit 3", facts(exits(failure)), commitLater},
		{"killed", facts(killedBy(syscall.SIGKILL)), markInterrupted},
		{"terminated", facts(killedBy(syscall.SIGTERM)), markInterrupted},
		{"dumps core", facts(killedBy(syscall.SIGSEGV | 0x80)), markInterrupted},
		{"killed, never execed, without an opener that goes on", facts(neverExeced, killedBy(syscall.SIGTERM)), markInterrupted},

		{"helper closes", facts(withOpener(yes)), sendFull},
		{"helper exits", facts(withOpener(yes), exits(0)), sendFull},
		{"helper fails", facts(withOpener(yes), exits(failure)), sendFull},
		{"helper is terminated", facts(withOpener(yes), killedBy(syscall.SIGTERM)), sendFull},
		{"helper is interrupted", facts(withOpener(yes), killedBy(syscall.SIGINT)), sendFull},
		{"helper loses its terminal", facts(withOpener(yes), killedBy(syscall.SIGHUP)), sendFull},
		{"helper loses its reader", facts(withOpener(yes), killedBy(syscall.SIGPIPE)), sendFull},
		{"helper is killed", facts(withOpener(yes), killedBy(syscall.SIGKILL)), markHalf},
		{"helper crashes", facts(withOpener(yes), killedBy(syscall.SIGSEGV|0x80)), markHalf},
		{"helper aborts", facts(withOpener(yes), killedBy(syscall.SIGABRT)), markHalf},
		{"helper exceeds its file size", facts(withOpener(yes), killedBy(syscall.SIGXFSZ)), markHalf},
		{"forked helper is killed", facts(withOpener(yes), neverExeced, killedBy(syscall.SIGKILL)), sendFull},
		{"helper crashes, exec unknown", facts(withOpener(yes), execUnknown, killedBy(syscall.SIGSEGV)), markHalf},
		{"unseen helper exits", facts(withOpener(yes), exitsUnseen(true)), awaitExit},
		{"unseen forked helper exits", facts(withOpener(yes), neverExeced, exitsUnseen(true)), sendFull},
		{"unseen helper exits, old kernel", facts(withOpener(yes), exitsUnseen(false)), sendFull},
		{"unseen helper exits, old kernel, TERM pending", facts(withOpener(yes), exitsUnseen(false), suspectKilled), sendFull},
		{"unseen helper exits, old kernel, core dump", facts(withOpener(yes), exitsUnseen(false), suspectCrashed), markHalf},
		{"hidden helper", facts(withOpener(yes), hidden(true)), awaitExit},
		{"hidden helper, old kernel", facts(withOpener(yes), hidden(false)), sendFull},
		{"hidden helper, commit", facts(withOpener(yes), hidden(false), commit), sendFull},

		{"unknown opener, background", facts(withOpener(unknown)), sendFull},
		{"unknown opener, commit", facts(withOpener(unknown), commit), commitAndWait},
		{"unknown opener, commit, another descriptor", facts(withOpener(unknown), commit, holds(yes)), sendFull},
		{"unknown opener, killed", facts(withOpener(unknown), killedBy(syscall.SIGTERM)), markInterrupted},

		{"descriptors unknown, background", facts(holds(unknown)), sendFull},
		{"descriptors unknown, commit", facts(holds(unknown), commit), commitAndWait},
		{"unseen exit", facts(exitsUnseen(true)), awaitExit},
		{"unseen exit, commit", facts(exitsUnseen(true), commit), awaitExit},
		{"unseen exit with a suspicion", facts(exitsUnseen(true), suspectKilled), awaitExit},
		{"unseen exit, old kernel", facts(exitsUnseen(false)), sendFull},
		{"unseen exit, old kernel, commit", facts(exitsUnseen(false), commit), commitAndWait},
		{"unseen exit, old kernel, TERM pending", facts(exitsUnseen(false), suspectKilled), markInterrupted},
		{"unseen exit, old kernel, TERM pending, commit", facts(exitsUnseen(false), suspectKilled, commit), markInterrupted},
		{"hidden", facts(hidden(true)), awaitExit},
		{"hidden, commit", facts(hidden(true), commit), commitAndWait},
		{"hidden, old kernel", facts(hidden(false)), sendFull},
		{"another PID namespace", facts(withOpener(unknown), hidden(false)), sendFull},
		{"another PID namespace, commit", facts(withOpener(unknown), hidden(false), commit), commitAndWait},

		{"half", facts(half), refuseHalf},
		{"half, exit 0", facts(half, exits(0)), refuseHalf},
		{"half, exit 3", facts(half, exits(failure)), refuseHalf},
		{"half, another descriptor", facts(half, holds(yes)), sendFull},
		{"half, killed", facts(half, killedBy(syscall.SIGTERM)), markInterrupted},
		{"half, nothing has changed", facts(half, clean), reportError},
	} {
		require.Equal(t, c.want.String(), decideClose(c.f).String(), c.name)
	}
}
