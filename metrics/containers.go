package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Containers is what is known of the containers of one state root.
type Containers struct {
	States map[string]int // how many there are by state: running, exited, died
	Exits  map[int]uint64 // how many have ended so far, by exit code

	// How long it took to start them: StartsWithin[i] were started within Bounds[i] seconds.
	Starts       uint64
	StartSeconds float64
	StartsWithin []uint64
	Bounds       []float64
}

var (
	containersDesc = prometheus.NewDesc("unionfsd_containers",
		"Containers that are there, by state. Those that died were killed with their supervisor.", []string{"state"}, nil)
	exitsDesc = prometheus.NewDesc("unionfsd_container_exits_total",
		"Containers that ended, by exit code.", []string{"code"}, nil)
	startDesc = prometheus.NewDesc("unionfsd_container_start_duration_seconds",
		"Time from the run command to when the program in the container runs. The count is that of containers started.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c Containers) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{containersDesc, exitsDesc, startDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c Containers) Collect(ch chan<- prometheus.Metric) {
	for state, n := range c.States {
		ch <- prometheus.MustNewConstMetric(containersDesc, prometheus.GaugeValue, float64(n), state)
	}
	for code, n := range c.Exits {
		ch <- prometheus.MustNewConstMetric(exitsDesc, prometheus.CounterValue, float64(n), strconv.Itoa(code))
	}
	within := map[float64]uint64{}
	for i, bound := range c.Bounds {
		within[bound] = c.StartsWithin[i]
	}
	ch <- prometheus.MustNewConstHistogram(startDesc, c.Starts, c.StartSeconds, within)
}
