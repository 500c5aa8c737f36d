package holders

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// Holder is one thing that holds a file system.
type Holder struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	Use     string `json:"use"`  // cwd, root, map, mount, or the number of a descriptor
	Mode    string `json:"mode"` // of a descriptor: read, write or path; else empty
	Path    string `json:"path"`

	namespace string // of a mount
}

func (h Holder) String() string {
	return fmt.Sprintf("%d (%s) %s %s", h.PID, h.Command, h.Use, h.Path)
}

// Directory returns the inode number of what h holds, if that is a directory that it has open or works in. The file system
// is not asked.
func (h Holder) Directory() (ino uint64, ok bool) {
	link := fmt.Sprintf("/proc/%d/", h.PID)
	switch h.Use {
	case "mount", "map":
		return 0, false
	case "cwd", "root":
		link += h.Use
	default:
		link += "fd/" + h.Use
	}
	var stx unix.Statx_t
	err := statCached(link, &stx)
	return stx.Ino, err == nil && stx.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Search looks for the holders of one file system.
type Search struct {
	dev    uint64
	id     string
	here   string          // the mount namespace of this process
	mounts map[string]bool // ids of its mounts, in all mount namespaces
	others list            // mounts that do not come and go with the one that was asked for
}

// NewSearch finds the mounts of the file system with the given st_dev, which is mounted as the mount id. Other mounts of
// it are holders, unless they come and go with this one.
func NewSearch(dev uint64, id string) (*Search, error) {
	s := &Search{dev: dev, id: id}
	return s, s.findMounts()
}

// All returns who holds the file system now.
func (s *Search) All() ([]Holder, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	found := append(list(nil), s.others...)
	for _, pid := range pids {
		found.directories(s, pid)
		found.descriptors(s, pid)
		found.mapped(s, pid)
	}
	return found, nil
}

// Open returns who has something of the file system open, or as a working or root directory. It takes a fraction of the
// time of All, which also looks for what is mapped.
func (s *Search) Open() ([]Holder, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var found list
	for _, pid := range pids {
		found.directories(s, pid)
		found.descriptors(s, pid)
	}
	return found, nil
}

func processes() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, e.Name())
		}
	}
	return pids, nil
}

// findMounts looks through every mount namespace that some process is in.
func (s *Search) findMounts() error {
	pids, err := processes()
	if err != nil {
		return err
	}
	own, err := mountinfo.Read()
	if err != nil {
		return err
	}
	s.mounts, s.others = map[string]bool{}, nil
	group := peerGroup(own, s.id)
	s.here, _ = os.Readlink("/proc/self/ns/mnt")
	s.mountsOf("self", s.here, own, group)
	seen := map[string]bool{s.here: true, "": true}
	for _, pid := range pids {
		ns, _ := os.Readlink("/proc/" + pid + "/ns/mnt")
		if seen[ns] {
			continue
		}
		seen[ns] = true
		if entries, err := mountinfo.ReadOf(pid); err == nil { // else it has ended
			s.mountsOf(pid, ns, entries, group)
		}
	}
	return nil
}

// peerGroup returns the peer group that an unmount of the mount id spreads to (mount_namespaces(7)): that of the mount
// which it is on.
func peerGroup(entries []mountinfo.Entry, id string) string {
	parent := ""
	for _, e := range entries {
		if e.ID == id {
			parent = e.Parent
		}
	}
	for _, e := range entries {
		if e.ID == parent {
			return e.Shared
		}
	}
	return ""
}

// mountsOf notes the mounts of the file system in the namespace of pid. Those that do not go with the one that was asked
// for are holders.
func (s *Search) mountsOf(pid, namespace string, entries []mountinfo.Entry, group string) {
	parents := map[string]mountinfo.Entry{}
	for _, e := range entries {
		parents[e.ID] = e
	}
	for _, e := range entries {
		if e.Device() != s.dev {
			continue
		}
		s.mounts[e.ID] = true
		parent := parents[e.Parent]
		goesToo := group != "" && (parent.Shared == group || parent.Master == group)
		if e.ID != s.id && !goesToo {
			s.others.add(pid, Holder{Use: "mount", Path: e.MountPoint, namespace: namespace})
		}
	}
}

// list collects holders. What cannot be read of a process is not there any more, or not to be seen.
type list []Holder

func (l *list) add(pid string, h Holder) {
	if pid == "self" {
		pid = strconv.Itoa(os.Getpid())
	}
	h.PID, _ = strconv.Atoi(pid)
	comm, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return // it has ended meanwhile
	}
	h.Command = strings.TrimSuffix(string(comm), "\n")
	*l = append(*l, h)
}

func (l *list) directories(s *Search, pid string) {
	for _, use := range []string{"cwd", "root"} {
		link := "/proc/" + pid + "/" + use
		if !s.leadsHere(link) {
			continue
		}
		if id, ok := mountOfLink(link); ok && s.mounts[id] {
			path, _ := os.Readlink(link)
			l.add(pid, Holder{Use: use, Path: path})
		}
	}
}

func (l *list) descriptors(s *Search, pid string) {
	dir := "/proc/" + pid
	fds, _ := os.ReadDir(dir + "/fd")
	for _, e := range fds {
		if !s.leadsHere(dir + "/fd/" + e.Name()) {
			continue
		}
		if d, ok := descriptorOf(dir, e.Name()); ok && s.mounts[d.mount] {
			l.add(pid, Holder{Use: e.Name(), Mode: d.mode, Path: d.path})
		}
	}
}

// leadsHere reports whether a link in /proc leads to the file system, maybe by a mount that is not in the search. It costs
// less than to find out by which.
func (s *Search) leadsHere(link string) bool {
	var stx unix.Statx_t
	err := statCached(link, &stx)
	return err == nil && unix.Mkdev(stx.Dev_major, stx.Dev_minor) == s.dev
}

// statCached describes what a link in /proc leads to, as far as the kernel knows. The file system is not asked.
func statCached(link string, stx *unix.Statx_t) error {
	return unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, stx)
}

// mapped looks for mapped files: programs that run, libraries, mmap(2).
func (l *list) mapped(s *Search, pid string) {
	text, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		return
	}
	dev := fmt.Appendf(nil, "%02x:%02x", unix.Major(s.dev), unix.Minor(s.dev))
	if !bytes.Contains(text, dev) {
		return
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) { // address perms offset dev inode path
		f := strings.Fields(line)
		if len(f) < 6 || f[3] != string(dev) || seen[f[4]] {
			continue
		}
		seen[f[4]] = true
		l.add(pid, Holder{Use: "map", Path: line[strings.IndexByte(line, '/') : len(line)-1]})
	}
}

// mountOfLink is the id of the mount that a link in /proc leads to.
func mountOfLink(link string) (id string, ok bool) {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	d, ok := descriptorOf("/proc/self", strconv.Itoa(fd))
	return d.mount, ok
}

// descriptor is what /proc tells of one.
type descriptor struct {
	mount string // id
	mode  string // see Holder
	path  string
}

func descriptorOf(dir, fd string) (descriptor, bool) {
	path, err := os.Readlink(dir + "/fd/" + fd)
	if err != nil || !strings.HasPrefix(path, "/") { // a pipe, a socket
		return descriptor{}, false
	}
	info, err := os.ReadFile(dir + "/fdinfo/" + fd)
	if err != nil {
		return descriptor{}, false
	}
	d := descriptor{path: path, mode: "read"}
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "mnt_id":
			d.mount = value
		case "flags":
			flags, _ := strconv.ParseUint(value, 8, 32)
			if flags&unix.O_PATH != 0 {
				d.mode = "path"
			} else if flags&unix.O_ACCMODE != unix.O_RDONLY {
				d.mode = "write"
			}
		}
	}
	return d, true
}

// holds reports whether h, which was found before, is there still, as far as can be told.
func (s *Search) holds(h Holder) bool {
	dir := "/proc/" + strconv.Itoa(h.PID)
	switch h.Use {
	case "mount": // by whichever process of the namespace
		return slices.ContainsFunc(s.others, func(o Holder) bool { return o.namespace == h.namespace && o.Path == h.Path })
	case "cwd", "root":
		id, ok := mountOfLink(dir + "/" + h.Use)
		return ok && s.mounts[id]
	case "map":
		var now list
		now.mapped(s, strconv.Itoa(h.PID))
		return slices.Contains(now, h)
	default:
		d, ok := descriptorOf(dir, h.Use)
		return ok && s.mounts[d.mount] && d.path == h.Path
	}
}

// elsewhere reports whether h is a mount in another namespace.
func (s *Search) elsewhere(h Holder) bool { return h.Use == "mount" && h.namespace != s.here }
