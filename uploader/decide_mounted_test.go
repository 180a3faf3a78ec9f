package uploader

import (
	"testing"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/backing"
	"uploadfs/uploader/state"
)

// closedContent is a file of one byte in this state, with the content of its last close.
func closedContent(s state.State, change ...func(*facts)) facts {
	f := facts{
		event: eventMounted, state: s, size: 1, sameSize: true, sameMtime: backing.Yes, sameCtime: backing.Yes,
		writer: backing.No, survived: backing.Yes,
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

func TestDecideMounted(t *testing.T) {
	const stay = state.State("")
	type change = func(*facts)
	closed := closedContent
	empty := func(f *facts) { f.size = 0 }
	excludedName := func(f *facts) { f.name = nameExcluded }
	heldName := func(f *facts) { f.name = nameHeld }
	wasOpen := func(f *facts) { f.wasOpen = true }
	lost := func(f *facts) { f.lost = true }
	completing := func(f *facts) { f.completing = true }
	otherSize := func(f *facts) { f.sameSize = false }
	mtime := func(is backing.Tristate) change { return func(f *facts) { f.sameMtime = is } }
	ctime := func(is backing.Tristate) change { return func(f *facts) { f.sameCtime = is } }
	writer := func(is backing.Tristate) change { return func(f *facts) { f.writer = is } }
	sent := func(is sentFact) change { return func(f *facts) { f.sent = is } }
	anotherBoot := func(f *facts) { f.survived = backing.Unknown }
	interrupted := func(reason string) decision { return decision{to: state.Interrupted, reason: reason} }
	to := func(s state.State) decision { return decision{to: s} }
	compare, later, watch := decision{compare: true}, decision{compareLater: true}, decision{watch: true}

	for name, c := range map[string]struct {
		f    facts
		want decision
	}{
		"writing":                            {closed(state.Writing), interrupted(reasonNotClosed)},
		"writing, empty":                     {closed(state.Writing, empty), interrupted(reasonNotClosed)},
		"writing, still open":                {closed(state.Writing, writer(backing.Yes)), watch},
		"empty":                              {closed(state.Empty, empty), to(stay)},
		"empty, written since":               {closed(state.Empty, otherSize), interrupted(reasonNotClosed)},
		"empty, was open":                    {closed(state.Empty, empty, wasOpen), interrupted(reasonNotClosed)},
		"interrupted":                        {closed(state.Interrupted, otherSize), to(stay)},
		"interrupted, still open":            {closed(state.Interrupted, writer(backing.Yes)), to(stay)},
		"excluded":                           {closed(state.Excluded, excludedName), to(stay)},
		"excluded no more":                   {closed(state.Excluded), to(state.Uploading)},
		"excluded, changed":                  {closed(state.Excluded, excludedName, otherSize), interrupted(reasonChanged)},
		"excluded, another boot":             {closed(state.Excluded, excludedName, anotherBoot), to(stay)},
		"excluded no more, another boot":     {closed(state.Excluded, anotherBoot, sent(sentNothing)), interrupted(reasonPowerCut)},
		"failed":                             {closed(state.Failed), to(state.Uploading)},
		"failed, changed":                    {closed(state.Failed, otherSize), interrupted(reasonChanged)},
		"failed, bytes are missing":          {closed(state.Failed, otherSize, lost), to(stay)},
		"failed, excluded now":               {closed(state.Failed, excludedName), to(state.Excluded)},
		"held":                               {closed(state.Held, heldName), to(state.Held)},
		"held no more":                       {closed(state.Held), to(state.Uploading)},
		"held, mtime differs":                {closed(state.Held, heldName, mtime(backing.No), sent(sentNothing)), interrupted(reasonChanged)},
		"uploading":                          {closed(state.Uploading), to(state.Uploading)},
		"uploading, held name":               {closed(state.Uploading, heldName), to(state.Uploading)},
		"retrying, excluded now":             {closed(state.Retrying, excludedName), to(state.Excluded)},
		"excluded, but may be a File":        {closed(state.Uploading, excludedName, completing), to(state.Uploading)},
		"size differs":                       {closed(state.Uploading, otherSize, sent(sentAll)), interrupted(reasonChanged)},
		"still open":                         {closed(state.Uploading, writer(backing.Yes)), watch},
		"still open, changed":                {closed(state.Uploading, writer(backing.Yes), otherSize), watch},
		"mtime differs":                      {closed(state.Uploading, mtime(backing.No)), compare},
		"mtime differs, sent":                {closed(state.Uploading, mtime(backing.No), sent(sentAll)), to(state.Uploading)},
		"mtime differs, some sent":           {closed(state.Uploading, mtime(backing.No), sent(sentSome)), interrupted(reasonChanged)},
		"mtime differs, other was sent":      {closed(state.Uploading, mtime(backing.No), sent(sentDiffers)), interrupted(reasonChanged)},
		"mtime differs, nothing sent":        {closed(state.Uploading, mtime(backing.No), sent(sentNothing)), interrupted(reasonChanged)},
		"no mtime recorded":                  {closed(state.Uploading, mtime(backing.Unknown)), compare},
		"no mtime recorded, sent":            {closed(state.Uploading, mtime(backing.Unknown), sent(sentAll)), to(state.Uploading)},
		"no mtime recorded, nothing sent":    {closed(state.Uploading, mtime(backing.Unknown), sent(sentNothing)), interrupted(reasonUnknown)},
		"ctime differs":                      {closed(state.Uploading, ctime(backing.No)), compare},
		"ctime differs, some sent":           {closed(state.Uploading, ctime(backing.No), sent(sentSome)), to(state.Uploading)},
		"ctime differs, other was sent":      {closed(state.Uploading, ctime(backing.No), sent(sentDiffers)), interrupted(reasonChanged)},
		"ctime differs, nothing sent":        {closed(state.Uploading, ctime(backing.No), sent(sentNothing)), interrupted(reasonChanged)},
		"a copy":                             {closed(state.Uploading, ctime(backing.Unknown)), compare},
		"a copy, nothing sent":               {closed(state.Uploading, ctime(backing.Unknown), sent(sentNothing)), to(state.Uploading)},
		"a copy, some sent":                  {closed(state.Uploading, ctime(backing.Unknown), sent(sentSome)), to(state.Uploading)},
		"a copy, other was sent":             {closed(state.Uploading, ctime(backing.Unknown), sent(sentDiffers)), interrupted(reasonChanged)},
		"no leases":                          {closed(state.Uploading, writer(backing.Unknown)), to(state.Uploading)},
		"no leases, ctime differs":           {closed(state.Uploading, writer(backing.Unknown), ctime(backing.No), sent(sentSome)), interrupted(reasonChanged)},
		"no leases, mtime differs":           {closed(state.Uploading, writer(backing.Unknown), mtime(backing.No), sent(sentAll)), interrupted(reasonChanged)},
		"another boot":                       {closed(state.Uploading, anotherBoot), compare},
		"another boot, sent":                 {closed(state.Uploading, anotherBoot, sent(sentAll)), to(state.Uploading)},
		"another boot, some sent":            {closed(state.Uploading, anotherBoot, sent(sentSome)), interrupted(reasonPowerCut)},
		"another boot, nothing sent":         {closed(state.Held, anotherBoot, sent(sentNothing)), interrupted(reasonPowerCut)},
		"completed":                          {closed(state.Completed), to(stay)},
		"completed, was open":                {closed(state.Completed, wasOpen), to(stay)},
		"completed, still open":              {closed(state.Completed, wasOpen, writer(backing.Yes)), watch},
		"completed, excluded now":            {closed(state.Completed, excludedName), to(stay)},
		"completed, ctime differs":           {closed(state.Completed, ctime(backing.No)), to(stay)},
		"completed, size differs":            {closed(state.Completed, otherSize), interrupted(reasonChanged)},
		"completed, mtime differs":           {closed(state.Completed, mtime(backing.No)), compare},
		"completed, mtime differs, same":     {closed(state.Completed, mtime(backing.No), sent(sentAll)), to(stay)},
		"completed, mtime differs, changed":  {closed(state.Completed, mtime(backing.No), sent(sentDiffers)), interrupted(reasonChanged)},
		"completed, another boot":            {closed(state.Completed, anotherBoot), later},
		"completed, another boot, same":      {closed(state.Completed, anotherBoot, sent(sentAll)), to(stay)},
		"completed, another boot, damaged":   {closed(state.Completed, anotherBoot, sent(sentDiffers)), interrupted(reasonDamaged)},
		"completed, another boot, cut short": {closed(state.Completed, anotherBoot, otherSize), interrupted(reasonDamaged)},
		"completed, another boot, mtime":     {closed(state.Completed, anotherBoot, mtime(backing.No)), compare},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, decide(c.f))
		})
	}
}
