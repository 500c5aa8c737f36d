package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/cgroup"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/ns"
)

// launch is a container to be run: all that the process needs to know that does it. Paths of the host are absolute.
// Where it comes from, flags or the configuration of an image, it does not say.
type launch struct {
	StateRoot string
	Name      string // empty: one is made up
	Remove    bool   // when it ends
	Detached  bool
	Verbose   bool

	TmpUpper string // size of a tmpfs that its upper layers are on, for mount(2); empty: they are on disk

	Spec    layer.Spec // without an upper layer, it gets one of its own
	Backend string     // fuse, kernel or auto
	Rootfs  string     // what is told to be its root file system
	Image   string     // id of the image that the layers are of, if they are

	Program    program
	Hostname   string // empty: its name
	StopSignal int    // 0: SIGTERM

	ReadOnly       bool
	Mounts         []mountSpec
	Volumes        []string // paths that the image says are volumes
	PrivateNetwork bool
	Hosts          []string // lines for /etc/hosts
	Limits         []ns.Limit
	Cgroup         cgroup.Limits
	Security       ns.Security
	Users          string // whose ids it has, "auto" or "keep-id"; empty: those of the host

	PIDFile  string
	StatusFD int // 0: none
}

// program is a process to be run in a container. Of the host's it has the three standard files, or a terminal that is
// relayed to them.
type program struct {
	Argv, Env []string
	Dir, User string
	Terminal  bool
}

// process returns what package ns starts.
func (p program) process(stdin, stdout, stderr *os.File) ns.Process {
	return ns.Process{Argv: p.Argv, Env: p.Env, Dir: p.Dir, User: p.User, Terminal: p.Terminal,
		Stdin: stdin, Stdout: stdout, Stderr: stderr}
}

// supervisor runs one container, from its making to its end.
type supervisor struct {
	launch
	app   *app
	root  state.Root
	home  *state.Home
	group *cgroup.Group // nil without limits
	begun func()        // gives signals up that until then end the start
	mask  []string      // where the state root is seen in the container

	ids         *os.File          // holds the ids that it has for its own; nil if it has none
	users       *ns.UserNamespace // of the container's own; nil if it has none
	memory      *os.File          // the tmpfs that its upper layers are on; nil if there is none
	nested      bool              // this process is root in a user namespace only
	view        mount.View        // the root
	views       []mount.View      // all unions, that of the root first
	parts       []hostMount       // what the "/" of the host is put together of, if it is
	branches    []state.Branch    // those that are mounted in it
	mounts      []ns.Mount        // all that is mounted in it
	closeMounts func()            // closes their descriptors; may be called again

	mu     sync.Mutex
	record state.Container // what is known of it; on disk, but for what changes at its end
	inside *ns.Container
	log    *containerLog // nil if not detached
}

// supervise runs a container in this process, and calls started with its name when its program runs. The code is what
// to exit with, also with an error.
func (a *app) supervise(ctx context.Context, l launch, started func(name string) error) (code int, err error) {
	began := time.Now()
	s := &supervisor{launch: l, app: a}
	// Until the program runs, signals end what is being made for it, and all of that; then they are the program's.
	ctx, s.begun = signal.NotifyContext(ctx, slices.DeleteFunc(endSignals(), signal.Ignored)...)
	defer s.begun()
	if s.root, err = state.At(l.StateRoot); err != nil {
		return exitSelf, err
	}
	status, err := newStatus(l)
	if err != nil {
		return exitSelf, err
	}
	defer status.close()
	s.home, err = s.root.NewContainer(state.Container{
		Name:       l.Name,
		Backend:    l.Backend,
		Spec:       state.Text(l.Spec.String()),
		Rootfs:     state.Text(l.Rootfs),
		Image:      l.Image,
		Command:    state.Texts(l.Program.Argv),
		Detached:   l.Detached,
		TmpUpper:   l.TmpUpper != "",
		PIDFile:    state.Text(l.PIDFile),
		Remove:     l.Remove,
		StopSignal: l.StopSignal,
		Users:      l.Users,
	})
	if err != nil {
		return exitSelf, err
	}
	s.record = s.home.First()
	ran := false // what never ran leaves nothing
	defer func() {
		end := s.home.Remove
		if ran && !l.Remove {
			end = s.home.Close
		}
		if eerr := end(); err == nil && eerr != nil {
			code, err = exitSelf, eerr
		}
	}()
	if err := s.limit(); err != nil {
		return exitSelf, err
	}
	defer func() { err = errors.Join(err, s.unlimit()) }()
	defer s.closeViews()
	if err := s.openRoot(ctx); err != nil {
		return exitSelf, err
	}
	code, err = s.run(ctx, func() error {
		ran = true
		a.counted(s.root.CountStart(time.Since(began)))
		if err := status.started(s.inside.Pid()); err != nil {
			return err
		}
		return started(s.home.Name())
	})
	if ran {
		a.counted(s.root.CountExit(code))
		status.ended(code)
	}
	return code, err
}

// openRoot opens the union that becomes the root, and what is mounted in it.
func (s *supervisor) openRoot(ctx context.Context) (err error) {
	if s.mask, err = stateInside(s.root, s.Spec.Lower); err != nil {
		return err
	}
	inside := len(s.mask) > 0
	host := slices.Index(s.Spec.Lower, "/")
	s.nested = !ns.InInitialUserNamespace()
	if s.nested {
		s.Spec.Options.UserXattr = true // others are not for who is root in a user namespace
	}
	if s.ids, err = s.mapUsers(); err != nil {
		return err
	}
	files, err := s.etcFiles()
	if err != nil {
		return err
	}
	volumes, err := s.makeVolumes(ctx)
	if err != nil {
		return err
	}
	if s.nested && host >= 0 {
		s.Spec.Lower[host], s.mask, inside = s.home.HostParts(), nil, false
		if s.parts, err = hostParts(s.home.HostParts()); err != nil {
			return fmt.Errorf("put together the host's root: %w", err)
		}
	}
	if s.nested {
		if err := nothingMountedIn(s.Spec.Lower); err != nil {
			return err
		}
	}
	specs := slices.Concat(volumes, s.Mounts, files)
	if !inside { // else it would be a layer inside another one
		if s.Spec, err = s.withMountPoints(specs); err != nil {
			return err
		}
	}
	if err := s.inMemory(); err != nil {
		return err
	}
	if s.Spec.Upper == "" {
		s.Spec.Upper, s.Spec.Work = s.home.Upper(), s.home.Work()
		if err := likeRoot(s.Spec.Upper, s.Spec.Lower[0]); err != nil {
			return err
		}
	}
	if s.mounts, s.closeMounts, err = openMounts(specs, s.users); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.closeMounts()
		}
	}()
	raiseDescriptors()
	unix.Umask(0) // the unions are served by this process, and modes are what requests say
	backend := s.Backend
	if s.view, s.Backend, err = s.openUnion(ctx, s.Spec, backend, inside); err != nil {
		return err
	}
	if err := s.openUnions(ctx, backend, specs); err != nil {
		return err
	}
	if host >= 0 {
		return s.openHostTree(ctx, backend, specs)
	}
	return nil
}

// openUnion opens one of the unions of the container, and tells by which backend. The upper layer may be inside a lower one.
func (s *supervisor) openUnion(ctx context.Context, spec layer.Spec, backend string, inside bool) (mount.View, string, error) {
	b, err := s.app.chooseBackend(ctx, backend, spec)
	if err != nil {
		return nil, "", err
	}
	name := b.Name()
	if o, ok := b.(overlayfs.Backend); ok {
		// What is inside is covered in the container, and this process holds the view.
		o.AllowInside, o.MapIDs = inside, true
		b = o
	}
	view, err := b.Open(ctx, spec)
	if err == nil {
		s.views = append(s.views, view)
	}
	return view, name, err
}

// closeViews ends the unions.
func (s *supervisor) closeViews() {
	for _, v := range s.views {
		v.Close()
	}
	if s.ids != nil {
		s.ids.Close()
	}
	if s.memory != nil {
		s.memory.Close()
	}
}

// run runs the program in the view and returns its exit code. It calls started when the program runs.
func (s *supervisor) run(ctx context.Context, started func() error) (code int, err error) {
	defer s.closeMounts()
	if err := interrupted(ctx); err != nil {
		return exitSelf, err
	}
	stdin, stdout, stderr := os.Stdin, os.Stdout, os.Stderr
	if s.Detached {
		stdin = nil
		if s.log, err = newLog(s.home.Log()); err != nil {
			return exitSelf, err
		}
		defer s.log.close()
		if stdout, stderr, err = s.log.pipes(); err != nil {
			return exitSelf, err
		}
	}
	hostname := s.Hostname
	if hostname == "" {
		hostname = s.home.Name()
	}
	s.Program.Env = append(ns.DefaultEnv(hostname, s.term()), s.Program.Env...)
	group, err := s.openGroup()
	if err != nil {
		return exitSelf, err
	}
	defer group.Close()
	inside, err := ns.Start(ns.Config{
		Process:        s.Program.process(stdin, stdout, stderr),
		Root:           s.view.FD(),
		ReadOnly:       s.ReadOnly,
		Mounts:         s.mounts,
		Mask:           s.mask,
		Hostname:       hostname,
		PrivateNetwork: s.PrivateNetwork,
		Limits:         s.Limits,
		Cgroup:         group,
		Security:       s.Security,
		NestedUsers:    s.nested,
		Users:          s.users,
	})
	if s.Detached { // the program has them now
		stdout.Close()
		stderr.Close()
	}
	if err != nil {
		return startCode(err), err
	}
	s.inside = inside
	// From here on the container alone holds what is mounted in it, whatever becomes of this process: see Release.
	s.closeMounts()
	for _, v := range s.views {
		err = errors.Join(err, v.Release())
	}
	defer inside.Forward()()
	err = errors.Join(err, interrupted(ctx))
	s.begun()
	if err != nil {
		s.inside.Signal(syscall.SIGKILL)
		_, werr := s.inside.Wait()
		return exitSelf, errors.Join(err, werr)
	}
	if master := inside.Terminal(); master != nil && s.Detached {
		s.log.take(master, streamOut)
	} else if master != nil {
		defer relay(master)()
	}
	return s.attend(started)
}

// endSignals are what tells a command to end.
func endSignals() []os.Signal {
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}
}

// interrupted is an error if a signal has ended ctx.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("told to end before the program ran: %w", context.Cause(ctx))
}

// attend is with a running container until it ends, and notes how that was.
func (s *supervisor) attend(started func() error) (code int, err error) {
	lost := make(chan error, len(s.views))
	for _, view := range s.views {
		go func() {
			// A program whose root is dead can do nothing but wait for it.
			if err := view.Wait(); err != nil {
				lost <- err
				s.inside.Signal(syscall.SIGKILL)
			}
		}()
	}
	failed := s.update(func(c *state.Container) {
		c.Backend, c.Spec, c.PID, c.Branches = s.Backend, state.Text(s.Spec.String()), s.inside.Pid(), s.branches
	})
	if failed == nil {
		var closeControl func()
		if closeControl, failed = s.listen(); failed == nil {
			defer closeControl()
			failed = started()
		}
	}
	kept := make(chan error, 1)
	go func() { kept <- s.keep() }()
	if failed != nil {
		s.inside.Signal(syscall.SIGKILL)
	}
	code, err = s.inside.Wait()
	if failed != nil {
		err = failed
	}
	select {
	case err = <-lost:
		err = fmt.Errorf("its root file system was lost: %w", err)
	default:
	}
	killed, oerr := s.outOfMemory()
	if err = errors.Join(err, oerr); err != nil {
		code = exitSelf
	}
	serr := s.update(func(c *state.Container) {
		c.ExitCode, c.Paused, c.OOMKills = &code, false, killed
		if err != nil {
			c.Reason = err.Error()
		}
	})
	return code, errors.Join(err, <-kept, serr, s.keep())
}

// keep writes what is known of the container to the disk, for diff to know its layers after a crash of the machine. Of one
// that removes itself nobody will ask.
func (s *supervisor) keep() error {
	if s.Remove {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.home.Keep(s.record)
}

// update changes what is known of the container.
func (s *supervisor) update(change func(*state.Container)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.record)
	return s.home.Save(s.record)
}

// term is the type of terminal that a program is told.
func (s *supervisor) term() string {
	if s.Detached {
		if s.Program.Terminal {
			return "xterm"
		}
		return ""
	}
	return os.Getenv("TERM")
}

// startCode is what a command exits with that could not start its program.
func startCode(err error) int {
	if nerr, ok := errors.AsType[*ns.Error](err); ok {
		return nerr.ExitCode()
	}
	return exitSelf
}

// supervisorName is the name under which unionfsd starts itself to supervise a detached container.
const supervisorName = "unionfsd-supervisor"

// detach starts a process that supervises the container, and returns its name when its program runs.
func (l launch) detach() (name string, code int, err error) {
	name, code, err = startDaemon(supervisorName, l.Name, l)
	if err != nil && code <= exitFailed {
		code = exitSelf
	}
	return name, code, err
}

// detachedSupervisor is the whole life of the process that detach starts. It returns the exit code.
func detachedSupervisor() int {
	var l launch
	return runDaemon(&l, func(report reportFunc) (int, error) {
		// Taken, not ignored: what is ignored stays so in the programs of the container.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
		a := &app{stdout: io.Discard, stderr: os.Stderr, verbose: l.Verbose}
		return a.supervise(context.Background(), l, report)
	})
}

// likeRoot gives the upper layer, whose root becomes the root directory of the container, owner and mode of the
// root of the topmost lower layer, which it covers. In a user namespace the owner may be nobody that can be named.
func likeRoot(upper, lower string) error {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return fmt.Errorf("lower layer %q: %w; name an existing directory", lower, err)
	}
	err := unix.Chown(upper, int(st.Uid), int(st.Gid))
	if err != nil && err != unix.EINVAL && err != unix.EPERM {
		return fmt.Errorf("owner of upper layer %q: %w", upper, err)
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("mode of upper layer %q: %w", upper, err)
	}
	return nil
}

// stateInside returns where the state root would be seen in a union of the layers lower: where it lies in one of
// them. The upper layers of all containers are in it.
func stateInside(root state.Root, lower []string) ([]string, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	real, err := realPath(root.Dir())
	if err != nil {
		return nil, err
	}
	var mask []string
	for _, dir := range lower {
		if rel, ok := mountinfo.Inside(entries, real, dir); ok {
			mask = append(mask, rel)
		}
	}
	return mask, nil
}

// nothingMountedIn is an error if something is mounted in a lower layer. What is beneath may be hidden from who is root
// only in a user namespace: the mount cannot be cloned without what is mounted on it (has_locked_children in the kernel).
func nothingMountedIn(lower []string) error {
	entries, err := mountinfo.Read()
	if err != nil {
		return err
	}
	for _, dir := range lower {
		for _, e := range entries {
			if strings.HasPrefix(e.MountPoint, strings.TrimSuffix(dir, "/")+"/") && e.MountPoint != "/" {
				return fmt.Errorf("lower layer %q has another file system mounted on %q: name a directory that has none, or run as root", dir, e.MountPoint)
			}
		}
	}
	return nil
}
