package holders

import (
	"context"
	"time"
)

// tick is how often it is looked whether a holder has let go.
const tick = 2 * time.Millisecond

// Lasting is All without those who let go within patience: whoever opens, reads and closes one file after another is
// not in the way. It returns as soon as all have let go once. One that it returns may have let go and come back between
// two looks.
func (s *Search) Lasting(ctx context.Context, patience time.Duration) ([]Holder, error) {
	left, err := s.All()
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(patience)
	for {
		var still []Holder
		for _, h := range left {
			if s.holds(h) {
				still = append(still, h)
			}
		}
		if left = still; len(left) == 0 || time.Now().After(deadline) {
			return left, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(tick):
		}
	}
}
