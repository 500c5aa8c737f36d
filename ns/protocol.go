package ns

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"syscall"
)

// The socket pair between supervisor and init carries JSON values:
//
//	supervisor → init   order    once, first
//	init → supervisor   report   Failed, and init ends; or Started
//	init → supervisor   report   Exited, and init ends
//
// Whoever reads end of file before that knows that the other one is gone.

// order is all that init is told.
type order struct {
	Ops []op
}

// report is what init tells; exactly one field is set.
type report struct {
	Failed  *failure `json:",omitempty"`
	Started bool     `json:",omitempty"`
	Exited  *int     `json:",omitempty"` // the exit code of the program; 128+N if signal N ended it
}

// failure is a step that failed. Errno is 0 if the cause is not an error of the kernel; Text is the whole cause.
type failure struct {
	Op    op
	Path  raw
	Errno syscall.Errno
	Text  string
}

// fail describes err, the failure of step o. Its text leaves out what the name of the step says already.
func fail(o op, err error) report {
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
	return report{Failed: f}
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
