package mount

// Settings are what can be changed of a running mount. What is nil stays as it is. No
// setting survives the mount.
type Settings struct {
	Limit    *int64 `json:"limit_upload,omitempty"` // bytes per second, 0 for none; see [ParseLimit]
	Parallel *int   `json:"parallel,omitempty"`     // see [ParseParallel]
	Paused   *bool  `json:"paused,omitempty"`
}

// set changes settings of this mount.
func (d *daemon) set(s Settings) error {
	if s.Limit != nil && *s.Limit != 0 && *s.Limit < leastLimit || s.Parallel != nil && (*s.Parallel < 1 || *s.Parallel > MaxParallel) {
		return usagef("the value is out of its bounds")
	}
	if s.Limit != nil {
		d.parts.limit.Set(*s.Limit)
		d.log.Info("set", "limit_upload", *s.Limit)
	}
	if s.Parallel != nil {
		d.parts.uploader.SetParallel(*s.Parallel)
		d.log.Info("set", "parallel", *s.Parallel)
	}
	if s.Paused != nil {
		d.parts.uploader.SetPaused(*s.Paused)
		d.log.Info("set", "paused", *s.Paused)
	}
	return nil
}
