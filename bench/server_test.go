package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unionfsd/unionfsd/fs/layer"
)

func TestParseServers(t *testing.T) {
	program := filepath.Join(t.TempDir(), "unionfsd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho unionfsd 1.2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	servers, err := ParseServers("fuse,kernel,fuse,old=fuse@"+program+" --one --two=3,native", program)
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, s := range servers {
		labels = append(labels, s.Label)
	}
	if got := strings.Join(labels, " "); got != "fuse kernel fuse#2 old native" {
		t.Errorf("labels = %s", got)
	}
	if old := servers[3]; old.Kind != FUSE || old.Program != program || strings.Join(old.Args, " ") != "--one --two=3" || old.Version != "unionfsd 1.2" {
		t.Errorf("old = %+v", old)
	}
	spec := layer.Spec{Lower: []string{"/l/a", "/l/b"}, Upper: "/u", Work: "/w"}
	want := program + " --root /s mount -f -b fuse -u /u -w /w -l /l/a -l /l/b --one --two=3 /m"
	if got := strings.Join(servers[3].command(spec, "/m", "/s").Args, " "); got != want {
		t.Errorf("command = %s, want %s", got, want)
	}
	for list, want := range map[string]string{
		"":                     "without a name",
		"fuse,":                "without a name",
		"ext4":                 "unknown backend",
		"native --fast":        "only fuse and kernel",
		"fuse@/does/not/exist": "no such file",
	} {
		if _, err := ParseServers(list, program); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseServers(%q): %v, want %q", list, err, want)
		}
	}
}

// A peer that is asked for and not there is an error; one that nobody has asked for is named as missing.
func TestMissingPeers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := ParseServers("mergerfs", os.Args[0]); err == nil || !strings.Contains(err.Error(), "install it or leave it out") {
		t.Errorf("ParseServers: %v", err)
	}
	if s := findPeer("mergerfs"); s.Missing == "" {
		t.Errorf("findPeer = %+v, want it missing", s)
	}
}

func TestPeerCommand(t *testing.T) {
	spec := layer.Spec{Lower: []string{"/d/0001", "/d/0002"}, Upper: "/u", Work: "/w"}
	for kind, want := range map[string]string{
		"fuse-overlayfs": "-f -o lowerdir=0001:0002,upperdir=/u,workdir=/w /m",
		"unionfs-fuse":   "-f -o cow /u=RW:0001=RO:0002=RO /m",
	} {
		cmd := Server{Kind: kind, Program: "p"}.command(spec, "/m", "/s")
		if got := strings.Join(cmd.Args[1:], " "); got != want || cmd.Dir != "/d" {
			t.Errorf("%s: %s in %s, want %s in /d", kind, got, cmd.Dir, want)
		}
	}
}
