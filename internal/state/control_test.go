package state

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The control socket of a union is found by its record, whatever the length of its path, and goes with it.
func TestControl(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 120), "state")
	r, err := At(long)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := r.AddMount(Mount{Mountpoint: "/proc", Backend: "fuse"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.DialControl(ctx); !errors.Is(err, ErrNoControl) {
		t.Errorf("before anybody listens: %v", err)
	}
	l, err := m.ListenControl()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(m.socket()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", st, err)
	}
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.WriteString(conn, "here")
			conn.Close()
		}
	}()
	conn, err := m.DialControl(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "here" {
		t.Errorf("read %q, %v", text, err)
	}
	conn.Close()
	l.Close()
	if _, err := m.DialControl(ctx); err == nil || errors.Is(err, ErrNoControl) {
		t.Errorf("a socket that nobody listens on any more: %v", err)
	}
	if err := r.DropMount(m); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(long, "mounts", "*")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	if _, err := (Mount{}).DialControl(ctx); !errors.Is(err, ErrNoControl) {
		t.Errorf("a union without a record: %v", err)
	}
}
