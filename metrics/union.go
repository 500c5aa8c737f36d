package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Union counts what a union does that this process serves over FUSE. It implements the Observer of package fs/union,
// which says what the methods are told.
type Union struct {
	requests *requests

	read, written bytesByPath

	found, negative, hidden prometheus.Counter
	probed                  *histogram

	copying      prometheus.Gauge
	copyFailures prometheus.Counter
	fillFailures prometheus.Counter
	copyTime     *prometheus.HistogramVec
	copyBytes    *prometheus.CounterVec

	whiteouts, opaques, faults prometheus.Counter

	lowerChanges prometheus.Counter

	leftovers atomic.Int64
	usage     atomic.Pointer[func() (nodes, files, watches int, uncopied int64)]
}

// NewUnion returns a Union. operations are the names of the FUSE operations by number.
func NewUnion(operations []string) *Union {
	lookup := func(outcome string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "unionfsd_lookups_total",
			Help: "Names that the kernel asked for, by outcome: hit: it is there; negative: no layer has it; " +
				"whiteout: it is hidden.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		})
	}
	return &Union{
		requests: newRequests(operations),
		read: newBytesByPath("unionfsd_read_bytes_total",
			"Bytes of files that were read through this process. "+pathHelp),
		written: newBytesByPath("unionfsd_written_bytes_total",
			"Bytes of files that were written through this process. "+pathHelp),
		found:    lookup("hit"),
		negative: lookup("negative"),
		hidden:   lookup("whiteout"),
		probed:   newHistogram(probedDesc, 1, 0, 11), // 1 to 2048
		copying: gauge("unionfsd_copyups_in_progress",
			"Objects that are being copied to the upper layer."),
		copyFailures: counter("unionfsd_copyup_failures_total",
			"Copy-ups that failed; the object stays in the lower layer."),
		fillFailures: counter("unionfsd_copyup_fill_failures_total",
			"Tries to copy the rest of a lazily copied file in the background that failed, and will be repeated."),
		copyTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "unionfsd_copyup_duration_seconds",
			Help:    "Time to make a copy for the upper layer. " + methodHelp,
			Buckets: prometheus.ExponentialBuckets(0x1p-13, 2, 19), // 122 microseconds to 32 seconds

			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  160,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"method"}),
		copyBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionfsd_copyup_bytes_total",
			Help: "Sizes of the files whose data was copied to the upper layer, holes included. " + methodHelp,
		}, []string{"method"}),
		whiteouts: counter("unionfsd_whiteouts_created_total",
			"Whiteouts that were made in the upper layer."),
		opaques: counter("unionfsd_opaques_created_total",
			"Directories of the upper layer that were made opaque."),
		lowerChanges: counter("unionfsd_lower_changes_total",
			"Changes that others made in watched lower layers, and that the kernel was told of."),
		faults: counter("unionfsd_faults_total",
			"Failures that were answered with EIO because no error number was known for them. The log has each."),
	}
}

const methodHelp = "Methods: reflink: blocks are shared; range: copy_file_range(2); buffer: read and write; " +
	"none: no data to copy."

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// Begin notes that a request has come.
func (u *Union) Begin(op uint32) { u.requests.begin(op) }

// End counts a request that was answered.
func (u *Union) End(op, errno uint32, took time.Duration) { u.requests.end(op, errno, took) }

// Read counts data that was read.
func (u *Union) Read(bytes int, direct bool) { u.read.add(bytes, direct) }

// Wrote counts data that was written.
func (u *Union) Wrote(bytes int, direct bool) { u.written.add(bytes, direct) }

// Lookup counts a name that was asked for.
func (u *Union) Lookup(found, hidden bool, layers int) {
	switch {
	case found:
		u.found.Inc()
	case hidden:
		u.hidden.Inc()
	default:
		u.negative.Inc()
	}
	u.probed.observe(int64(layers))
}

// CopyUpBegin notes that a copy-up has begun.
func (u *Union) CopyUpBegin() { u.copying.Inc() }

// CopyUpEnd notes that a copy-up has ended.
func (u *Union) CopyUpEnd(ok bool) {
	u.copying.Dec()
	if !ok {
		u.copyFailures.Inc()
	}
}

// CopiedUp counts a copy that was made.
func (u *Union) CopiedUp(method string, bytes int64, took time.Duration) {
	u.copyTime.WithLabelValues(method).Observe(took.Seconds())
	u.copyBytes.WithLabelValues(method).Add(float64(bytes))
}

// FillFailed counts a failure in the background.
func (u *Union) FillFailed() { u.fillFailures.Inc() }

// Whiteout counts a whiteout.
func (u *Union) Whiteout() { u.whiteouts.Inc() }

// Opaque counts an opaque directory.
func (u *Union) Opaque() { u.opaques.Inc() }

// LowerChanged counts changes that others made.
func (u *Union) LowerChanged(changes int) { u.lowerChanges.Add(float64(changes)) }

// Fault counts a failure that nobody could explain.
func (u *Union) Fault() { u.faults.Inc() }

// Opened notes what was cleaned up, and how to find out what is in use.
func (u *Union) Opened(leftovers int, usage func() (nodes, files, watches int, uncopied int64)) {
	u.leftovers.Store(int64(leftovers))
	u.usage.Store(&usage)
}

var (
	probedDesc = prometheus.NewDesc("unionfsd_lookup_layers",
		"Layers that were asked for a name until it was known whether it is there.", nil, nil)
	leftoversDesc = prometheus.NewDesc("unionfsd_work_leftovers_removed",
		"Objects of an earlier mount that were removed from the work directory. One, which whiteouts share, is normal.", nil, nil)
	nodesDesc = prometheus.NewDesc("unionfsd_nodes",
		"Files and directories that the kernel holds a reference to.", nil, nil)
	filesDesc    = prometheus.NewDesc("unionfsd_open_files", "Open files of the union.", nil, nil)
	uncopiedDesc = prometheus.NewDesc("unionfsd_copyup_outstanding_bytes",
		"Bytes of lazily copied files that are still to be copied to the upper layer in the background.", nil, nil)
	watchDesc = prometheus.NewDesc("unionfsd_watched_directories",
		"Directories of lower layers whose changes the kernel is told of. Each takes one of fs.inotify.max_user_watches.", nil, nil)
)

func (u *Union) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		u.requests, u.read.cached, u.read.direct, u.written.cached, u.written.direct,
		u.found, u.negative, u.hidden,
		u.copying, u.copyFailures, u.fillFailures, u.copyTime, u.copyBytes,
		u.lowerChanges, u.whiteouts, u.opaques, u.faults, rest{u},
	}
}

// rest collects what has no collector of its own, and what is asked of the union and not counted.
type rest struct{ *Union }

// Describe implements prometheus.Collector.
func (rest) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{probedDesc, leftoversDesc, nodesDesc, filesDesc, watchDesc, uncopiedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c rest) Collect(ch chan<- prometheus.Metric) {
	ch <- c.probed
	usage := c.usage.Load()
	if usage == nil {
		return // not opened yet
	}
	nodes, files, watches, uncopied := (*usage)()
	for _, v := range []struct {
		desc  *prometheus.Desc
		value int
	}{
		{leftoversDesc, int(c.leftovers.Load())}, {nodesDesc, nodes}, {filesDesc, files}, {watchDesc, watches},
		{uncopiedDesc, int(uncopied)},
	} {
		ch <- prometheus.MustNewConstMetric(v.desc, prometheus.GaugeValue, float64(v.value))
	}
}

// bytesByPath counts data by the way it took.
type bytesByPath struct{ cached, direct prometheus.Counter }

const pathHelp = "Paths: cached: from or to the page cache; direct: of a file opened with O_DIRECT."

func newBytesByPath(name, help string) bytesByPath {
	byPath := func(path string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"path": path}})
	}
	return bytesByPath{cached: byPath("cached"), direct: byPath("direct")}
}

func (b bytesByPath) add(n int, direct bool) {
	if direct {
		b.direct.Add(float64(n))
	} else {
		b.cached.Add(float64(n))
	}
}
