package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/bench/workload"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// ClientName is the name under which a program that calls [Run] starts itself for the client. Its main must call
// [Client] then.
const ClientName = "unionfsd-bench-client"

// order is what the client is told to do.
type order struct {
	Await  string `json:",omitempty"` // wait until something is mounted there, and answers
	Before bool   `json:",omitempty"` // prepare Step
	Step   int
}

// answer is what came of an order.
type answer struct {
	Err string `json:",omitempty"`

	// Of Await.
	At     time.Duration // when the root directory was there, on CLOCK_MONOTONIC
	Device string        // MAJOR:MINOR of the file system

	// Of a step.
	Seconds, CPU float64
	Ops          int
	Values       []workload.Value
}

// hello is the first thing that a client is told.
type hello struct {
	Workload string
	Env      workload.Env
}

// client is the process that does the work.
type client struct {
	*process
	in  *os.File
	out *os.File
	dec *json.Decoder
}

func startClient(h hello) (_ *client, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer stdout.Close()
	c := &client{in: in, out: out, dec: json.NewDecoder(out)}
	cmd := &exec.Cmd{Path: self, Args: []string{ClientName}, Dir: "/", Stdin: stdin, Stdout: stdout}
	if c.process, err = start(cmd); err == nil {
		err = json.NewEncoder(in).Encode(h)
	}
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("start the client: %w", err)
	}
	return c, nil
}

// do gives an order and waits for the answer, until ctx ends.
func (c *client) do(ctx context.Context, o order) (answer, error) {
	var a answer
	if ctx.Err() != nil {
		return a, context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.out.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		return a, fmt.Errorf("tell the client: %w", err)
	}
	err := c.dec.Decode(&a)
	switch {
	case ctx.Err() != nil:
		return a, context.Cause(ctx)
	case err != nil:
		<-c.done
		return a, fmt.Errorf("the client ended: %w", c.failure())
	case a.Err != "":
		return a, errors.New(a.Err)
	}
	return a, nil
}

// close ends the client; at once if it works.
func (c *client) close(working bool) error {
	c.in.Close()
	defer c.out.Close()
	if working {
		c.kill()
		return nil
	}
	return c.end()
}

// Client is the whole life of the client process. It returns the exit code.
func Client() int {
	if err := serveOrders(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveOrders(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(400) // the collector is no part of the work
	dec, enc := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var h hello
	if err := dec.Decode(&h); err != nil {
		return err
	}
	w, ok := workload.ByName(h.Workload)
	if !ok {
		return fmt.Errorf("no workload %q", h.Workload)
	}
	for {
		var o order
		if err := dec.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		a, err := obey(w, &h.Env, o)
		if err != nil {
			a.Err = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func obey(w workload.Workload, env *workload.Env, o order) (answer, error) {
	if o.Await != "" {
		return await(o.Await)
	}
	step := w.Steps[o.Step]
	if o.Before {
		if step.Before == nil {
			return answer{}, nil
		}
		return answer{}, step.Before(env)
	}
	env.Values = nil
	runtime.GC()
	cpu, begin := usedCPU(), monotonic()
	ops, err := step.Run(env)
	end := monotonic()
	return answer{
		Seconds: (end - begin).Seconds(),
		CPU:     (usedCPU() - cpu).Seconds(),
		Ops:     ops,
		Values:  env.Values,
	}, err
}

// await waits until something is mounted on target and its root directory can be seen.
func await(target string) (answer, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return answer{}, err
	}
	defer f.Close()
	for {
		entries, err := mountinfo.Read()
		if err != nil {
			return answer{}, err
		}
		if entry, ok := mountinfo.Top(entries, target); ok {
			var st unix.Stat_t
			if err := unix.Stat(target, &st); err != nil {
				return answer{}, fmt.Errorf("stat of the mount point: %w", err)
			}
			return answer{At: monotonic(), Device: entry.Dev}, nil
		}
		// proc_pid_mounts(5): the file can be polled for changes since it was read last. Not by an endless poll:
		// mountinfo.Read reads another open file, so a change between the two would be missed.
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, 20); err != nil && err != unix.EINTR {
			return answer{}, err
		}
	}
}

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
	return time.Duration(ts.Nano())
}

// usedCPU is what this process and those that it has waited for have used.
func usedCPU() time.Duration {
	var total time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		_ = unix.Getrusage(who, &u) // cannot fail
		total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return total
}
