package testfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

const everything = `
dir . mode=0711
dir a mode=0750 owner=1000:1001 opaque user.x="y" mtime=1600000000.25
file a/empty
file a/short "two\nlines" mode=4755 user.name="a \"value\""
file a/long size=200000 data=65536:"some" data=131072:"more"
file "a/odd name" "x"
file a.txt "sorted after what is in a" mtime=1500000000
symlink link -> "a/odd name"
hardlink a/second -> a/short
fifo fifo mode=0600
socket sock
char null 1:3 mode=0666
block loop 7:0
whiteout gone
dir d redirect=/somewhere
`

func TestTreeRoundTrip(t *testing.T) {
	NeedRoot(t)
	dir := Layers(t, 1)[0]
	Write(t, dir, everything)
	want := lines(everything)
	// The text does not tell times without Since. Of two names, the first in the order of paths is the object.
	want = lines(strings.NewReplacer(
		" mtime=1600000000.25", "", " mtime=1500000000", "",
		"file a/short", "file a/second", "hardlink a/second -> a/short", "hardlink a/short -> a/second",
		` user.name=`, ` nlink=2 user.name=`).Replace(want))
	got := Fingerprint(dir, Options{Layer: true})
	if d := Diff(want, got); d != "" {
		t.Errorf("what was written is not what is read:\n%s", d)
	}
	if again := lines(got); again != got {
		t.Errorf("a fingerprint is not canonical:\n%s", Diff(got, again))
	}
}

// lines sorts the lines of a tree.
func lines(s string) string {
	s, err := Canonical(s)
	if err != nil {
		return err.Error()
	}
	return s
}

func TestFingerprintSeesEveryChange(t *testing.T) {
	NeedRoot(t)
	const text = "dir d\nfile d/f \"abc\" user.a=\"1\" mtime=1500000000\nsymlink s -> d\nfifo p\n"
	changes := map[string]func(dir string) error{
		"mode":    func(d string) error { return os.Chmod(d+"/d/f", 0o600) },
		"owner":   func(d string) error { return os.Lchown(d+"/s", 1, 2) },
		"content": func(d string) error { return os.WriteFile(d+"/d/f", []byte("abd"), 0) },
		"xattr":   func(d string) error { return unix.Setxattr(d+"/d/f", "user.a", []byte("2"), 0) },
		"link":    func(d string) error { return os.Link(d+"/p", d+"/q") },
		"time":    func(d string) error { return os.Chtimes(d+"/d/f", time.Time{}, time.Unix(7, 0)) },
		"gone":    func(d string) error { return os.Remove(d + "/d/f") },
		"new":     func(d string) error { return os.Mkdir(d+"/d/new", 0o755) },
	}
	for what, change := range changes {
		dir := Layers(t, 1)[0]
		Write(t, dir, text)
		o := Options{Since: time.Unix(1600000000, 0)}
		before := Fingerprint(dir, o)
		if err := change(dir); err != nil {
			t.Fatal(what, err)
		}
		if d := Diff(before, Fingerprint(dir, o)); d == "" {
			t.Errorf("a change of %s is not seen", what)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{"file", "thing a", "symlink a b", "char a x", `file a "open`, "file a foo=1", "file a mode=9"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestDiff(t *testing.T) {
	got := Diff("file a\nfile c \"1\"\n", "file b\nfile c \"2\"\n")
	want := "- file a\n+ file b\n- file c \"1\"\n+ file c \"2\"\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

var echo = NewFunc("echo", func(args []string, in *bufio.Reader, out io.Writer) error {
	b, err := io.ReadAll(in)
	fmt.Fprintf(out, "%s %s", args, b)
	return err
})

var fail = NewFunc("fail", func([]string, *bufio.Reader, io.Writer) error { return errors.New("as it must") })

var hang = NewFunc("hang", func([]string, *bufio.Reader, io.Writer) error { select {} })

func TestChild(t *testing.T) {
	if out, err := echo.Run(t, 10*time.Second, "a", "b"); err != nil || out != "[a b] " {
		t.Errorf("echo: %q, %v", out, err)
	}
	if _, err := fail.Run(t, 10*time.Second); err == nil || !strings.Contains(err.Error(), "as it must") {
		t.Errorf("fail: %v", err)
	}
	if _, err := hang.Run(t, 100*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("hang: %v", err)
	}
}

type runner func() int

func (r runner) Run() int { return r() }

// leaks leaves something behind on purpose and reports what the guard says of it.
var leaks = NewFunc("leaks", func(args []string, _ *bufio.Reader, out io.Writer) error {
	os.Unsetenv(inside) // with a temporary directory of its own
	code, err := runGuarded(runner(func() int {
		switch args[0] {
		case "file":
			_, err := os.CreateTemp("", "left")
			return errCode(err)
		case "descriptor":
			_, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			return errCode(err)
		case "process":
			_, err := hang.start(nil)
			return errCode(err)
		case "mount":
			dir, _ := os.MkdirTemp("", "left")
			return errCode(unix.Mount("left", dir, "tmpfs", 0, ""))
		}
		return 0
	}))
	fmt.Fprintf(out, "%d %v", code, err)
	return nil
})

func errCode(err error) int {
	if err != nil {
		return 9
	}
	return 0
}

func TestGuard(t *testing.T) {
	NeedRoot(t)
	for _, what := range []string{"file", "descriptor", "process", "mount"} {
		out, err := leaks.Run(t, 20*time.Second, what)
		if err != nil || !strings.HasPrefix(out, "0 the tests left behind:") || !strings.Contains(out, "\t"+what+" ") {
			t.Errorf("%s: %q, %v", what, out, err)
		}
	}
	if out, err := leaks.Run(t, 20*time.Second, "nothing"); err != nil || out != "0 <nil>" {
		t.Errorf("nothing: %q, %v", out, err)
	}
}

func TestTempDirUnmounts(t *testing.T) {
	NeedRoot(t)
	dir := Tmpfs(t)
	for range 2 {
		if err := unix.Mount("x", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := UnmountAll(dir); len(got) != 3 {
		t.Errorf("unmounted %q", got)
	}
	if err := unix.Mount("x", dir, "tmpfs", 0, ""); err != nil { // for the cleanup of Tmpfs
		t.Fatal(err)
	}
}
