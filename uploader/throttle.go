package uploader

// SetPaused has no further call to the API begin, or ends that. Calls under way go on to
// their end, and closes wait meanwhile. It does not survive the Uploader.
func (u *Uploader) SetPaused(paused bool) {
	u.schedule.mu.Lock()
	defer u.schedule.mu.Unlock()
	u.schedule.paused = paused
	u.schedule.dispatch()
}

// Paused reports whether [Uploader.SetPaused] holds.
func (u *Uploader) Paused() bool {
	u.schedule.mu.Lock()
	defer u.schedule.mu.Unlock()
	return u.schedule.paused
}

// SetParallel sets how many large parts may be under way over all files, at least one.
// More that are under way already go on.
func (u *Uploader) SetParallel(n int) {
	u.schedule.mu.Lock()
	defer u.schedule.mu.Unlock()
	u.schedule.lanes[large].slots = n
	u.schedule.queue.most[large] = n * commitsPerSlot
	u.schedule.dispatch()
}

// parallel is how many large parts may be under way.
func (q *scheduler) parallel() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[large].slots
}
