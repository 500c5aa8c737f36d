package metrics

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Registry is what one process exports.
type Registry struct {
	all *prometheus.Registry
}

// NewRegistry returns a Registry with nothing in it.
func NewRegistry() *Registry { return &Registry{prometheus.NewRegistry()} }

// AddMount adds the union at mountpoint. To add another one for the same mount point is a mistake of the program, and
// panics.
func (r *Registry) AddMount(mountpoint string, m Mount) { r.at(mountpoint).MustRegister(m) }

// AddUnion adds what is counted of the union at mountpoint.
func (r *Registry) AddUnion(mountpoint string, u *Union) {
	r.at(mountpoint).MustRegister(u.collectors()...)
}

// AddProcess adds this process, which serves the union at mountpoint: the build and its version, the Go runtime, and
// what the system knows of a process.
func (r *Registry) AddProcess(mountpoint, version string) {
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "unionfsd_build_info",
		Help:        "Always 1: what serves the union.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	r.at(mountpoint).MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// AddContainers adds the containers of a state root.
func (r *Registry) AddContainers(c Containers) { r.all.MustRegister(c) }

// AddUp adds whether what serves the union at mountpoint could be asked.
func (r *Registry) AddUp(mountpoint string, up bool) {
	g := gauge("unionfsd_up", "Whether the union could be asked for its metrics.")
	if up {
		g.Set(1)
	}
	r.at(mountpoint).MustRegister(g)
}

func (r *Registry) at(mountpoint string) prometheus.Registerer {
	label := strings.ToValidUTF8(mountpoint, "\uFFFD")
	return prometheus.WrapRegistererWith(prometheus.Labels{"mountpoint": label}, r.all)
}

// Gather returns what the registry has to tell now. An error is about some of it; the rest is returned.
func (r *Registry) Gather() (Families, error) { return r.all.Gather() }
