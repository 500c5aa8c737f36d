package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestMain makes the test binary be unionfsd where it is started under one of its names.
func TestMain(m *testing.M) {
	dispatch()
	switch name := filepath.Base(os.Args[0]); name {
	case "unionfsd", "mount.unionfsd", peerName:
		main()
	}
	testfs.Main(m)
}

// The scripts in testdata/script/both run on each backend, which they name $BACKEND; those in once run once.
func TestScripts(t *testing.T) {
	testfs.NeedRoot(t)
	t.Run("fuse", func(t *testing.T) { runScripts(t, "both", "fuse") })
	t.Run("kernel", func(t *testing.T) { runScripts(t, "both", "kernel") })
	t.Run("once", func(t *testing.T) { runScripts(t, "once", "") })
}

func runScripts(t *testing.T, dir, backend string) {
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"unionfsd", "mount.unionfsd", peerName} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Where temporary files are on an overlay, as in a container, the layers are on a tmpfs: an overlay takes no upper
	// layer on another one.
	onOverlay, workdir := isOverlay(t, os.TempDir()), ""
	if onOverlay {
		workdir = testfs.Tmpfs(t)
	}
	testscript.Run(t, testscript.Params{
		WorkdirRoot:         workdir,
		Condition:           func(cond string) (bool, error) { return cond == "overlay" && onOverlay, nil },
		Dir:                 filepath.Join("testdata/script", dir),
		Deadline:            time.Now().Add(5 * time.Minute), // all of them at once, on a loaded machine
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env.Setenv("BACKEND", backend)
			env.Setenv("OTHER", map[string]string{"fuse": "kernel", "kernel": "fuse"}[backend])
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command of a -race binary ends a second late
			env.Defer(func() {
				for _, path := range testfs.UnmountAll(env.WorkDir) {
					t.Errorf("still mounted at the end of the script: %s", path)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"uni":   cmdUni,
			"fails": cmdFails,
			"exits": cmdExits,
			"until": cmdUntil,
		},
	})
}

func isOverlay(t testing.TB, dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// uni ARG... runs unionfsd with a state root of the script's own.
func cmdUni(ts *testscript.TestScript, neg bool, args []string) {
	if err := uni(ts, args); (err != nil) != neg {
		ts.Fatalf("unionfsd %s: %v", strings.Join(args, " "), err)
	}
}

func uni(ts *testscript.TestScript, args []string) error {
	return ts.Exec("unionfsd", append([]string{"--root", ts.MkAbs("state")}, args...)...)
}

// exits CODE ARG... runs unionfsd and wants that exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](uni(ts, args[1:])); ok {
		got = exit.ExitCode()
	}
	if neg || got != want {
		ts.Fatalf("unionfsd %s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// fails CODE ARG... wants that exit code, and one line on stderr that says who complains, and nothing on stdout.
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	cmdExits(ts, neg, args)
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if stdout != "" || !strings.HasPrefix(stderr, "unionfsd: ") || strings.Count(stderr, "\n") != 1 {
		ts.Fatalf("not one line of error: stdout %q, stderr %q", stdout, stderr)
	}
}

// until PROGRAM ARG... waits until the program succeeds, or with a ! before it until it fails.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	var err error
	for range 200 {
		if err = ts.Exec(args[0], args[1:]...); (err != nil) == neg {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("%s", fmt.Sprintf("until %s: %v after 5 s", strings.Join(args, " "), err))
}
