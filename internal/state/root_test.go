package state

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestTextSurvivesJSON(t *testing.T) {
	for _, s := range []string{"", "/plain", "/zwölf", "/\xff\xfe", `"quoted"`, `"`, "a\nb", `\x`} {
		b, err := json.Marshal(Text(s))
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		var back Text
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%q, written as %s: %v", s, b, err)
		}
		if string(back) != s {
			t.Errorf("%q came back as %q", s, back)
		}
	}
}

func TestWriteReplacesWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.json")
	// A crash left a longer temporary file behind.
	if err := os.WriteFile(name+".tmp", make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first, and long", "second"} {
		if err := write(name, want); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := read(name, &got); err != nil || got != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	if _, err := os.Stat(name + ".tmp"); !os.IsNotExist(err) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}

func TestDefault(t *testing.T) {
	if os.Geteuid() == 0 {
		if dir, err := Default(); err != nil || dir != "/var/lib/unionfsd" {
			t.Errorf("for root: %q, %v", dir, err)
		}
		return
	}
	t.Setenv("HOME", "/home/u")
	for env, want := range map[string]string{"": "/home/u/.local/share/unionfsd", "rel": "/home/u/.local/share/unionfsd", "/d": "/d/unionfsd"} {
		t.Setenv("XDG_DATA_HOME", env)
		if dir, err := Default(); err != nil || dir != want {
			t.Errorf("XDG_DATA_HOME=%q: %q, %v; want %q", env, dir, err, want)
		}
	}
}
