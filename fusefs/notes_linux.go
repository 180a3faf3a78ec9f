package fusefs

import (
	"log/slog"
	"os"
	"slices"
	"sync"

	"uploadfs/fusefs/procfs"
)

// mountNotes are the sentences of [Server.Notes]. Each is logged once.
type mountNotes struct {
	log *slog.Logger

	mu    sync.Mutex // protects notes
	notes []string
}

// The notes.
const (
	noteOtherUsers = "programs of other users cannot be observed, so their closes are not judged: mount as root, or see --unseen-writers"
	noteOwner      = "new files of other users belong to this user: only root can give files away"
	noteNamespace  = "programs outside this PID namespace cannot be observed, so their closes are not judged: share the host's PID namespace (hostPID, shareProcessNamespace), or see --unseen-writers"
	noteUnseen     = "a program that could not be observed has written here (of another user, hidden by /proc, or in another PID namespace), so its closes are not judged: mount as root and share the host's PID namespace, or see --unseen-writers"
)

// expect records at mount what is known beforehand.
func (u *mountNotes) expect(options []string, shared bool) {
	if slices.Contains(options, "allow_other") {
		if me, err := procfs.ReadStatus(os.Getpid()); err == nil && !me.Capable(procfs.CapSysPtrace) {
			u.add(noteOtherUsers)
		}
		if os.Geteuid() != 0 {
			u.add(noteOwner)
		}
	}
	if initial, err := procfs.InInitialPIDNamespace(); err == nil && !initial && shared {
		u.add(noteNamespace)
	}
}

// met records that a close could not be judged.
func (u *mountNotes) met() { u.add(noteUnseen) }

// add records a note, and logs it the first time.
func (u *mountNotes) add(note string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Contains(u.notes, note) {
		return
	}
	u.notes = append(u.notes, note)
	u.log.Warn(note)
}

func (u *mountNotes) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.notes)
}
