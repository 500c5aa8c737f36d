package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Tally counts what the containers of a state root did, those that were removed since included. It is for metrics,
// which may begin again at zero: after a crash of the machine it may be lost.
type Tally struct {
	Exits map[int]uint64 `json:"exits"` // by exit code

	// How long containers took to start, from the command to the program in seconds: StartsWithin[i] took at most
	// StartBounds[i].
	Starts       uint64                   `json:"starts"`
	StartSeconds float64                  `json:"start_seconds"`
	StartsWithin [len(StartBounds)]uint64 `json:"starts_within"`
}

// StartBounds are the bounds of the histogram in [Tally], in seconds.
var StartBounds = [...]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// CountStart counts a container that took that long to start.
func (r Root) CountStart(took time.Duration) error {
	return r.count(func(t *Tally) {
		t.Starts++
		t.StartSeconds += took.Seconds()
		for i, bound := range StartBounds {
			if took.Seconds() <= bound {
				t.StartsWithin[i]++
			}
		}
	})
}

// CountExit counts a container that ended.
func (r Root) CountExit(code int) error {
	return r.count(func(t *Tally) {
		if t.Exits == nil {
			t.Exits = map[int]uint64{}
		}
		t.Exits[code]++
	})
}

// Tally returns what was counted so far.
func (r Root) Tally() (Tally, error) {
	var t Tally
	text, err := os.ReadFile(r.tallyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("state: %w", err)
	}
	if json.Unmarshal(text, &t) != nil { // the machine crashed before it was on disk
		return Tally{}, nil
	}
	return t, nil
}

func (r Root) tallyFile() string { return filepath.Join(r.dir, "tally.json") }

// count changes the tally, one process at a time. It does not wait for the disk: a container would start later.
func (r Root) count(change func(*Tally)) error {
	dir, err := r.sub(".")
	if err != nil {
		return err
	}
	held, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer held.Close()
	t, err := r.Tally()
	if err != nil {
		return err
	}
	change(&t)
	text, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	temp := r.tallyFile() + ".tmp"
	if err := os.WriteFile(temp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := os.Rename(temp, r.tallyFile()); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}
