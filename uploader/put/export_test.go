package put

// Unsafe is unsafeDir.
var Unsafe = unsafeDir

// Expect is Acks.expect.
func Expect(a *Acks) (done func()) { return a.expect() }
