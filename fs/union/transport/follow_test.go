package transport

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestProcessor(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 "
	for text, want := range map[string]int32{
		"12 (sh)" + tail + "17 3 0 5 0":        3,
		"12 (a) S (b) 0)" + tail + "17 41 0\n": 41,
		"12 (sh)" + tail + "17 0":              0,
		"12 (sh)" + tail + "17":                -1,
		"12 (sh)" + tail + "17 x":              -1,
		"12 (sh":                               -1, "": -1,
	} {
		got, ok := processor([]byte(text))
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, ok, want)
		}
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	if cpu, ok := cpuOf(uint32(os.Getpid())); !ok || !set.IsSet(int(cpu)) {
		t.Errorf("this process is on CPU %d, %v", cpu, ok)
	}
}

// The thread goes where two looks have found the caller, and stays while nothing else is known. It is free as soon as much is
// carried, or more than one thread is needed.
func TestFollower(t *testing.T) {
	twoCPUs(t)
	f := newFollower()
	want := func(step string, cpu int32) {
		t.Helper()
		if got := f.cpu.Load(); got != cpu {
			t.Errorf("%s: to CPU %d; want %d", step, got, cpu)
		}
	}
	here := stayOn(t, 0)
	look := func(size int, may bool) {
		f.note(uint32(unix.Gettid()), size)
		f.look(1, may)
	}
	look(100, true)
	want("first look", anyCPU)
	look(100, true)
	want("second look", here)
	f.note(0, 100)
	f.look(1, true)
	want("a request of nobody", here)
	f.look(0, false)
	want("no request", here)
	look(bulkSize, true)
	want("a large request", anyCPU)
	look(100, true)
	look(100, true)
	want("small ones again", here)
	look(100, false)
	want("more than one thread", anyCPU)
	f.note(1<<31-1, 100)
	f.look(1, true)
	want("a thread that is gone", anyCPU)
	if at := f.place(anyCPU); at != anyCPU {
		t.Errorf("placed on CPU %d; want anywhere", at)
	}
}

// twoCPUs skips the test where there is nothing to choose.
func twoCPUs(t *testing.T) {
	if newFollower().alone {
		testfs.Skip(t, "this process may run on one CPU only")
	}
}

// stayOn keeps the thread of the test, for good, on the n-th CPU that it may run on, which is returned.
func stayOn(t *testing.T, n int) int32 {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			if n--; n < 0 {
				one.Set(cpu)
				if err := unix.SchedSetaffinity(0, &one); err != nil {
					t.Fatal(err)
				}
				return int32(cpu)
			}
		}
	}
	t.Fatal("there are not that many CPUs")
	return 0
}

// Who makes requests has its thread on the same CPU before long, wherever it goes.
func TestFollow(t *testing.T) {
	testfs.NeedRoot(t)
	twoCPUs(t)
	s := mountWaitingOn(t, Off)
	for _, n := range []int{0, 1, 0} {
		var want atomic.Int32
		want.Store(anyCPU)
		followed := make(chan struct{})
		stop := make(chan struct{})
		go func() {
			want.Store(stayOn(t, n))
			defer close(followed)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.missing(strconv.Itoa(i)); err != nil {
					t.Error(err)
					return
				}
				if s.follow.cpu.Load() == want.Load() {
					return
				}
			}
		}()
		select {
		case <-followed:
		case <-time.After(20 * time.Second):
			close(stop)
			t.Fatalf("after 20 s on CPU %d: told to be on %d", want.Load(), s.follow.cpu.Load())
		}
	}
}
