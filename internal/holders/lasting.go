package holders

import (
	"context"
	"slices"
	"time"
)

// tick is how often it is looked whether a holder has let go. Mounts are looked at every so many ticks: that takes longer.
const (
	tick      = 2 * time.Millisecond
	mountTick = 10
)

// namespacePatience is how many times longer the mounts of other namespaces are waited for: one that is being made, for
// a container, has copies of all mounts until its maker drops them.
const namespacePatience = 10

// Lasting is All without those who let go within patience: whoever opens, reads and closes one file after another is
// not in the way. It returns as soon as all have let go once. One that it returns may have let go and come back between
// two looks.
func (s *Search) Lasting(ctx context.Context, patience time.Duration) ([]Holder, error) {
	left, err := s.All()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	for n := 1; ; n++ {
		limit := patience
		if slices.ContainsFunc(left, s.elsewhere) {
			limit *= namespacePatience
			if n%mountTick == 0 {
				if err := s.findMounts(); err != nil {
					return nil, err
				}
			}
		}
		left = slices.DeleteFunc(left, func(h Holder) bool { return !s.holds(h) })
		if len(left) == 0 || time.Since(begin) > limit {
			return left, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(tick):
		}
	}
}
