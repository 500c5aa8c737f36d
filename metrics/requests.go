package metrics

import (
	"strconv"
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
	failed   [otherErrno + 1]atomic.Uint64 // by errno; 0, success, is what is left of all
	took     *histogram
}

// otherErrno stands for all numbers from here. Linux has fewer.
const otherErrno = 160

var (
	requestsDesc = prometheus.NewDesc("unionfsd_requests_total",
		"Requests of the kernel that were answered, by FUSE operation and by the error they were answered with.",
		[]string{"operation", "errno"}, nil)
	inFlightDesc = prometheus.NewDesc("unionfsd_requests_in_flight",
		"Requests of the kernel that are being worked on, by FUSE operation.",
		[]string{"operation"}, nil)
	durationDesc = prometheus.NewDesc("unionfsd_request_duration_seconds",
		"Time from when a request of the kernel was read to when its answer was written.",
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
		op.took = newHistogram(durationDesc, 1e-9, -20, 6, name) // 1 microsecond to 1 minute
	}
	return r
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
	if errno != 0 {
		o.failed[min(errno, otherErrno)].Add(1)
	}
	o.took.observe(int64(took))
}

// Describe implements prometheus.Collector.
func (r *requests) Describe(ch chan<- *prometheus.Desc) {
	ch <- requestsDesc
	ch <- inFlightDesc
	ch <- durationDesc
}

// Collect implements prometheus.Collector. It is silent about operations that nobody has asked for.
func (r *requests) Collect(ch chan<- prometheus.Metric) {
	for i := range r.operations {
		op := &r.operations[i]
		inFlight, answered := op.inFlight.Load(), op.took.count()
		if inFlight == 0 && answered == 0 {
			continue
		}
		ch <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(inFlight), op.name)
		ch <- op.took
		for errno := range op.failed {
			if n := op.failed[errno].Load(); n > 0 {
				answered -= min(n, answered) // one may have ended between the two looks
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), op.name, errnoName(errno))
			}
		}
		ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(answered), op.name, errnoName(0))
	}
}

// errnoName is the name as in errno(3), OK for success.
func errnoName(errno int) string {
	if errno == 0 {
		return "OK"
	}
	if errno == otherErrno {
		return "other"
	}
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return strconv.Itoa(errno)
}
