package metrics

import (
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Counts are the metrics of one union at one moment, for programs that show them.
type Counts struct {
	At time.Time

	Requests map[string]Requests // by operation

	Hits, Negatives, Whiteouts, Layers float64 // lookups by outcome, and layers that they asked
	Read, Written                      float64 // bytes
	CopyUps, CopyUpBytes, CopyingUp    float64
	Nodes, Files                       float64
	UpperSize, UpperAvailable          float64 // bytes of the file system of the upper layer; 0 if there is none
}

// Requests are those of one operation. That there is no such file or attribute is an answer; other errors are failures.
type Requests struct {
	Answered, Failed, InFlight float64
	took                       []bucket
}

// bucket of a histogram: how many values are not above the bound.
type bucket struct{ bound, count float64 }

// CountsOf reads the metrics of one union.
func CountsOf(f Families, at time.Time) Counts {
	sum := func(name string, labels ...string) float64 { return f.sum(name, labels...) }
	c := Counts{
		At:          at,
		Requests:    map[string]Requests{},
		Hits:        sum("unionfsd_lookups_total", "outcome", "hit"),
		Negatives:   sum("unionfsd_lookups_total", "outcome", "negative"),
		Whiteouts:   sum("unionfsd_lookups_total", "outcome", "whiteout"),
		Layers:      sum("unionfsd_lookup_layers"),
		Read:        sum("unionfsd_read_bytes_total"),
		Written:     sum("unionfsd_written_bytes_total"),
		CopyUpBytes: sum("unionfsd_copyup_bytes_total"),
		CopyingUp:   sum("unionfsd_copyups_in_progress"),
		Nodes:       sum("unionfsd_nodes"),
		Files:       sum("unionfsd_open_files"),

		UpperSize:      sum("unionfsd_upper_size_bytes"),
		UpperAvailable: sum("unionfsd_upper_available_bytes"),
	}
	for _, m := range f.find("unionfsd_copyup_duration_seconds") {
		c.CopyUps += float64(m.GetHistogram().GetSampleCount())
	}
	for _, m := range f.find("unionfsd_requests_total") {
		r := c.Requests[label(m, "operation")]
		r.Answered += value(m)
		switch label(m, "errno") {
		case "OK", "ENOENT", "ENODATA":
		default:
			r.Failed += value(m)
		}
		c.Requests[label(m, "operation")] = r
	}
	for _, m := range f.find("unionfsd_requests_in_flight") {
		r := c.Requests[label(m, "operation")]
		r.InFlight = value(m)
		c.Requests[label(m, "operation")] = r
	}
	for _, m := range f.find("unionfsd_request_duration_seconds") {
		r := c.Requests[label(m, "operation")]
		for _, b := range m.GetHistogram().GetBucket() {
			r.took = append(r.took, bucket{b.GetUpperBound(), float64(b.GetCumulativeCount())})
		}
		if n := len(r.took); n > 0 && !math.IsInf(r.took[n-1].bound, 1) {
			r.took = append(r.took, bucket{math.Inf(1), float64(m.GetHistogram().GetSampleCount())})
		}
		c.Requests[label(m, "operation")] = r
	}
	return c
}

// Rates is what a union did between two moments, per second.
type Rates struct {
	Total      OperationRate
	Operations []OperationRate // what was asked for, the busiest first

	Lookups                            float64
	HitShare, NegativeShare, HideShare float64 // of the lookups; 0 to 1
	LayersPerLookup                    float64
	Read, Written                      float64 // bytes
	CopyUps, CopyUpBytes               float64
}

// OperationRate is the part of one operation.
type OperationRate struct {
	Name             string
	Requests, Failed float64
	InFlight         float64
	Median, P99      time.Duration // of the time to answer, interpolated in a histogram; 0 if there were none
}

// Since returns what was done between before and c, two moments of the same union.
func (c Counts) Since(before Counts) Rates {
	seconds := max(c.At.Sub(before.At).Seconds(), 1e-9)
	var r Rates
	var took []bucket
	for name, now := range c.Requests {
		op, since := operationRate(now, before.Requests[name], seconds)
		op.Name = name
		r.Total.Requests += op.Requests
		r.Total.Failed += op.Failed
		r.Total.InFlight += op.InFlight
		took = addBuckets(took, since)
		if op.Requests > 0 || op.InFlight > 0 {
			r.Operations = append(r.Operations, op)
		}
	}
	r.Total.Median, r.Total.P99 = quantile(0.5, took), quantile(0.99, took)
	slices.SortFunc(r.Operations, func(a, b OperationRate) int {
		if a.Requests != b.Requests {
			return int(math.Copysign(1, b.Requests-a.Requests))
		}
		return strings.Compare(a.Name, b.Name)
	})
	hits, negatives, hidden := c.Hits-before.Hits, c.Negatives-before.Negatives, c.Whiteouts-before.Whiteouts
	if lookups := hits + negatives + hidden; lookups > 0 {
		r.Lookups = lookups / seconds
		r.HitShare, r.NegativeShare, r.HideShare = hits/lookups, negatives/lookups, hidden/lookups
		r.LayersPerLookup = (c.Layers - before.Layers) / lookups
	}
	r.Read, r.Written = (c.Read-before.Read)/seconds, (c.Written-before.Written)/seconds
	r.CopyUps, r.CopyUpBytes = (c.CopyUps-before.CopyUps)/seconds, (c.CopyUpBytes-before.CopyUpBytes)/seconds
	return r
}

func operationRate(now, before Requests, seconds float64) (OperationRate, []bucket) {
	took := slices.Clone(now.took)
	for i := range min(len(took), len(before.took)) {
		took[i].count -= before.took[i].count
	}
	return OperationRate{
		Requests: (now.Answered - before.Answered) / seconds,
		Failed:   (now.Failed - before.Failed) / seconds,
		InFlight: now.InFlight,
		Median:   quantile(0.5, took),
		P99:      quantile(0.99, took),
	}, took
}

func addBuckets(a, b []bucket) []bucket {
	if a == nil {
		return slices.Clone(b)
	}
	for i := range min(len(a), len(b)) {
		a[i].count += b[i].count
	}
	return a
}

// quantile interpolates as histogram_quantile of Prometheus does.
func quantile(q float64, buckets []bucket) time.Duration {
	n := len(buckets)
	if n < 2 || buckets[n-1].count <= 0 {
		return 0
	}
	rank := q * buckets[n-1].count
	i := slices.IndexFunc(buckets, func(b bucket) bool { return b.count >= rank })
	if i == n-1 { // above the last bound that is a number
		return seconds(buckets[n-2].bound)
	}
	var below bucket
	if i > 0 {
		below = buckets[i-1]
	}
	in := buckets[i].count - below.count
	return seconds(below.bound + (buckets[i].bound-below.bound)*(rank-below.count)/max(in, 1))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// find returns the metrics of a family that have the labels, which are given as names and values in turn.
func (f Families) find(name string, labels ...string) []*dto.Metric {
	for _, family := range f {
		if family.GetName() != name {
			continue
		}
		return slices.DeleteFunc(slices.Clone(family.GetMetric()), func(m *dto.Metric) bool {
			for i := 0; i < len(labels); i += 2 {
				if label(m, labels[i]) != labels[i+1] {
					return true
				}
			}
			return false
		})
	}
	return nil
}

func (f Families) sum(name string, labels ...string) (sum float64) {
	for _, m := range f.find(name, labels...) {
		sum += value(m)
	}
	return sum
}

// value of a metric; of a histogram, the sum of what was observed.
func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	default:
		return m.Histogram.GetSampleSum()
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
