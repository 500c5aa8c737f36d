package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// histogram counts how often values of about one size were observed. It is exported as a native histogram, and as a
// classic one for those who scrape no native ones.
//
// It is not that of client_golang because that one looks up its buckets in a map and copies them aside to be read:
// more than everything else that is counted of a request. Here an observation is two additions, and what is read may
// miss those that are under way.
type histogram struct {
	desc   *prometheus.Desc
	labels []string
	unit   float64 // what one is, in the unit of the metric
	first  int     // index of buckets[0] among those of a native histogram
	since  time.Time

	sum     atomic.Int64
	buckets []atomic.Uint64
}

// schema is the resolution of the native histograms: perPower buckets for each power of two, each 9 % wider than the
// one before.
const (
	schema   = 3
	perPower = 1 << schema
)

// mantissas are the upper bounds of the buckets between 0.5 and 1.
var mantissas = func() (bounds [perPower]float64) {
	for i := range bounds {
		bounds[i] = math.Exp2(float64(i)/perPower - 1)
	}
	return bounds
}()

// newHistogram counts values from 2^low to 2^high of the metric's unit. What is smaller is counted with the smallest;
// what is larger, in one bucket above.
func newHistogram(desc *prometheus.Desc, unit float64, low, high int, labels ...string) *histogram {
	return &histogram{
		desc: desc, labels: labels, unit: unit, since: time.Now(),
		first:   low * perPower,
		buckets: make([]atomic.Uint64, (high-low)*perPower+2),
	}
}

// observe counts n times the unit.
func (h *histogram) observe(n int64) {
	h.sum.Add(n)
	h.buckets[min(max(bucketOf(float64(n)*h.unit)-h.first, 0), len(h.buckets)-1)].Add(1)
}

// bucketOf is the index of the bucket of a native histogram that v belongs to: that with the bound 2^(index/perPower).
func bucketOf(v float64) int {
	if v <= 0 {
		return math.MinInt32
	}
	mantissa, power := math.Frexp(v)
	i := 0
	for i < perPower && mantissas[i] < mantissa {
		i++
	}
	return (power-1)*perPower + i
}

// count is how many values were observed.
func (h *histogram) count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// Desc implements prometheus.Metric.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h *histogram) Write(out *dto.Metric) error {
	native := map[int]int64{}
	var classic []*dto.Bucket
	var total uint64
	for i := range h.buckets {
		n := h.buckets[i].Load()
		total += n
		if n > 0 {
			native[h.first+i] = int64(n)
		}
		if i%perPower == 0 { // the bound is a power of two
			bound, below := math.Exp2(float64(h.first+i)/perPower), total
			classic = append(classic, &dto.Bucket{UpperBound: &bound, CumulativeCount: &below})
		}
	}
	sum := float64(h.sum.Load()) * h.unit
	m, err := prometheus.NewConstNativeHistogram(h.desc, total, sum, native, nil, 0, schema, 0, h.since, h.labels...)
	if err != nil {
		return err
	}
	if err := m.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = classic
	return nil
}
