package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// Mount is one union in the file tree.
type Mount struct {
	Mountpoint Text      `json:"mountpoint"`
	Backend    string    `json:"backend"`             // "fuse" or "kernel"
	Transport  string    `json:"transport,omitempty"` // what carries the requests to the process that serves it
	PID        int       `json:"pid,omitempty"`       // of the process that serves it; 0 where the kernel does
	Start      uint64    `json:"pid_start,omitempty"` // when that process started, as /proc/PID/stat has it
	Spec       Text      `json:"spec"`                // as mount options; empty where it is not known
	Since      time.Time `json:"since,omitzero"`
	Metrics    string    `json:"metrics,omitempty"` // where they are served over HTTP, besides the control socket

	// What the mount is to the kernel, so that another one on the same directory is not taken for it.
	Dev       string `json:"dev"`
	FSType    string `json:"fstype"`
	Namespace string `json:"namespace"` // mount namespace, as the link /proc/self/ns/mnt has it
	Boot      string `json:"boot"`

	file string // of the record; empty for a union without one
}

// AddMount records that the union mounted last on m.Mountpoint is m. The returned Mount is what [Root.DropMount]
// takes; it says what is mounted also where the record could not be written.
func (r Root) AddMount(m Mount) (Mount, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return m, err
	}
	entry, ok := mountinfo.Top(entries, string(m.Mountpoint))
	if !ok {
		return m, fmt.Errorf("record of %q: nothing is mounted there", m.Mountpoint)
	}
	m.Dev, m.FSType, m.Since = entry.Dev, entry.FSType, time.Now()
	if m.Namespace, m.Boot, err = here(); err != nil {
		return m, err
	}
	if m.PID != 0 {
		if m.Start, err = startTime(m.PID); err != nil {
			return m, fmt.Errorf("state: %w", err)
		}
	}
	dir, err := r.sub("mounts")
	if err != nil {
		return m, err
	}
	m.file = filepath.Join(dir, strings.ToLower(rand.Text()[:12])+".json")
	return m, write(m.file, m)
}

// DropMount forgets the record of m, if there is one.
func (r Root) DropMount(m Mount) error {
	if m.file == "" {
		return nil
	}
	for _, file := range []string{m.file, m.socket()} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state: %w", err)
		}
	}
	return nil
}

// Mounts returns the unions in this mount namespace, in the order of mountinfo. What has a record is told from it;
// an overlay or a union of ours without one, from what mountinfo says. Records that no mount can have any more are
// dropped.
func (r Root) Mounts() ([]Mount, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	records, err := r.records()
	if err != nil {
		return nil, err
	}
	namespace, boot, err := here()
	if err != nil {
		return nil, err
	}
	var unions []Mount
	for _, e := range entries {
		if i := indexOf(records, e, boot); i >= 0 {
			unions = append(unions, records[i])
			records = append(records[:i], records[i+1:]...)
		} else if u, ok := unrecorded(e); ok {
			unions = append(unions, u)
		}
	}
	return unions, r.dropStale(records, namespace, boot)
}

// records reads all records. One that cannot be read is an error, not a union less: it says what to look at.
func (r Root) records() ([]Mount, error) {
	files, err := filepath.Glob(escapeGlob(filepath.Join(r.dir, "mounts")) + "/*.json")
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var list []Mount
	for _, file := range files {
		m := Mount{file: file}
		switch err := read(file, &m); {
		case errors.Is(err, fs.ErrNotExist): // dropped since it was listed
		case err != nil:
			return nil, fmt.Errorf("state: %w; remove the file if its mount is gone", err)
		default:
			list = append(list, m)
		}
	}
	// The newest first: of two that could be of one mount, the older one was left behind by a killed process.
	sort.Slice(list, func(i, j int) bool { return list[i].Since.After(list[j].Since) })
	return list, nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// indexOf returns the record of a mount, or -1. It is known by where it is and by its file system: mount ids differ
// between copies of a mount namespace, device numbers do not, until the next boot.
func indexOf(records []Mount, e mountinfo.Entry, boot string) int {
	for i, m := range records {
		if string(m.Mountpoint) == e.MountPoint && m.Dev == e.Dev && m.FSType == e.FSType && m.Boot == boot {
			return i
		}
	}
	return -1
}

// unrecorded tells of a union that has no record here: made by mount(8), by another state root, or before the state
// was lost.
func unrecorded(e mountinfo.Entry) (Mount, bool) {
	m := Mount{Mountpoint: Text(e.MountPoint), Dev: e.Dev, FSType: e.FSType}
	switch {
	case e.FSType == "overlay":
		m.Backend, m.Spec = "kernel", Text(specOf(e.Options))
	case e.FSType == "fuse.unionfsd":
		m.Backend = "fuse"
	default:
		return Mount{}, false
	}
	return m, true
}

// specOf turns what the kernel's overlayfs shows of its options into what it would accept again. Most values are
// shown as they are; lowerdir= as it was given, so with its backslashes. What stands for a name may hold commas.
func specOf(shown string) string {
	var options []string
	for _, option := range strings.Split(shown, ",") {
		name, value, hasValue := strings.Cut(mountinfo.Unescape(option), "=")
		if !hasValue {
			options = append(options, name)
			continue
		}
		if name != "lowerdir" {
			value = strings.ReplaceAll(value, `\`, `\\`)
		}
		options = append(options, name+"="+strings.NewReplacer(`,`, `\,`, `"`, `\"`).Replace(value))
	}
	return strings.Join(options, ",")
}

// dropStale removes those of records, none of which is mounted here, that are of this mount namespace, where they
// would be seen, or of before the last boot.
func (r Root) dropStale(records []Mount, namespace, boot string) error {
	for _, m := range records {
		// A record may be younger than the list of mounts that it was not found in.
		young := time.Since(m.Since) < 10*time.Second
		if m.Boot != boot || m.Namespace == namespace && !young {
			if err := r.DropMount(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// here names the mount namespace and the boot that this process lives in.
func here() (namespace, boot string, err error) {
	namespace, err = os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return "", "", fmt.Errorf("state: %w", err)
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", "", fmt.Errorf("state: %w", err)
	}
	return namespace, strings.TrimSpace(string(id)), nil
}
