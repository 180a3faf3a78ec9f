package put

// SentOf is the Meter's count for an Upload.
func SentOf(m *Meter, uploadID string) int64 { return m.sent(uploadID) }

// Unsafe is unsafeDir.
var Unsafe = unsafeDir

// Expect is Meter.expect.
func Expect(m *Meter) (done func()) { return m.expect() }
