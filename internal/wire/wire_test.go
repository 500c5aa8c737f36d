package wire

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns two connected ends.
func pair(t *testing.T, limit int) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*Conn, 2)
	for i, fd := range fds {
		if ends[i], err = FromFile(os.NewFile(uintptr(fd), "end"), limit); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

func TestMessages(t *testing.T) {
	a, b := pair(t, 8<<20)
	long := strings.Repeat("x", 3<<20) // more than fits into the socket at once
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		a.Send("one", w)
		a.Send(long)
		w.Close()
		a.Close()
	}()
	var got string
	if err := b.Receive(&got); err != nil || got != "one" {
		t.Fatalf("%q, %v", got, err)
	}
	files := b.Files()
	if len(files) != 1 || len(b.Files()) != 0 {
		t.Fatalf("files: %v", files)
	}
	if flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, err)
	}
	if err := b.Receive(&got); err != nil || got != long {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if err := b.Receive(&got); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	io.WriteString(files[0], "through")
	files[0].Close()
	if text, err := io.ReadAll(r); string(text) != "through" || err != nil {
		t.Errorf("pipe: %q, %v", text, err)
	}
}

func TestLimit(t *testing.T) {
	a, b := pair(t, 10)
	if err := a.Send("longer than ten"); err != nil {
		t.Fatal(err)
	}
	if err := b.Receive(new(string)); err == nil || !strings.Contains(err.Error(), "10 are the most") {
		t.Error(err)
	}
}

// What was sent and never taken is closed.
func TestFilesNotTaken(t *testing.T) {
	a, b := pair(t, 100)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Send(1, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := b.Receive(new(int)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
}
