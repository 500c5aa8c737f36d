package bench

import (
	"math"
	"testing"
)

func TestStatOf(t *testing.T) {
	for _, test := range []struct {
		samples []float64
		want    Stat
		spread  float64
	}{
		{nil, Stat{}, 0},
		{[]float64{7}, Stat{7, 7, 7}, 0},
		{[]float64{3, 1}, Stat{2, 1.5, 2.5}, 0.25},
		{[]float64{5, 1, 3, 2, 4}, Stat{3, 2, 4}, 1.0 / 3},
		{[]float64{1, 1, 1, 1, 100}, Stat{1, 1, 1}, 0}, // an outlier is none of the middle half
	} {
		got := statOf(test.samples)
		if got != test.want {
			t.Errorf("statOf(%v) = %v, want %v", test.samples, got, test.want)
		}
		if s := got.Spread(); math.Abs(s-test.spread) > 1e-9 {
			t.Errorf("Spread of %v = %v, want %v", test.samples, s, test.spread)
		}
	}
}

func TestStatOfLeavesSamples(t *testing.T) {
	samples := []float64{3, 1, 2}
	statOf(samples)
	if samples[0] != 3 || samples[1] != 1 {
		t.Errorf("statOf has sorted its argument: %v", samples)
	}
}

func TestPairs(t *testing.T) {
	// Round 1 is missing on one side, round 2 on the other: ratios are of the rounds that both have.
	c := &Cell{Samples: []float64{2, 6, 9}, rounds: []int{0, 1, 3}}
	reference := &Cell{Samples: []float64{1, 5, 3}, rounds: []int{0, 2, 3}}
	got := pairs(c, reference)
	if len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("pairs = %v, want [2 3]", got)
	}
	if got := pairs(c, nil); got != nil {
		t.Errorf("pairs without a reference = %v", got)
	}
}

func TestQuantity(t *testing.T) {
	for _, test := range []struct {
		v    float64
		unit string
		want string
	}{
		{12.345, "s", "12.3 s"}, {1, "s", "1.00 s"}, {0.0456, "s", "45.6 ms"}, {123e-6, "s", "123 µs"}, {0, "s", "0 µs"},
		{3 << 30, "B", "3.00 GiB"}, {1536, "B", "1.50 KiB"}, {-5 << 20, "B", "-5.00 MiB"}, {100, "B", "0.098 KiB"},
	} {
		if got := Quantity(test.v, test.unit); got != test.want {
			t.Errorf("Quantity(%v, %q) = %q, want %q", test.v, test.unit, got, test.want)
		}
	}
}
