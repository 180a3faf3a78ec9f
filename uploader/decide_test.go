package uploader

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"uploadfs/uploader/api"
	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

func TestDecisions(t *testing.T) {
	const stay = state.State("")
	for name, c := range map[string]struct {
		f    facts
		want state.State
	}{
		"close: content":                  {facts{event: eventClosed, state: state.Writing, size: 1}, state.Uploading},
		"close: no content":               {facts{event: eventClosed, state: state.Writing, name: nameExcluded}, state.Empty},
		"close: held name":                {facts{event: eventClosed, state: state.Writing, name: nameHeld, size: 1}, state.Held},
		"close: excluded name":            {facts{event: eventClosed, state: state.Writing, name: nameExcluded, size: 1}, state.Excluded},
		"close: too large":                {facts{event: eventClosed, state: state.Writing, size: api.MaxUpload + 1}, state.Failed},
		"close: too large, but excluded":  {facts{event: eventClosed, state: state.Writing, name: nameExcluded, size: api.MaxUpload + 1}, state.Excluded},
		"close: the largest":              {facts{event: eventClosed, state: state.Writing, size: api.MaxUpload}, state.Uploading},
		"close: full disk":                {facts{event: eventClosed, state: state.Writing, size: 1, diskFull: true}, state.Interrupted},
		"close: full disk and no content": {facts{event: eventClosed, state: state.Writing, diskFull: true}, state.Empty},

		"rename: held to final":         {facts{event: eventRenamed, survived: backing.Yes, state: state.Held, size: 1}, state.Uploading},
		"rename: held to held":          {facts{event: eventRenamed, survived: backing.Yes, state: state.Held, name: nameHeld, size: 1}, stay},
		"rename: held to excluded":      {facts{event: eventRenamed, survived: backing.Yes, state: state.Held, name: nameExcluded, size: 1}, state.Excluded},
		"rename: held, still written":   {facts{event: eventRenamed, survived: backing.Yes, state: state.Held, size: 1, writers: 1}, stay},
		"rename: excluded to final":     {facts{event: eventRenamed, survived: backing.Yes, state: state.Excluded, size: 1}, state.Uploading},
		"rename: excluded to held":      {facts{event: eventRenamed, survived: backing.Yes, state: state.Excluded, name: nameHeld, size: 1}, state.Held},
		"rename: excluded, too large":   {facts{event: eventRenamed, survived: backing.Yes, state: state.Excluded, size: api.MaxUpload + 1}, state.Failed},
		"rename: excluded, may be lost": {facts{event: eventRenamed, state: state.Excluded, size: 1}, state.Interrupted},
		"rename: still excluded":        {facts{event: eventRenamed, state: state.Excluded, name: nameExcluded, size: 1}, stay},
		"rename: completed":             {facts{event: eventRenamed, survived: backing.Yes, state: state.Completed, name: nameExcluded, size: 1}, stay},
		"rename: uploading":             {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, name: nameExcluded, size: 1, declared: true}, stay},
		"rename: retrying a part":       {facts{event: eventRenamed, survived: backing.Yes, state: state.Retrying, name: nameHeld, size: 1, declared: true}, stay},
		"rename: waits, final to final": {facts{event: eventRenamed, survived: backing.Yes, state: state.Retrying, size: 1}, stay},
		"rename: waits, to held":        {facts{event: eventRenamed, survived: backing.Yes, state: state.Retrying, name: nameHeld, size: 1}, state.Held},
		"rename: waits, to excluded":    {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, name: nameExcluded, size: 1}, state.Excluded},
		"rename: a close waits, to held": {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, name: nameHeld, size: 1, writers: 1},
			state.Held},
		"rename: written, to held":      {facts{event: eventRenamed, survived: backing.Yes, state: state.Writing, name: nameHeld, size: 1, writers: 1}, stay},
		"due: held":                     {facts{event: eventDue, state: state.Held, name: nameHeld, size: 1}, state.Uploading},
		"due: written again":            {facts{event: eventDue, state: state.Held, name: nameHeld, size: 1, writers: 1}, stay},
		"due: sent meanwhile":           {facts{event: eventDue, state: state.Uploading, size: 1}, stay},
		"retry: held":                   {facts{event: eventRetried, state: state.Held, name: nameHeld, size: 1}, state.Uploading},
		"retry: failed":                 {facts{event: eventRetried, state: state.Failed, size: 1}, state.Uploading},
		"retry: failed, held name":      {facts{event: eventRetried, state: state.Failed, name: nameHeld, size: 1}, state.Uploading},
		"retry: failed, excluded name":  {facts{event: eventRetried, state: state.Failed, name: nameExcluded, size: 1}, state.Excluded},
		"retry: bytes are missing":      {facts{event: eventRetried, state: state.Failed, size: 1, lost: true}, stay},
		"retry: still too large":        {facts{event: eventRetried, state: state.Failed, size: api.MaxUpload + 1}, state.Failed},
		"retry: interrupted":            {facts{event: eventRetried, state: state.Interrupted, size: 1}, state.Uploading},
		"retry: interrupted, empty":     {facts{event: eventRetried, state: state.Interrupted}, state.Empty},
		"retry: interrupted, excluded":  {facts{event: eventRetried, state: state.Interrupted, name: nameExcluded, size: 1}, state.Excluded},
		"retry: uploading":              {facts{event: eventRetried, state: state.Uploading, size: 1}, stay},
		"retry: retrying":               {facts{event: eventRetried, state: state.Retrying, size: 1}, stay},
		"retry: completed":              {facts{event: eventRetried, state: state.Completed, size: 1}, stay},
		"retry: excluded":               {facts{event: eventRetried, state: state.Excluded, size: 1}, stay},
		"cancel: uploading":             {facts{event: eventCancelled, state: state.Uploading, size: 1, declared: true}, state.Interrupted},
		"cancel: waits for a turn":      {facts{event: eventCancelled, state: state.Uploading, size: 1}, state.Interrupted},
		"cancel: retrying":              {facts{event: eventCancelled, state: state.Retrying, size: 1}, state.Interrupted},
		"cancel: may be a File":         {facts{event: eventCancelled, state: state.Retrying, size: 1, completing: true}, stay},
		"cancel: held":                  {facts{event: eventCancelled, state: state.Held, name: nameHeld, size: 1}, state.Interrupted},
		"cancel: written":               {facts{event: eventCancelled, state: state.Writing, size: 1, writers: 1}, stay},
		"cancel: completed":             {facts{event: eventCancelled, state: state.Completed, size: 1}, stay},
		"rename: settling":              {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, settling: true, size: 1}, stay},
		"rename: settling, to held":     {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, settling: true, name: nameHeld, size: 1}, state.Held},
		"rename: settling, to excluded": {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, settling: true, name: nameExcluded, size: 1}, state.Excluded},
		"rename: settling, still open":  {facts{event: eventRenamed, survived: backing.Yes, state: state.Uploading, settling: true, name: nameHeld, size: 1, writers: 1}, state.Held},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(c.f)
			require.Equal(t, c.want, d.to)
			if d.to != stay && d.to != c.f.state {
				require.True(t, c.f.state.CanBecome(d.to) || d.to == state.Interrupted, "%s to %s is legal", c.f.state, d.to)
			}
			require.Equal(t, d.to == state.Interrupted, d.reason != "", "only an interrupted file has a reason")
		})
	}
}

// TestWhatARenameWithdraws: what waits without an Upload is not sent under a name that is
// held or excluded.
func TestWhatARenameWithdraws(t *testing.T) {
	for _, s := range state.All {
		for _, class := range []nameClass{nameFinal, nameHeld, nameExcluded} {
			for _, declared := range []bool{false, true} {
				for writers := range 2 {
					d := decide(facts{event: eventRenamed, state: s, name: class, size: 1, declared: declared, writers: writers, survived: backing.Yes})
					want := class != nameFinal && !declared && (s.Committing() || s == state.Writing)
					require.Equal(t, want, d.withdraw, "%s, class %d, declared %v, %d writers", s, class, declared, writers)
				}
			}
		}
	}
}

func TestWhatTheCallerHearsOfADecision(t *testing.T) {
	full := decide(facts{event: eventClosed, state: state.Writing, size: 1, diskFull: true})
	require.ErrorIs(t, full.err, unix.ENOSPC)
	large := decide(facts{event: eventClosed, state: state.Writing, size: api.MaxUpload + 1})
	require.Equal(t, api.TooLarge, api.KindOf(large.err))
	require.ErrorContains(t, decide(facts{event: eventRetried, state: state.Completed}).err, "the file is completed")
	require.ErrorContains(t, decide(facts{event: eventRetried, state: state.Failed, lost: true}).err, "write the file anew")
	require.ErrorContains(t, decide(facts{event: eventRetried, state: state.Failed, name: nameExcluded, size: 1}).err, "excluded")
	require.NoError(t, decide(facts{event: eventRetried, state: state.Uploading}).err, "that is what it is doing")
}

// TestWhatSettles: what a close or a rename sends may change again at once. What the
// user, a timer or a mount sends does not.
func TestWhatSettles(t *testing.T) {
	settles := map[event]state.State{eventClosed: state.Writing, eventRenamed: state.Held,
		eventDue: state.Held, eventRetried: state.Failed, eventMounted: state.Uploading}
	for e, from := range settles {
		d := decide(facts{event: e, state: from, size: 1, sameSize: true, sameMtime: backing.Yes, sameCtime: backing.Yes,
			writer: backing.No, survived: backing.Yes})
		require.Equal(t, state.Uploading, d.to, "event %d", e)
		require.Equal(t, e == eventClosed || e == eventRenamed, d.settle, "event %d", e)
	}
}
