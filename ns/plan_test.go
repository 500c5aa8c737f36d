package ns

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

var planCases = map[string]Config{
	"default": {},
	"full": {
		Hostname: "box", ReadOnly: true, RequireMountPoints: true, PrivateNetwork: true,
		Mounts: []Mount{
			{Path: "/srv/a b/c", FD: 7, Recursive: true, Attr: unix.MOUNT_ATTR_RDONLY},
			{Path: "/tmp", FS: "tmpfs", Options: []string{"size=1m"}, Attr: unix.MOUNT_ATTR_NODEV},
			{Path: "/srv", FD: 8},
		},
		Limits: []Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 10, Hard: 20}},
	},
	"nested":     {NestedUsers: true},
	"terminal":   {Process: Process{Terminal: true}},
	"privileged": {Security: Security{Privileged: true}},
}

// TestPlan compares plans with golden files: what a start does is seen in the history of those.
func TestPlan(t *testing.T) {
	for name, cfg := range planCases {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for _, o := range plan(cfg) {
				b.WriteString(o.String() + "\n")
			}
			file := filepath.Join("testdata", "plan-"+name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("plan (-update writes it to %s):\n%s\nwant:\n%s", file, b.String(), want)
			}
		})
	}
}

// TestPlanShape checks what must hold of every plan.
func TestPlanShape(t *testing.T) {
	for name, cfg := range planCases {
		at := map[verb]int{}
		for i, o := range plan(cfg) {
			at[o.Verb] = i // the last one
		}
		order := []verb{verbPrivate, verbAttach, verbMount, verbStdio, verbPivot, verbVerify}
		for i := 1; i < len(order); i++ {
			if at[order[i-1]] >= at[order[i]] {
				t.Errorf("%s: %s is not before %s", name, order[i-1], order[i])
			}
		}
		if at[verbReadOnly] > 0 && at[verbReadOnly] < at[verbMkdir] {
			t.Errorf("%s: the root is read-only before its mount points are made", name)
		}
	}
}

// TestOrder checks that an order arrives as it was sent, whatever the bytes in its names.
func TestOrder(t *testing.T) {
	cfg := planCases["full"]
	cfg.Argv = []string{"a\xff\xfe", "", "\u2028<>&\n"}
	cfg.Env = []string{"A=\x80"}
	cfg.Mounts[0].Path = "/\x80"
	confine, err := cfg.confine()
	if err != nil {
		t.Fatal(err)
	}
	sent := order{Ops: plan(cfg), Confine: confine, Program: cfg.wire(), Binds: 2}
	b, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got order
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(sent, got) {
		t.Errorf("sent %v\ngot  %v", sent, got)
	}
}

func TestDefaultEnv(t *testing.T) {
	got := strings.Join(DefaultEnv("box", ""), " ")
	want := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=box"
	if got != want {
		t.Errorf("got %q", got)
	}
	if got := DefaultEnv("", "xterm"); got[len(got)-1] != "TERM=xterm" {
		t.Errorf("got %q", got)
	}
}

func TestSearchPath(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, defaultPath},
		{[]string{"XPATH=/x", "PATH=/a"}, "/a"},
		{[]string{"PATH=/a", "PATH=/b"}, "/b"},
		{[]string{"PATH="}, ""},
	} {
		if got := searchPath(c.env); got != c.want {
			t.Errorf("%q: %q, want %q", c.env, got, c.want)
		}
	}
}
