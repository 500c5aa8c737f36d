package union_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestFaultsOfMount makes each system call of a mount fail, and kills the server at each: the mount fails, and the next
// one shows what it should, whatever an earlier server has left in the staging directory.
func TestFaultsOfMount(t *testing.T) {
	testfs.NeedRoot(t)
	r := &faultRun{dir: testfs.Layers(t, 1)[0], server: newFaultServer(t), template: parseOld(t, faultUpper)}
	r.spec = layer.Spec{Lower: faultLayers(t), Upper: r.dir + "/upper", Work: r.dir + "/work"}
	r.setUp(t)
	r.mount(t)
	r.before = shows(r.target())
	r.unmount(t)
	try := func(p plan) (calls []string, err error) {
		testfs.Write(t, r.spec.Work+"/work", "dir left\nfile left/f\nwhiteout left/w")
		_, planErr := r.server.tell(command{Plan: &p})
		r.must(t, "plan", planErr)
		_, err = r.server.tell(command{Mount: &r.spec, Target: r.target()})
		report, _ := r.server.tell(command{Report: true})
		return report.Calls, err
	}
	check := func(t *testing.T) {
		r.mount(t)
		r.same(t, "mounted again", r.before, shows(r.target()))
		r.emptyWork(t)
		r.unmount(t)
	}
	calls, err := try(plan{})
	r.must(t, "mount", err)
	r.unmount(t)
	for n := 1; n <= len(calls); n++ {
		t.Run(fmt.Sprintf("EIO/%d", n), func(t *testing.T) {
			if calls, err := try(plan{N: n, Errno: unix.EIO}); err == nil {
				t.Logf("the mount does without %s", calls[n-1])
				r.unmount(t)
			} else if !strings.Contains(err.Error(), unix.EIO.Error()) {
				t.Errorf("%s failed, and the mount with %v", calls[n-1], err)
			}
			check(t)
		})
	}
	for n := 1; n <= len(calls); n++ {
		if !*allFaults && !changes[calls[n-1]] {
			continue
		}
		t.Run(fmt.Sprintf("killed/%d", n), func(t *testing.T) {
			if _, err := try(plan{N: n, After: true}); err == nil {
				t.Fatal("the server is still alive")
			}
			_ = r.server.proc.Wait(10 * time.Second)
			r.server = newFaultServer(r.server.t)
			check(t)
		})
	}
	r.server.end()
	r.tearDown(t)
}
