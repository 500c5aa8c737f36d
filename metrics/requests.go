package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// requests counts the requests of the kernel by operation.
type requests struct {
	operations []operation // by number; 0 is for numbers without a name
}

// operation is what is known of one kind of request.
type operation struct {
	name     string
	inFlight atomic.Int64
	results  [otherErrno + 1]atomic.Uint64 // by errno
	took     prometheus.Histogram
}

// otherErrno stands for all numbers from here. Linux has fewer.
const otherErrno = 160

// requestBuckets are the bounds of the classic histogram in seconds: from a request that the page cache answers to one
// that copies gigabytes.
var requestBuckets = []float64{
	5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
}

var (
	requestsDesc = prometheus.NewDesc("unionfsd_requests_total",
		"Requests of the kernel that were answered, by FUSE operation and by the error they were answered with.",
		[]string{"operation", "errno"}, nil)
	inFlightDesc = prometheus.NewDesc("unionfsd_requests_in_flight",
		"Requests of the kernel that are being worked on, by FUSE operation.",
		[]string{"operation"}, nil)
)

func newRequests(names []string) *requests {
	r := &requests{operations: make([]operation, max(len(names), 1))}
	for i := range r.operations {
		name := "other"
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		op := &r.operations[i]
		op.name = name
		op.took = prometheus.NewHistogram(histogram(prometheus.HistogramOpts{
			Name:        "unionfsd_request_duration_seconds",
			Help:        "Time from when a request of the kernel was read to when its answer was written.",
			Buckets:     requestBuckets,
			ConstLabels: prometheus.Labels{"operation": name},
		}))
	}
	return r
}

// histogram makes a classic histogram a native one too, which Prometheus prefers where it is told to scrape them.
func histogram(opts prometheus.HistogramOpts) prometheus.HistogramOpts {
	opts.NativeHistogramBucketFactor = 1.1
	opts.NativeHistogramMaxBucketNumber = 160
	opts.NativeHistogramMinResetDuration = time.Hour
	return opts
}

func (r *requests) operation(op uint32) *operation {
	if op >= uint32(len(r.operations)) || r.operations[op].name == "other" {
		return &r.operations[0]
	}
	return &r.operations[op]
}

func (r *requests) begin(op uint32) { r.operation(op).inFlight.Add(1) }

func (r *requests) end(op, errno uint32, took time.Duration) {
	o := r.operation(op)
	o.inFlight.Add(-1)
	o.results[min(errno, otherErrno)].Add(1)
	o.took.Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (r *requests) Describe(ch chan<- *prometheus.Desc) {
	ch <- requestsDesc
	ch <- inFlightDesc
	for i := range r.operations {
		if i == 0 || r.operations[i].name != "other" {
			r.operations[i].took.Describe(ch)
		}
	}
}

// Collect implements prometheus.Collector. It is silent about operations that nobody has asked for.
func (r *requests) Collect(ch chan<- prometheus.Metric) {
	for i := range r.operations {
		op := &r.operations[i]
		inFlight, seen := op.inFlight.Load(), false
		for errno := range op.results {
			if n := op.results[errno].Load(); n > 0 {
				seen = true
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), op.name, errnoName(errno))
			}
		}
		if seen || inFlight > 0 {
			ch <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(inFlight), op.name)
			op.took.Collect(ch)
		}
	}
}

// errnoName is the name as in errno(3), OK for success.
func errnoName(errno int) string {
	if errno == 0 {
		return "OK"
	}
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return "other"
}
