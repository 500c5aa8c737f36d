package ns

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

var planCases = map[string]Config{
	"default": {Argv: []string{"sh", "-c", "echo hi"}},
	"full": {
		Argv: []string{"/bin/true"}, Env: []string{"A=1"}, Dir: "/srv/a b", Hostname: "box",
		ReadOnly: true, RequireMountPoints: true,
	},
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
		order := []verb{verbPrivate, verbAttach, verbMount, verbStdio, verbPivot, verbVerify, verbChdir, verbExec}
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

// TestOrder checks that a plan arrives as it was sent, whatever the bytes in its names.
func TestOrder(t *testing.T) {
	cfg := planCases["full"]
	cfg.Argv = []string{"a\xff\xfe", "", "\u2028<>&\n"}
	cfg.Dir = "/\x80"
	sent := order{plan(cfg)}
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
	want := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root HOSTNAME=box"
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
