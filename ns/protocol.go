package ns

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The socket between supervisor and init carries these messages (internal/wire):
//
//	supervisor → init   order    once, first
//	init → supervisor   report   of process 0, the program: Failed, and init ends; or Started
//	supervisor → init   request  to start further processes, and about those that run
//	init → supervisor   report   Started or Failed, Exited, Done: what became of it
//
// When process 0 has Exited, init ends. Whoever reads end of file before that knows that the other one is gone.

// maxMessage bounds what is read from the other end. An order may hold 2 MiB of arguments (ARG_MAX), in base64. What
// init says is short; and root of the container may be able to speak in its name.
const (
	maxOrder  = 16 << 20
	maxReport = 64 << 10
)

// order is all that init is told at first.
type order struct {
	Ops     []op
	Binds   int // descriptors from bindFD on
	Confine confinement
	Program process
}

// confinement is what every process of the container is held to.
type confinement struct {
	Caps       capSet
	NoNewPrivs bool
	Filter     []unix.SockFilter `json:",omitempty"`
}

// confine turns what the user says into what init does.
func (s Security) confine() (confinement, error) {
	caps, err := s.capabilities()
	if err != nil {
		return confinement{}, err
	}
	c := confinement{Caps: caps, NoNewPrivs: !s.NewPrivileges && !s.Privileged}
	if !s.AnySyscall && !s.Privileged {
		c.Filter = syscallFilter(caps)
	}
	return c, nil
}

// process is a [Process] on its way.
type process struct {
	Argv, Env []raw
	Dir, User raw
	Terminal  bool `json:",omitempty"`
	Session   bool `json:",omitempty"` // of its own
}

func (p Process) wire() process {
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	return process{Argv: toRaw(p.Argv), Env: toRaw(p.Env), Dir: raw(dir), User: raw(p.User), Terminal: p.Terminal}
}

// request is about the process ID, a number that the supervisor gives. Exactly one other field is set.
type request struct {
	ID     int
	Start  *process       `json:",omitempty"` // its three descriptors come along, but with Terminal
	Signal syscall.Signal `json:",omitempty"`
	Freeze bool           `json:",omitempty"` // all of the container; see freeze
	Thaw   bool           `json:",omitempty"`
}

// report is what init tells of process ID; exactly one other field is set.
type report struct {
	ID      int
	Failed  *failure `json:",omitempty"`
	Started bool     `json:",omitempty"` // the other end of its terminal comes along, if it has one
	Exited  *int     `json:",omitempty"` // its exit code; 128+N if signal N ended it
	Done    bool     `json:",omitempty"` // frozen, thawed
}

// failure is a step that failed. Errno is 0 if the cause is not an error of the kernel; Text is the whole cause.
type failure struct {
	Op    op
	Path  raw
	Errno syscall.Errno
	Text  string
}

// stepError is the failure of a step, on its way to who reports it.
type stepError struct {
	op  op
	err error
}

func (e *stepError) Error() string { return e.op.name() + ": " + e.err.Error() }

// fail describes err, the failure of step o. Its text leaves out what the name of the step says already.
func fail(o op, err error) *failure {
	f := &failure{Op: o, Path: o.Path, Text: err.Error()}
	errors.As(err, &f.Errno)
	if e, ok := err.(*fs.PathError); ok {
		f.Path = raw(e.Path)
		f.Text = e.Err.Error()
		if e.Op != string(o.Verb) {
			f.Text = e.Op + ": " + f.Text
		}
		if !strings.HasSuffix(o.name(), " "+e.Path) {
			f.Text = e.Path + ": " + f.Text
		}
	}
	return f
}

// raw is a string of any bytes. JSON replaces what is not UTF-8 in its strings, but file names and arguments must
// arrive as they are; so raw travels in base64.
type raw string

// MarshalJSON implements json.Marshaler.
func (r raw) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(r)) }

// UnmarshalJSON implements json.Unmarshaler.
func (r *raw) UnmarshalJSON(b []byte) error {
	var s []byte
	err := json.Unmarshal(b, &s)
	*r = raw(s)
	return err
}

func toRaw(list []string) []raw {
	raws := make([]raw, len(list))
	for i, s := range list {
		raws[i] = raw(s)
	}
	return raws
}

func fromRaw(raws []raw) []string {
	list := make([]string, len(raws))
	for i, r := range raws {
		list[i] = string(r)
	}
	return list
}
