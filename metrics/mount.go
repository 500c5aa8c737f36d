package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Mount is a union, whoever serves it. Its metrics are what can be known of a union that the kernel serves.
type Mount struct {
	Backend   string
	Transport string    // what carries the requests to the process that serves it; empty if none does
	Layers    int       // the upper one included
	Since     time.Time // when it was mounted; the zero time where that is not known

	// Upper is a descriptor on the upper layer, which O_PATH is enough for, or -1 if there is none. It is not a
	// path because a union may cover its own layers: asking for one would be a request to the asker.
	Upper int
}

var (
	infoDesc = prometheus.NewDesc("unionfsd_mount_info",
		"Always 1, for each union: by what it is served, and what carries the requests to it.", []string{"backend", "transport"}, nil)
	layersDesc = prometheus.NewDesc("unionfsd_layers",
		"Layers of the union, the upper one included.", nil, nil)
	sinceDesc = prometheus.NewDesc("unionfsd_mount_time_seconds",
		"When the union was mounted, in seconds since the epoch.", nil, nil)
	sizeDesc = prometheus.NewDesc("unionfsd_upper_size_bytes",
		"Size of the file system that the upper layer is on.", nil, nil)
	availableDesc = prometheus.NewDesc("unionfsd_upper_available_bytes",
		"Space for unprivileged users on the file system that the upper layer is on.", nil, nil)
	inodesDesc = prometheus.NewDesc("unionfsd_upper_inodes",
		"Inodes of the file system that the upper layer is on; 0 where they are not limited.", nil, nil)
	freeInodesDesc = prometheus.NewDesc("unionfsd_upper_free_inodes",
		"Free inodes of the file system that the upper layer is on; 0 where they are not limited.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m Mount) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{infoDesc, layersDesc, sinceDesc, sizeDesc, availableDesc, inodesDesc, freeInodesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m Mount) Collect(ch chan<- prometheus.Metric) {
	emit := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	emit(infoDesc, 1, m.Backend, m.Transport)
	if m.Layers > 0 {
		emit(layersDesc, float64(m.Layers))
	}
	if !m.Since.IsZero() {
		emit(sinceDesc, float64(m.Since.UnixMilli())/1e3)
	}
	if m.Upper < 0 {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(m.Upper, &fs); err != nil {
		ch <- prometheus.NewInvalidMetric(sizeDesc, err)
		return
	}
	block := float64(fs.Frsize)
	emit(sizeDesc, float64(fs.Blocks)*block)
	emit(availableDesc, float64(fs.Bavail)*block)
	emit(inodesDesc, float64(fs.Files))
	emit(freeInodesDesc, float64(fs.Ffree))
}
