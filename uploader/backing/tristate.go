package backing

// Tristate answers a question to which the answer may be missing. Unknown is never
// taken for No.
type Tristate int

const (
	Unknown Tristate = iota
	No
	Yes
)

// Is is the answer to a question of which the answer is known.
func Is(so bool) Tristate {
	if so {
		return Yes
	}
	return No
}
