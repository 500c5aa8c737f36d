package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/metrics"
)

// measuring says how a union is to be measured.
type measuring struct {
	Off       bool            // count nothing
	Listen    metrics.Address // where to tell, besides the control socket; the zero Address: nowhere
	Profiling bool            // tell of the process too, there
}

// monitor tells of a union while this process serves it.
type monitor struct {
	job      job
	listener net.Listener   // on job.Measuring.Listen; nil if that is nowhere
	counted  *metrics.Union // nil if nothing is counted
	upper    int            // see metrics.Mount
	servers  []*http.Server

	current atomic.Value     // http.HandlerFunc: answers for the backend that serves now
	asked   chan askedSwitch // what came in on the control socket
}

// askedSwitch is a request to switch the backend, with where the answer goes.
type askedSwitch struct {
	switchRequest
	reply chan<- switchReply
}

// newMonitor does what can fail before anything is mounted. Close the monitor after use.
func newMonitor(j job) (*monitor, error) {
	m := &monitor{job: j, upper: -1, asked: make(chan askedSwitch)}
	if where := j.Measuring.Listen; where != (metrics.Address{}) {
		var err error
		if m.listener, err = where.Listen(); err != nil {
			return nil, err
		}
	}
	m.upper = openUpper(j.Spec.Upper)
	return m, nil
}

// openUpper opens an upper layer for metrics.Mount, on a clone of its mount if there can be one, so that its own is not
// busy. One that cannot be opened is none: to say why is for who mounts it.
func openUpper(path string) int {
	if path == "" {
		return -1
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	if clone, err := sys.CloneMount(fd, true); err == nil {
		unix.Close(fd)
		return clone
	}
	return fd
}

// observed makes the backend tell the monitor what the union does, if it is one that can.
func (m *monitor) observed(b mount.Backend) mount.Backend {
	u, ok := b.(union.Backend)
	if !ok || m.job.Measuring.Off {
		return b
	}
	m.counted = metrics.NewUnion(union.Operations)
	u.Observer = m.counted
	return u
}

// address is where the monitor listens besides the control socket, with the port that it was given; empty if nowhere.
func (m *monitor) address() string {
	switch {
	case m.listener == nil:
		return ""
	case m.listener.Addr().Network() == "unix":
		return "unix:" + m.listener.Addr().String()
	default:
		return m.listener.Addr().String()
	}
}

// start begins to answer, once the union is mounted, and again when its backend was switched. Without a record there is
// no control socket.
func (m *monitor) start(record state.Mount, served bool) error {
	target := string(record.Mountpoint)
	r := metrics.NewRegistry()
	r.AddProcess(target, version())
	r.AddMount(target, metrics.Mount{
		Backend: record.Backend, Transport: record.Transport,
		Layers: layerCount(m.job.Spec), Since: record.Since, Upper: m.upper,
	})
	if served && m.counted != nil {
		r.AddUnion(target, m.counted)
	}
	h := r.Handler(func() error { return mounted(record) }, m.job.Measuring.Profiling)
	first := m.current.Swap(http.HandlerFunc(h.ServeHTTP)) == nil
	if m.listener != nil && first {
		m.servers = append(m.servers, metrics.Serve(m.listener, http.HandlerFunc(m.answer)))
	}
	l, err := record.ListenControl()
	if errors.Is(err, state.ErrNoControl) {
		return nil
	}
	if err != nil {
		return err
	}
	control := http.NewServeMux()
	control.HandleFunc("/", m.answer)
	control.HandleFunc("POST /switch", m.takeSwitch)
	m.servers = append(m.servers, metrics.Serve(l, control))
	return nil
}

func (m *monitor) answer(w http.ResponseWriter, r *http.Request) {
	m.current.Load().(http.HandlerFunc)(w, r)
}

// takeSwitch hands a request to switch over to who has the union, and answers with what came of it.
func (m *monitor) takeSwitch(w http.ResponseWriter, r *http.Request) {
	reply := make(chan switchReply, 1)
	ask := askedSwitch{reply: reply}
	if err := json.NewDecoder(r.Body).Decode(&ask.switchRequest); err != nil || backends[ask.To] == nil {
		http.Error(w, "not a request to switch", http.StatusBadRequest)
		return
	}
	select {
	case m.asked <- ask:
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(<-reply)
}

// mounted returns an error if the union is not in the file tree any more.
func mounted(record state.Mount) error {
	entries, err := mountinfo.Read()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Dev == record.Dev && e.MountPoint == string(record.Mountpoint) {
			return nil
		}
	}
	return errors.New("not mounted any more, but still in use")
}

func (m *monitor) close() {
	// Who asked for a switch gets the answer also if there is nothing left to do for this process.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, s := range m.servers {
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	}
	if m.listener != nil {
		m.listener.Close()
	}
	if m.upper >= 0 {
		unix.Close(m.upper)
	}
}

// canListen returns an error if the union is to be left to the kernel, so that no process stays that could listen.
func (j job) canListen() error {
	if j.Backend == "kernel" && !j.Stay && j.Measuring.Listen != (metrics.Address{}) {
		return usagef("--metrics-listen, but the kernel serves this union and no process stays; pass -f, or use unionfsd metrics")
	}
	return nil
}
