package metrics

import (
	"math"
	"testing"
	"time"
)

func TestRates(t *testing.T) {
	u := NewUnion(operations)
	r := NewRegistry()
	r.AddUnion("/m", u)
	at := time.Unix(1000, 0)
	do := func(op, errno uint32, took time.Duration, times int) {
		for range times {
			u.Begin(op)
			u.End(op, errno, took)
		}
	}
	do(1, 0, time.Second, 7) // before: must not be seen
	u.Lookup(false, true, 9)
	u.CopiedUp("range", 1<<20, time.Second)
	before := CountsOf(gather(t, r), at)

	do(1, 0, 20*time.Microsecond, 88)
	do(1, 2, 20*time.Microsecond, 10) // ENOENT
	do(1, 5, 3*time.Millisecond, 2)
	do(15, 0, 80*time.Second, 10)
	u.Begin(15)
	u.Read(1000, false)
	u.Read(1000, true)
	u.Wrote(500, false)
	for i := range 4 {
		u.Lookup(i > 0, false, 2)
	}
	u.CopyUpBegin()
	u.CopiedUp("range", 4096, time.Second)
	u.CopiedUp("none", 0, time.Second)
	u.Opened(0, func() (int, int, int, int64) { return 5, 6, 8, 0 })

	now := CountsOf(gather(t, r), at.Add(2*time.Second))
	if now.CopyingUp != 1 || now.Nodes != 5 || now.Files != 6 {
		t.Errorf("counts: %+v", now)
	}
	got := now.Since(before)
	for _, v := range []struct {
		what      string
		got, want float64
	}{
		{"requests", got.Total.Requests, 55}, {"failed", got.Total.Failed, 1}, {"in flight", got.Total.InFlight, 1},
		{"read", got.Read, 1000}, {"written", got.Written, 250},
		{"lookups", got.Lookups, 2}, {"hits", got.HitShare, 0.75}, {"negative", got.NegativeShare, 0.25},
		{"hidden", got.HideShare, 0}, {"layers", got.LayersPerLookup, 2},
		{"copy-ups", got.CopyUps, 1}, {"copy-up bytes", got.CopyUpBytes, 2048},
		{"operations", float64(len(got.Operations)), 2},
	} {
		if math.Abs(v.got-v.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", v.what, v.got, v.want)
		}
	}
	lookup, read := got.Operations[0], got.Operations[1]
	if lookup.Name != "lookup" || read.Name != "read" {
		t.Fatalf("order: %s, %s", lookup.Name, read.Name)
	}
	if lookup.Median < 15*time.Microsecond || lookup.Median > 31*time.Microsecond {
		t.Errorf("median %v is not in the bucket of 20µs", lookup.Median)
	}
	if lookup.P99 < 1953*time.Microsecond || lookup.P99 > 3907*time.Microsecond {
		t.Errorf("P99 %v is not in the bucket of 3ms", lookup.P99)
	}
	if read.Median != 64*time.Second { // the last bound: all that is known
		t.Errorf("median %v, want 64s", read.Median)
	}
	if idle := now.Since(now); idle.Total.Requests != 0 || idle.Total.P99 != 0 || idle.LayersPerLookup != 0 {
		t.Errorf("of no time: %+v", idle)
	}
}
