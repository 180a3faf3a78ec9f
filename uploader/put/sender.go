package put

import (
	"context"
	"sync"

	"uploadfs/uploader"
)

// Observer hears how the jobs of a put get on. Its methods are called from the
// goroutines that send, so several may run at once; a job's own calls follow each
// other.
type Observer interface {
	// Unchanged says that an earlier put has sent the file. Begin and End are not
	// called for it.
	Unchanged(*Job, *uploader.Status)
	// Begin says that a file is being sent from now on. Its Status can be
	// asked from here until End.
	Begin(*Job)
	// End says that a file is not being sent any more. The result is nil where
	// there is no File.
	End(*Job, *uploader.Status)
}

// Sender sends jobs. The caller sets all fields and keeps what they hold open
// until the jobs have ended.
type Sender struct {
	Dir      *Dir
	Uploader *uploader.Uploader // from [Dir.OpenUploader]
	Acks     *Acks              // beneath the Uploader's Backend
	Observer Observer
	Parallel int // files at a time
}

// Start begins to send the jobs and returns at once; [Job.Wait] gives the result
// of each. wait returns when all have ended. The end of ctx ends them, with its
// cause.
func (s *Sender) Start(ctx context.Context, jobs []*Job) (wait func()) {
	for _, j := range jobs {
		j.done = make(chan struct{})
	}
	var sending sync.WaitGroup
	turns := make(chan struct{}, s.Parallel)
	for _, j := range jobs {
		sending.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			j.run(ctx, s)
		})
	}
	return sending.Wait
}
