package state

import (
	"os"
	"sync"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	r := testRoot(t)
	if got, err := r.Tally(); err != nil || got.Starts != 0 {
		t.Fatalf("of a root that does not exist: %+v, %v", got, err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := r.CountStart(time.Duration(i) * 10 * time.Millisecond); err != nil { // 0 to 190 ms
				t.Error(err)
			}
			if err := r.CountExit(i % 2); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := r.Tally()
	if err != nil {
		t.Fatal(err)
	}
	want := [len(StartBounds)]uint64{1, 2, 3, 6, 11, 20, 20, 20, 20, 20, 20}
	if got.Starts != 20 || got.StartsWithin != want || got.Exits[0] != 10 || got.Exits[1] != 10 {
		t.Errorf("got %+v", got)
	}
	if got.StartSeconds < 1.89 || got.StartSeconds > 1.91 {
		t.Errorf("%v s of starting; want 1.9", got.StartSeconds)
	}
	if list, err := r.Containers(); err != nil || len(list) != 0 {
		t.Errorf("the tally is taken for a container: %v, %v", list, err)
	}
	if err := os.WriteFile(r.tallyFile(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Tally(); err != nil || got.Starts != 0 {
		t.Errorf("of an empty file: %+v, %v", got, err)
	}
	if err := r.CountExit(3); err != nil {
		t.Error(err)
	}
}
