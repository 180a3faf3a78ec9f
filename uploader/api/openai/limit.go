package openai

import (
	"context"

	"golang.org/x/time/rate"
)

// Limit bounds the bytes per second that all connections together send, with what HTTP
// and TLS add. It may be used and changed concurrently. A nil Limit bounds nothing.
type Limit struct {
	limiter *rate.Limiter
}

// The pieces in which a limited connection writes. A small one lets many connections take
// turns often enough that none of them seems to stall.
const (
	leastPiece = 1 << 10
	mostPiece  = pieceSize
	piecesOf   = 20 // of a second
)

// NewLimit returns a limit of so many bytes per second, 0 for none.
func NewLimit(perSecond int64) *Limit {
	l := &Limit{rate.NewLimiter(rate.Inf, mostPiece)}
	l.Set(perSecond)
	return l
}

// Set changes the limit, also of what waits already.
func (l *Limit) Set(perSecond int64) {
	if perSecond <= 0 {
		l.limiter.SetLimit(rate.Inf)
		return
	}
	l.limiter.SetLimit(rate.Limit(perSecond))
	l.limiter.SetBurst(int(min(max(perSecond/piecesOf, leastPiece), mostPiece)))
}

// PerSecond is the limit in bytes, 0 for none.
func (l *Limit) PerSecond() int64 {
	if l.limiter.Limit() == rate.Inf {
		return 0
	}
	return int64(l.limiter.Limit())
}

// wait waits until up to n bytes may be sent, and returns how many.
func (l *Limit) wait(ctx context.Context, n int) (int, error) {
	if l == nil || l.limiter.Limit() == rate.Inf {
		return n, nil
	}
	for {
		// The burst may have become smaller meanwhile.
		n = min(n, l.limiter.Burst())
		if err := l.limiter.WaitN(ctx, n); err == nil || ctx.Err() != nil {
			return n, err
		}
	}
}
