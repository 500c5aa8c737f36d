package state

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Container is what is known of a container.
type Container struct {
	Name       string    `json:"name"`
	Backend    string    `json:"backend"`
	Spec       Text      `json:"spec"` // its layers, as mount options
	Rootfs     Text      `json:"rootfs"`
	Image      string    `json:"image,omitempty"` // id of the image that it was started from
	Command    []Text    `json:"command"`
	Created    time.Time `json:"created"`
	PID        int       `json:"pid,omitempty"`        // of its init, in the namespace of the supervisor; 0 before it is started
	Supervisor int       `json:"supervisor,omitempty"` // process that runs it
	Start      uint64    `json:"start,omitempty"`      // of the supervisor, which tells it from a later one of that number
	Paused     bool      `json:"paused,omitempty"`
	Detached   bool      `json:"detached,omitempty"`  // what it writes goes to the log
	TmpUpper   bool      `json:"tmp_upper,omitempty"` // its upper layers are in the memory of its supervisor
	Remove     bool      `json:"remove,omitempty"`    // when it has ended
	StopSignal int       `json:"stop_signal,omitempty"`
	Cgroup     Text      `json:"cgroup,omitempty"`  // path of its control group, which may be left when it has ended
	PIDFile    Text      `json:"pidfile,omitempty"` // has the pid of its init, and may be left as well
	ExitCode   *int      `json:"exit_code,omitempty"`
	OOMKills   int       `json:"oom_kills,omitempty"` // how many of its processes were killed for lack of memory
	Reason     string    `json:"reason,omitempty"`    // why it ended, if not by itself
	Branches   []Branch  `json:"branches,omitempty"`  // the unions in it besides the one of its root
	Users      string    `json:"users,omitempty"`     // whose ids it has: "auto" or "keep-id", if not those of the host

	// Running says whether the supervisor lives. It is asked of the lock and never written.
	Running bool `json:"-"`
}

// Branch is a union that is mounted in a container.
type Branch struct {
	Path Text `json:"path"` // in the container
	Spec Text `json:"spec"` // its layers, as mount options
}

// Status is "starting" before its program runs, "running", "paused", "exited (CODE)", "exited (CODE), out of memory", or
// "died" where the supervisor was killed before it could note a code.
func (c Container) Status() string {
	switch {
	case c.Running && c.PID == 0:
		return "starting"
	case c.Running && c.Paused:
		return "paused"
	case c.Running:
		return "running"
	case c.ExitCode != nil && *c.ExitCode != 0 && c.OOMKills > 0:
		return fmt.Sprintf("exited (%d), out of memory", *c.ExitCode)
	case c.ExitCode != nil:
		return fmt.Sprintf("exited (%d)", *c.ExitCode)
	}
	return "died"
}

// Names in the directory of a container.
const (
	recordName  = "container.json"
	logName     = "log"
	controlName = "control"
)

// Home is the directory of one container, held by its supervisor.
type Home struct {
	dir   string
	upper string // the directory that upper layers are in; empty for dir
	made  int    // how many branches and files there are
	lock  *os.File
	first Container
}

// Errors that the user can do something about.
var (
	ErrNoContainer = errors.New("no such container; unionfsd ps lists them")
	ErrNotRunning  = errors.New("is not running; unionfsd ps tells what became of it")
	errName        = errors.New("a container name is letters, digits, . _ - and starts with a letter or a digit")
)

// validName reports whether a container may have the name. No regular expression: to compile one takes more time of a start
// than all else here.
func validName(name string) bool {
	letter := func(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' }
	other := func(r rune) bool { return !letter(r) && !strings.ContainsRune("_.-", r) }
	return name != "" && len(name) <= 64 && letter(rune(name[0])) && !strings.ContainsFunc(name, other)
}

// NewContainer makes the directory of a container, of which this process is the supervisor, and holds it until
// [Home.Close]. What is known of it so far is c. An empty name is replaced by one that is free.
func (r Root) NewContainer(c Container) (*Home, error) {
	if c.Name == "" {
		c.Name = "c" + strings.ToLower(rand.Text()[:8])
	}
	if !validName(c.Name) {
		return nil, fmt.Errorf("container %q: %w", c.Name, errName)
	}
	c.Created, c.Supervisor = time.Now(), os.Getpid() // for whoever wants to be rid of it before it has begun
	var err error
	if c.Start, err = startTime(c.Supervisor); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	parent, err := r.sub("containers")
	if err != nil {
		return nil, err
	}
	held, err := lockDir(parent) // against sweep, which would take what is being made for left over
	if err != nil {
		return nil, err
	}
	defer held.Close()
	sweep(parent)
	return makeHome(parent, c)
}

// makeHome builds a container's directory aside, lock held, and lets it appear under its name.
func makeHome(parent string, c Container) (_ *Home, err error) {
	name := c.Name
	temp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", name, err)
	}
	h := &Home{dir: filepath.Join(parent, name), first: c}
	defer func() {
		if err != nil {
			h.Close()
			os.RemoveAll(temp)
		}
	}()
	if err := makeUpper(temp); err != nil {
		return nil, fmt.Errorf("container %q: %w", name, err)
	}
	if h.lock, err = os.OpenFile(filepath.Join(temp, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("container %q: %w", name, err)
	}
	if _, err := lockFile(h.lock); err != nil {
		return nil, err
	}
	if err := replace(filepath.Join(temp, recordName), c, false); err != nil {
		return nil, err
	}
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, h.dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("container %q exists; pass another --name, or remove it: unionfsd rm %s", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", name, err)
	}
	return h, nil
}

// Name is the name of the container.
func (h *Home) Name() string { return filepath.Base(h.dir) }

// Upper is the path of the writable layer.
func (h *Home) Upper() string { return filepath.Join(h.uppers(), "upper") }

// Work is the path of the staging directory that belongs to Upper.
func (h *Home) Work() string { return filepath.Join(h.uppers(), "work") }

func (h *Home) uppers() string { return cmp.Or(h.upper, h.dir) }

// PutUppers makes the upper layers of the container be in dir, an empty directory elsewhere.
func (h *Home) PutUppers(dir string) error {
	h.upper = dir
	return makeUpper(dir)
}

// makeUpper makes the upper layer of a container, and the work directory, in dir. The upper layer becomes the root directory
// of the container, so its mode is that of a root directory; the directory around it keeps others out.
func makeUpper(dir string) error {
	upper := filepath.Join(dir, "upper")
	return errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(filepath.Join(dir, "work"), 0o700), os.Chmod(upper, 0o755)) // whatever the umask
}

// Etc is the path of a directory for files that the container sees in /etc; it need not exist.
func (h *Home) Etc() string { return filepath.Join(h.dir, "etc") }

// Points is the path of a directory for a layer of mount points; it need not exist.
func (h *Home) Points() string { return filepath.Join(h.dir, "points") }

// MakeBranch makes an upper layer and a work directory for one more union, besides the one of the container's root.
func (h *Home) MakeBranch() (upper, work string, err error) {
	dir, err := h.branch(h.uppers())
	upper, work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, sub := range []string{upper, work} {
		if err == nil {
			err = os.Mkdir(sub, 0o700)
		}
	}
	return upper, work, err
}

// MakeFile makes one more file that the container has of its own.
func (h *Home) MakeFile() (*os.File, error) {
	dir, err := h.branch(h.dir)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func (h *Home) branch(dir string) (string, error) {
	h.made++
	dir = filepath.Join(dir, "branches", strconv.Itoa(h.made))
	return dir, os.MkdirAll(dir, 0o700)
}

// Volumes is the path of the directory for the volumes of its image; it need not exist.
func (h *Home) Volumes() string { return filepath.Join(h.dir, "volumes") }

// HostParts is the path of a directory for a layer that has the names of the host's root directory; it need not exist.
func (h *Home) HostParts() string { return filepath.Join(h.dir, "host") }

// Log is the path of the file that takes what a detached container writes.
func (h *Home) Log() string { return filepath.Join(h.dir, logName) }

// ListenControl makes the control socket of the container, on which other commands ask its supervisor.
func (h *Home) ListenControl() (net.Listener, error) {
	return listen(filepath.Join(h.dir, controlName), h.Name())
}

// First is what was known of the container when it was made.
func (h *Home) First() Container { return h.first }

// Save makes c what is known of the container. It does not wait for the disk, nor does [Root.NewContainer]: nobody who
// starts a program should. Of what a crash of the machine makes of that, [Root.Container] makes the best.
func (h *Home) Save(c Container) error {
	return replace(filepath.Join(h.dir, recordName), c, false)
}

// Keep is Save for what is to be known after a crash of the machine, too.
func (h *Home) Keep(c Container) error {
	return write(filepath.Join(h.dir, recordName), c)
}

// Close lets go of the container; it stays on disk, no longer running.
func (h *Home) Close() error {
	if h.lock == nil {
		return nil
	}
	return h.lock.Close()
}

// Remove removes the container with all that it wrote, and lets go of it.
func (h *Home) Remove() error {
	err := remove(h.dir)
	h.Close()
	return err
}

// Containers returns all containers, sorted by name.
func (r Root) Containers() ([]Container, error) {
	entries, err := os.ReadDir(filepath.Join(r.dir, "containers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state: %w", err)
	}
	var list []Container
	for _, e := range entries {
		if !validName(e.Name()) {
			continue
		}
		c, err := r.Container(e.Name())
		if errors.Is(err, ErrNoContainer) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// Container returns one container; the error matches [ErrNoContainer] if there is none of that name.
func (r Root) Container(name string) (Container, error) {
	missing := fmt.Errorf("container %q: %w", name, ErrNoContainer)
	if !validName(name) {
		return Container{}, missing
	}
	dir := filepath.Join(r.dir, "containers", name)
	// First the lock: a container that ends in between is then told as running, never as one that died.
	running, err := locked(filepath.Join(dir, "lock"))
	var c Container
	if err == nil {
		err = read(filepath.Join(dir, recordName), &c)
	}
	if _, broken := errors.AsType[*json.SyntaxError](err); broken && !running { // empty, by a crash of the machine
		c, err = Container{Name: name}, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Container{}, missing
	}
	if err != nil {
		return Container{}, fmt.Errorf("state: %w", err)
	}
	c.Running = running
	return c, nil
}

// LogFile is the path of the log of a container.
func (r Root) LogFile(name string) string {
	return filepath.Join(r.dir, "containers", name, logName)
}

// DialControl connects to the supervisor of the container name; the error matches [ErrNotRunning] if it has none.
func (r Root) DialControl(ctx context.Context, name string) (net.Conn, error) {
	c, err := r.Container(name)
	if err != nil {
		return nil, err
	}
	stopped := fmt.Errorf("container %q %w", name, ErrNotRunning)
	if !c.Running {
		return nil, stopped
	}
	conn, err := dial(ctx, filepath.Join(r.dir, "containers", name, controlName))
	if errors.Is(err, ErrNoControl) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, stopped // it begins, or has just ended
	}
	return conn, err
}

// AwaitEnd returns when the container has no supervisor any more, or is removed.
func (r Root) AwaitEnd(ctx context.Context, name string) error {
	for {
		running, err := locked(filepath.Join(r.dir, "containers", name, "lock"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !running {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// RemoveContainer removes a container that does not run, with all that it wrote.
func (r Root) RemoveContainer(name string) error {
	c, err := r.Container(name)
	if err != nil {
		return err
	}
	dir := filepath.Join(r.dir, "containers", name)
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("container %q: %w", name, err)
	}
	h := &Home{dir: dir, lock: lock}
	free, err := lockFile(lock)
	if err != nil || !free {
		h.Close()
		if err == nil {
			err = fmt.Errorf("container %q is %s; stop it first: unionfsd stop %s, or pass --force", name, c.Status(), name)
		}
		return err
	}
	return h.Remove()
}

// gone marks the directory of a container that is being removed.
const gone = ".gone-"

// remove takes a container's directory out of sight by one rename before it removes it bit by bit.
func remove(dir string) error {
	parent, name := filepath.Split(dir)
	aside := filepath.Join(parent, gone+strings.ToLower(rand.Text()[:12]))
	if err := os.Rename(dir, aside); err != nil {
		return fmt.Errorf("remove container %q: %w", name, err)
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove container %q: %w", name, err)
	}
	return nil
}

// sweep removes what creations and removals left over that were killed half way. It is called with parent held, so
// that no creation is under way. What it cannot remove, the next one tries again.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".new-") || strings.HasPrefix(e.Name(), gone) {
			os.RemoveAll(filepath.Join(parent, e.Name()))
		}
	}
}
