package uploader

import ("fmt"; "uploadfs/uploader/backing")

func (u *Uploader) Dump(key backing.Key) string {
	u.mu.Lock(); s := u.sessions[key]; u.mu.Unlock()
	if s == nil { return "no session" }
	s.mu.Lock(); defer s.mu.Unlock()
	w := ""
	for x := range s.waiters { w += fmt.Sprint(x.gen, " ") }
	out := fmt.Sprintf("state=%s gen=%d asked=%d pending=%d writers=%d refs=%d running=%v poison=%v waiters=%s", s.rec.state, s.content.gen, s.asked, s.content.pending, s.writers, s.refs, s.running != nil, s.poison, w)
	if x := s.xfer; x != nil { out += fmt.Sprintf(" xfer: %s err=%v ctx=%v feeding=%v inflight=%d complete=%v", x.upload.ID, x.err, x.ctx.Err(), x.feeding, x.inflight, x.complete(&s.content)) }
	return out
}
