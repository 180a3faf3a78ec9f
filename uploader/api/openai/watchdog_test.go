package openai

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"uploadfs/uploader/api"
)

func TestAnswerLimit(t *testing.T) {
	for name, test := range map[string]struct {
		body     int64
		timeouts int
		want     time.Duration
	}{
		"a small call":           {0, 0, 5 * time.Minute},
		"a part of 2.3 MiB":      {150 * 16 << 10, 0, 5 * time.Minute},
		"a part of 8 MiB":        {8 << 20, 0, 1024 * time.Second},
		"a part of 64 MiB":       {64 << 20, 0, 8192 * time.Second},
		"after one timeout":      {0, 1, 10 * time.Minute},
		"after three timeouts":   {8 << 20, 3, 8192 * time.Second},
		"after a great many":     {8 << 20, 100, math.MaxInt64},
		"a body of a great size": {math.MaxInt64, 1, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, answerLimit(DefaultAnswerStall, DefaultSlowestRate, test.body, test.timeouts))
		})
	}
}

func TestStallErrors(t *testing.T) {
	silent := &stallError{waiting, 5 * time.Minute}
	require.EqualError(t, silent, "no progress for 5m0s: the request was received, but not answered")
	require.ErrorIs(t, silent, api.ErrAnswerTimeout)
	stuck := &stallError{sending, time.Minute}
	require.EqualError(t, stuck, "no progress for 1m0s")
	require.NotErrorIs(t, stuck, api.ErrAnswerTimeout)
}
