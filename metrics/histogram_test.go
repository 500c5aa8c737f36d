package metrics

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The buckets are those that client_golang would have chosen, whatever the value.
func TestHistogramBuckets(t *testing.T) {
	values := []int64{1000, 1001, 12_345, 999_999, 1_000_000_000, 1 << 30, 33_000_000_000}
	for v := int64(2_000); v < 30e9; v = v*17/16 + 1 {
		values = append(values, v)
	}
	ours := newHistogram(durationDesc, 1e-9, -20, 6, "x")
	theirs := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "x", Buckets: prometheus.ExponentialBuckets(0x1p-20, 2, 27),
		NativeHistogramBucketFactor: 1.1, NativeHistogramZeroThreshold: prometheus.NativeHistogramZeroThresholdZero,
	})
	for _, v := range values {
		ours.observe(v)
		theirs.Observe(time.Duration(v).Seconds())
	}
	var a, b dto.Metric
	if err := ours.Write(&a); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, want := a.Histogram, b.Histogram
	if got.GetSampleCount() != want.GetSampleCount() || math.Abs(got.GetSampleSum()-want.GetSampleSum()) > 1e-6 || got.GetSchema() != want.GetSchema() {
		t.Errorf("count %d, sum %v, schema %d; want %d, %v, %d", got.GetSampleCount(), got.GetSampleSum(), got.GetSchema(),
			want.GetSampleCount(), want.GetSampleSum(), want.GetSchema())
	}
	if len(got.Bucket) != len(want.Bucket) {
		t.Fatalf("%d buckets, want %d", len(got.Bucket), len(want.Bucket))
	}
	for i, w := range want.Bucket {
		if g := got.Bucket[i]; g.GetUpperBound() != w.GetUpperBound() || g.GetCumulativeCount() != w.GetCumulativeCount() {
			t.Errorf("bucket %d: %v; want %v", i, g, w)
		}
	}
	gotNative, wantNative := nativeBuckets(got), nativeBuckets(want)
	if len(gotNative) != len(wantNative) {
		t.Errorf("%d native buckets, want %d", len(gotNative), len(wantNative))
	}
	for i, n := range wantNative {
		if gotNative[i] != n {
			t.Errorf("native bucket %d: %d, want %d", i, gotNative[i], n)
		}
	}
}

// nativeBuckets undoes the encoding of a native histogram: how many values are in each bucket that has any.
func nativeBuckets(h *dto.Histogram) map[int32]int64 {
	buckets := map[int32]int64{}
	var index int32
	var n int64
	deltas := h.GetPositiveDelta()
	for i, span := range h.GetPositiveSpan() {
		index += span.GetOffset()
		if i > 0 {
			index++
		}
		for j := range span.GetLength() {
			if j > 0 {
				index++
			}
			n += deltas[0]
			deltas = deltas[1:]
			if n > 0 {
				buckets[index] = n
			}
		}
	}
	return buckets
}

// What is too small or too large is counted all the same.
func TestHistogramEnds(t *testing.T) {
	h := newHistogram(probedDesc, 1, 0, 3)
	for _, v := range []int64{0, -5, 1, 8, 9, math.MaxInt64 / 2} {
		h.observe(v)
	}
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		t.Fatal(err)
	}
	first, last := m.Histogram.Bucket[0].GetCumulativeCount(), m.Histogram.Bucket[3].GetCumulativeCount()
	if n := m.Histogram.GetSampleCount(); n != 6 {
		t.Errorf("%d samples, want 6", n)
	}
	if h.count() != 6 || first != 3 || last != 4 {
		t.Errorf("%d values, %d in the first bucket, %d up to the last; want 6, 3, 4", h.count(), first, last)
	}
}
