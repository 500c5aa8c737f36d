package union_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

var allFaults = flag.Bool("faults.all", false, "every fault at every step, not a selection")

// TestFaults makes each system call of each operation fail once, in turn, and checks that the caller is told, that the
// union shows what it showed before, that the operation succeeds when it is tried again, and that the disk has the same
// as the union shows: to the next mount, ours or the kernel's.
//
// It also kills the server before and after each system call, and checks that the next mount, ours or the kernel's, shows
// what there was before the operation or what there is after it.
func TestFaults(t *testing.T) {
	testfs.NeedRoot(t)
	umask := unix.Umask(0o022)
	lower := faultLayers(t)
	before := onDisk(lower)
	t.Cleanup(func() { // when all operations have ended
		unix.Umask(umask)
		if d := testfs.Diff(before, onDisk(lower)); d != "" {
			t.Errorf("the lower layers were changed:\n%s", d)
		}
	})
	for i, o := range operations {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			r := newFaultRun(t, o, lower)
			r.failures(t, i)
			r.retries(t, i)
			r.kills(t, i)
			r.server.end()
		})
	}
}

// failures makes system calls fail: every one with every error, or a selection that depends on seed.
func (r *faultRun) failures(t *testing.T, seed int) {
	for i, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			for n := 1; n <= len(r.calls); n++ {
				if *allFaults || n%3 == i && (n/3+seed)%8 == 0 {
					t.Run(fmt.Sprint(n), func(t *testing.T) { r.fail(t, n, errno) })
				}
			}
		})
	}
}

// retries makes system calls fail, and does the operation again at once, before anything is looked up anew.
func (r *faultRun) retries(t *testing.T, seed int) {
	t.Run("again at once", func(t *testing.T) {
		for n := range r.calls {
			if *allFaults || (n+seed)%30 == 0 {
				t.Run(fmt.Sprint(n+1), func(t *testing.T) { r.retry(t, n+1) })
			}
		}
	})
}

// kills kills the server: before and after every system call, or after a selection of those that leave something.
func (r *faultRun) kills(t *testing.T, seed int) {
	for _, when := range []string{"before", "after"} {
		t.Run("killed "+when, func(t *testing.T) {
			for i, call := range r.calls {
				if *allFaults || when == "after" && changes[call] && (i+seed)%12 == 0 {
					t.Run(fmt.Sprint(i+1), func(t *testing.T) { r.kill(t, i+1, when == "after") })
				}
			}
		})
	}
}

// changes are the system calls that leave something on disk.
var changes = map[string]bool{
	"mkdirat": true, "mknodat": true, "symlinkat": true, "linkat": true, "unlinkat": true, "renameat2": true,
	"fchownat": true, "fchmodat": true, "utimensat": true, "setxattr": true, "removexattr": true,
	"ftruncate": true, "pwrite": true, "copy_file_range": true, "ioctl": true,
}

// bestEffort are the system calls without which an operation may succeed all the same, and why.
var bestEffort = map[string]string{
	"unlinkat":          "what is left in the staging directory is removed by the next mount",
	"openat":            "to list that",
	"openat2":           "to list that",
	"getdents":          "to list that",
	"utimensat":         "a copy-up that cannot restore the times of the directory (ovl_copy_up_one)",
	"ioctl":             "data that cannot be shared is copied",
	"lseek":             "data is copied where holes cannot be found",
	"name_to_handle_at": "a copy without an origin has another inode number after the next mount",
	"open_by_handle_at": "an origin that cannot be found is none",
	"getxattr":          "an origin that cannot be read is none; a directory not known to be impure is taken to be not",
	"inotify_add_watch": "what is not watched is not remembered for long",
	"fstatat":           "an origin that cannot be looked at is none",
}

// faultRun is one operation on one union, again and again.
type faultRun struct {
	op            operation
	dir           string // where everything of this run is
	spec          layer.Spec
	template      testfs.Tree       // what the upper layer has before the operation
	before, after string            // what the union shows
	between       map[string]string // what it may show instead, if the operation has failed, and what then, when it was done again
	calls         []string          // the system calls that the operation makes
	server        *faultServer
}

// newFaultRun does the operation once, without faults.
func newFaultRun(t *testing.T, o operation, lower []string) *faultRun {
	r := &faultRun{op: o, dir: testfs.Layers(t, 1)[0], server: newFaultServer(t)}
	r.spec = layer.Spec{Lower: lower, Upper: r.dir + "/upper", Work: r.dir + "/work", Options: o.options}
	r.template = parseOld(t, faultUpper)
	if o.prepare != nil {
		r.setUp(t)
		r.mount(t)
		r.must(t, "prepare", o.prepare(r.target()))
		r.unmount(t)
		r.template = testfs.Read(r.spec.Upper, testfs.Options{Since: distantFuture})
		r.tearDown(t)
	}
	r.setUp(t)
	r.mount(t)
	r.before = shows(r.target())
	r.remount(t) // nothing is cached, as in every case
	calls, err := r.do(t, plan{})
	r.must(t, o.name, err)
	r.after, r.calls = shows(r.target()), calls
	r.unmount(t)
	r.onKernel(t, func() { r.same(t, "on the kernel", r.after, shows(r.target())) })
	r.tearDown(t)
	r.between = map[string]string{}
	for _, between := range o.between {
		r.setUp(t)
		r.mount(t)
		r.must(t, "between", between(r.target()))
		shown := shows(r.target())
		r.must(t, o.name, o.do(r.target()))
		r.between[shown] = shows(r.target())
		r.unmount(t)
		r.tearDown(t)
	}
	if r.before == r.after && !o.noChange {
		t.Fatal("the operation changes nothing")
	}
	return r
}

func (r *faultRun) target() string { return r.dir + "/merged" }

// setUp makes the layers as they are before the operation.
func (r *faultRun) setUp(t *testing.T) {
	t.Helper()
	for _, dir := range []string{r.spec.Upper, r.spec.Work, r.target()} {
		r.must(t, "set up", os.Mkdir(dir, 0o755))
	}
	r.must(t, "set up", r.template.Write(r.spec.Upper))
}

func (r *faultRun) tearDown(t *testing.T) {
	t.Helper()
	for _, dir := range []string{r.spec.Upper, r.spec.Work, r.target()} {
		r.must(t, "tear down", os.RemoveAll(dir))
	}
}

// begin is the beginning of one case, and the returned function its end, at which nothing is mounted however it
// ended.
func (r *faultRun) begin(t *testing.T) func() {
	t.Helper()
	r.setUp(t)
	r.mount(t)
	return func() {
		if len(testfs.UnmountAll(r.dir)) > 0 { // the case failed: the server is in an unknown state
			r.server.proc.Kill()
			r.server = newFaultServer(r.server.t)
		}
		r.tearDown(t)
		if t.Failed() {
			t.Logf("again: go test ./fs/union -run '%s' -faults.all", t.Name())
		}
	}
}

// fail makes the n-th system call fail.
func (r *faultRun) fail(t *testing.T, n int, errno unix.Errno) {
	defer r.begin(t)()
	calls, err := r.do(t, plan{N: n, Errno: errno})
	if len(calls) < n {
		t.Fatalf("only %d system calls were made", len(calls))
	}
	call := calls[n-1]
	shown := shows(r.target())
	expect := r.before
	switch {
	case err == nil && bestEffort[call] == "":
		t.Fatalf("%s failed, and the caller was not told; calls:\n%s", call, numbered(calls))
	case err == nil:
		expect = r.after
		if shown != expect && call == "name_to_handle_at" {
			// The two names of a file were seen before and after the kernel forgot it, which changes the inode
			// number of a copy without an origin.
			shown = shows(r.target())
		}
	case !errors.Is(err, errno):
		t.Fatalf("%s failed, and the caller was told %v; calls:\n%s", call, err, numbered(calls))
	case r.between[shown] != "":
		expect = shown
	case shown == r.after && (!changes[call] || r.op.early):
		expect = shown // the change was made, but the server could not look at it for the answer
	}
	what := fmt.Sprintf("after %s failed and the operation returned %v,", call, err)
	r.same(t, what+" in the union", expect, shown)
	if n%4 == 0 {
		r.must(t, what, useDirectories(r.target()))
		r.same(t, what+" and directories were used,", expect, shows(r.target()))
	}
	again := func() {
		t.Helper()
		if expect != r.after {
			r.must(t, what+" again", r.op.do(r.target()))
			expect = r.doneFrom(expect)
			r.same(t, what+" when it was done again", expect, shows(r.target()))
		}
	}
	if n%2 == 0 {
		again()
	}
	r.unmount(t)
	r.onKernel(t, func() { r.same(t, what+" on the kernel", expect, shows(r.target())) })
	r.mount(t)
	r.same(t, what+" after a remount", expect, shows(r.target()))
	r.emptyWork(t)
	if n%2 != 0 {
		again()
	}
	r.unmount(t)
}

// retry makes the n-th system call fail, and does the operation again.
func (r *faultRun) retry(t *testing.T, n int) {
	defer r.begin(t)()
	calls, err := r.do(t, plan{N: n, Errno: unix.EIO})
	var again error
	if err != nil {
		again = r.op.do(r.target())
	}
	shown := shows(r.target())
	if again != nil && shown != r.after { // else it was done the first time, but for the answer
		t.Fatalf("%s failed, and when the operation was done again at once: %v; calls:\n%s", calls[n-1], again, numbered(calls))
	}
	expect := r.after
	for _, resumed := range r.between {
		if shown == resumed {
			expect = shown
		}
	}
	r.same(t, "done again at once,", expect, shown)
	r.unmount(t)
	r.onKernel(t, func() { r.same(t, "done again at once, on the kernel", expect, shows(r.target())) })
}

// doneFrom is what the union shows after the operation, if it showed from before it.
func (r *faultRun) doneFrom(from string) string {
	return cmp.Or(r.between[from], r.after)
}

// kill kills the server at the n-th system call.
func (r *faultRun) kill(t *testing.T, n int, after bool) {
	defer r.begin(t)()
	next := newFaultServer(r.server.t) // it starts while the other one is at work
	calls, _ := r.do(t, plan{N: n, After: after})
	if calls != nil {
		t.Fatalf("the server is still alive after %d calls", len(calls))
	}
	if err := r.server.proc.Wait(10 * time.Second); !strings.Contains(fmt.Sprint(err), "signal: killed") {
		t.Fatalf("server: %v, not killed", err)
	}
	r.server = next
	testfs.UnmountAll(r.dir)

	what := fmt.Sprintf("killed at %s,", r.calls[n-1])
	expect := ""
	look := func(where string) {
		t.Helper()
		shown := shows(r.target())
		if expect == "" {
			if expect = r.before; shown == r.after || r.between[shown] != "" {
				expect = shown
			}
		}
		r.same(t, what+" "+where, expect, shown)
	}
	if n%2 == 0 && r.spec.Options.FUSE.Lazy != layer.LazyOn { // it refuses what is not complete
		r.onKernel(t, func() { look("first seen by the kernel") })
	}
	r.mount(t)
	look("after a remount")
	r.emptyWork(t)
	if expect != r.after {
		r.must(t, what+" again", r.op.do(r.target()))
		expect = r.doneFrom(expect)
		r.same(t, what+" when it was done again", expect, shows(r.target()))
	}
	r.unmount(t)
	r.onKernel(t, func() { r.same(t, what+" on the kernel", expect, shows(r.target())) })
}

// do does the operation by a plan, and returns which system calls the server made for it, nil if it was killed.
func (r *faultRun) do(t *testing.T, p plan) ([]string, error) {
	t.Helper()
	_, err := r.server.tell(command{Plan: &p})
	r.must(t, "plan", err)
	err = r.op.do(r.target())
	answer, dead := r.server.tell(command{Report: true})
	if dead != nil {
		return nil, err
	}
	return append([]string{}, answer.Calls...), err
}

func (r *faultRun) mount(t *testing.T) {
	t.Helper()
	r.must(t, "mount", patiently(func() error {
		_, err := r.server.tell(command{
			Mount: &r.spec, Target: r.target(), Deny: r.op.deny,
			Delay: time.Hour, // in the background no operation is told of a failure
		})
		return err
	}))
}

func (r *faultRun) unmount(t *testing.T) {
	t.Helper()
	r.must(t, "unmount", patiently(func() error { return unix.Unmount(r.target(), 0) }))
	_, err := r.server.tell(command{Unmounted: true})
	r.must(t, "unmount", err)
}

func (r *faultRun) remount(t *testing.T) {
	t.Helper()
	r.unmount(t)
	r.mount(t)
}

func (r *faultRun) must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (r *faultRun) same(t *testing.T, what, want, got string) {
	t.Helper()
	if d := testfs.Diff(want, got); d != "" {
		t.Fatalf("%s it is not what it should be (-want +got):\n%s\ncalls without a fault:\n%s", what, d, numbered(r.calls))
	}
}

// emptyWork checks that nothing is left of an earlier mount in the staging directory.
func (r *faultRun) emptyWork(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(r.spec.Work, "work"))
	r.must(t, "work", err)
	if len(left) > 0 {
		t.Errorf("left in work after a remount: %v", left)
	}
}

// onKernel calls f while the layers are mounted by the kernel's overlayfs, if that can read them.
func (r *faultRun) onKernel(t *testing.T, f func()) {
	t.Helper()
	if r.spec.Options.FUSE.AUFSMarks {
		return
	}
	spec := r.spec
	spec.Options.FUSE.Lazy = ""
	view, err := overlayfs.Backend{}.Open(context.Background(), spec)
	r.must(t, "mount on the kernel", err)
	defer view.Close()
	r.must(t, "mount on the kernel", view.Attach(r.target()))
	f()
	r.must(t, "unmount from the kernel", patiently(func() error { return unix.Unmount(r.target(), 0) }))
}
