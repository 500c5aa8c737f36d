package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/cgroup"
)

func TestLimitFlags(t *testing.T) {
	for _, test := range []struct {
		flags containerFlags
		want  cgroup.Limits
		err   string
	}{
		{containerFlags{}, cgroup.Limits{}, ""},
		{containerFlags{memory: "64m", cpus: 0.5, pids: 20}, cgroup.Limits{Memory: 64 << 20, CPUs: 0.5, PIDs: 20}, ""},
		{containerFlags{memory: "1.5GB"}, cgroup.Limits{Memory: 3 << 29}, ""},
		{containerFlags{pids: -1}, cgroup.Limits{}, ""},
		{containerFlags{memory: "5m"}, cgroup.Limits{}, `--memory "5m"; write it as`},
		{containerFlags{memory: "lots"}, cgroup.Limits{}, `--memory "lots"; write it as`},
		{containerFlags{memory: "-1"}, cgroup.Limits{}, `--memory "-1"; write it as`},
		{containerFlags{cpus: -1}, cgroup.Limits{}, "--cpus -1; it is from 0.01"},
		{containerFlags{cpus: 1e6}, cgroup.Limits{}, "--cpus 1e+06; it is from 0.01"},
		{containerFlags{pids: -2}, cgroup.Limits{}, "--pids-limit -2; it is a number"},
	} {
		got, err := test.flags.limits()
		if test.err == "" && (err != nil || got != test.want) {
			t.Errorf("%+v: %+v, %v; want %+v", test.flags, got, err, test.want)
		}
		if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%+v: %v; want %q", test.flags, err, test.err)
		}
	}
}

// TestLimits runs a container with limits where the host can have some; and else wants to be told why not.
func TestLimits(t *testing.T) {
	s := newSession(t)
	limits := cgroup.Limits{Memory: 32 << 20, CPUs: 0.5, PIDs: 30}
	h, err := cgroup.Open()
	if err == nil {
		_, err = h.Path("unionfsd-test", limits)
	}
	run := []string{"run", "--name", "web", "--rootfs", "root", "--memory", "32m", "--cpus", "0.5", "--pids-limit", "30"}
	if err != nil {
		_, stderr, code := s.run(append(run, "true")...)
		if code != 125 || !strings.Contains(stderr, "limits: cgroup version 2") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if list, err := s.root.Containers(); err != nil || len(list) > 0 {
			t.Errorf("left are %v, %v", list, err)
		}
		return
	}
	s.must(append(run, "-d", "sh", "-c", "sleep 100")...)
	group := string(s.container("web").Cgroup)
	for file, want := range map[string]string{"memory.max": "33554432", "cpu.max": "50000 100000", "pids.max": "30"} {
		text, err := os.ReadFile(filepath.Join(group, file))
		if err != nil || strings.TrimSpace(string(text)) != want {
			t.Errorf("%s is %q, %v; want %s", file, text, err, want)
		}
	}
	s.must("rm", "-f", "web")
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("left is %s", group)
	}
	_, stderr, code := s.run(append(run, "busybox", "tail", "/dev/zero")...)
	if code != 137 || !strings.Contains(stderr, "used up the memory") || s.container("web").OOMKills == 0 {
		t.Errorf("out of memory: exit code %d, %s", code, stderr)
	}
	if out := s.must("ps"); !strings.Contains(out, "exited (137), out of memory") {
		t.Errorf("ps: %s", out)
	}
	s.must("rm", "web")
}

// TestReap: what a supervisor leaves that is killed, the next command removes.
func TestReap(t *testing.T) {
	s := newSession(t)
	s.must("run", "-d", "--rm", "--name", "web", "--io-uring", "off", "--rootfs", "root", "sh", "-c", "sleep 100")
	c := s.container("web")
	process, ok := c.OpenSupervisor()
	if !ok {
		t.Fatal("no supervisor")
	}
	defer process.Close()
	if err := unix.PidfdSendSignal(int(process.Fd()), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	until(t, "it has ended", func() bool {
		c, err := s.root.Container("web")
		return err != nil || !c.Running
	})
	if out := s.must("ps"); strings.Contains(out, "web") {
		t.Errorf("ps: %s", out)
	}
	if left, err := os.ReadDir(filepath.Join(s.root.Dir(), "containers")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
