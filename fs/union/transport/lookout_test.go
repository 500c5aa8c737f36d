package transport

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestStreak(t *testing.T) {
	var s streak
	for i, step := range []struct {
		so   bool
		want streak
	}{{true, 1}, {true, 2}, {false, 0}, {false, 0}, {true, 1}} {
		if got := s.count(step.so); got != step.want {
			t.Errorf("step %d: %d; want %d", i, got, step.want)
		}
	}
}

// More threads wait while requests do, up to the limit, and fewer when they do not any more.
func TestCrowd(t *testing.T) {
	c := crowd{most: 3}
	last := func(looks int, queued bool) (n int32) {
		for range looks {
			n = c.look(queued)
		}
		return n
	}
	for i, step := range []struct {
		looks  int
		queued bool
		want   int32
	}{
		{crowdLooks - 1, true, 1}, {1, true, 2}, // after a while, not at once
		{1, false, 2}, {crowdLooks - 1, true, 2}, {1, true, 3}, // a look that finds nothing begins anew
		{10 * crowdLooks, true, 3},
		{calmLooks, false, 2}, {calmLooks, false, 1}, {10 * calmLooks, false, 1},
	} {
		if got := last(step.looks, step.queued); got != step.want {
			t.Errorf("step %d: %d threads; want %d", i, got, step.want)
		}
	}
}

// One thread is enough for one caller, and a burst of slow requests gets as many as it takes, which go when it is over.
func TestThreads(t *testing.T) {
	s := mountWaitingOn(t, Off)
	before := s.count.Load()
	for i := range 1000 {
		if err := s.missing("quick" + strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	const slow = 50
	var all sync.WaitGroup
	for i := range slow {
		all.Go(func() {
			if err := s.missing("slow" + strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range slow {
		within(t, fmt.Sprintf("slow request %d of %d", i, slow), s.fs.arrived)
	}
	s.letGo()
	all.Wait()
	for i, deadline := 0, time.Now().Add(20*time.Second); s.count.Load() > before; i++ {
		if err := s.missing("later" + strconv.Itoa(i)); err != nil { // a thread that waits ends after its next request
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are left of a burst; there were %d before", s.count.Load(), before)
		}
	}
}

// Who looks stops looking when there is nothing to do, and is there again when there is.
func TestDoze(t *testing.T) {
	s := mountWaitingOn(t, Off)
	for round := range 3 {
		for deadline := time.Now().Add(20 * time.Second); !s.lookout.dozes.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it looks for ever")
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := s.missing("slow" + strconv.Itoa(round)); err != nil {
				t.Error(err)
			}
		}()
		within(t, "the slow request", s.fs.arrived)
		if err := s.missing("quick" + strconv.Itoa(round)); err != nil { // nobody else would answer it
			t.Fatal(err)
		}
		s.fs.release <- struct{}{}
		within(t, "the answer to the slow request", done)
	}
}
