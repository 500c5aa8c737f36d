package bench

import (
	"math"
	"slices"
)

// Stat is what is left of some samples: their median, and between which values the middle half of them lies.
type Stat struct {
	Median float64 `json:"median"`
	P25    float64 `json:"p25"`
	P75    float64 `json:"p75"`
}

// statOf returns the zero Stat for no samples.
func statOf(samples []float64) Stat {
	if len(samples) == 0 {
		return Stat{}
	}
	s := slices.Sorted(slices.Values(samples))
	return Stat{quantile(s, 0.5), quantile(s, 0.25), quantile(s, 0.75)}
}

// quantile interpolates between the two samples next to the place; sorted is not empty.
func quantile(sorted []float64, q float64) float64 {
	place := q * float64(len(sorted)-1)
	below := math.Floor(place)
	i := int(below)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (sorted[i+1]-sorted[i])*(place-below)
}

// Spread is half the width of the middle half, as a part of the median.
func (s Stat) Spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.P75 - s.P25) / 2 / s.Median
}

// disjoint reports whether the middle halves of the two have nothing in common.
func (s Stat) disjoint(other Stat) bool { return s.P75 < other.P25 || other.P75 < s.P25 }
