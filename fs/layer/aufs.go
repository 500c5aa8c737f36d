package layer

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// AUFSPrefix begins the names of AUFS's marks; package whiteout knows what they mean.
const AUFSPrefix = ".wh."

// aufsNames are the names in one directory that begin with AUFSPrefix. Most directories have none, and to ask each of
// them for the mark of each name that it lacks would double the cost of looking up. So all are read at once.
type aufsNames struct {
	mu    sync.Mutex
	names map[string]struct{} // nil until they are read
	read  unix.Stat_t         // the directory before that
	next  time.Time           // when to look whether it has changed
	sure  bool                // a change since then would show in read
}

// How old the names of a lower directory, which may be edited on the host, may be; and how long after a change another
// one may leave the same time stamp, with the clocks of all file systems that count less than a second.
const (
	aufsFresh = 50 * time.Millisecond
	sameStamp = 50 * time.Millisecond
)

// AUFSName reports whether the directory has the entry name, which begins with AUFSPrefix. Of a lower directory the
// answer may be 50 ms old.
func (d *Dir) AUFSName(name string) (bool, error) {
	a := &d.aufs
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refresh(d); err != nil {
		return false, err
	}
	_, has := a.names[name]
	return has, nil
}

func (a *aufsNames) refresh(d *Dir) error {
	const upper = -1
	now := time.Now()
	if a.names != nil && (d.layer.Pos == upper || now.Before(a.next)) { // all that happens in the upper layer we do
		return nil
	}
	var st unix.Stat_t
	if err := d.Self().Stat(&st); err != nil {
		return err
	}
	if a.names == nil || !a.sure || st.Mtim != a.read.Mtim || st.Ctim != a.read.Ctim {
		names := map[string]struct{}{}
		err := d.Entries(func(e sys.Dirent) error {
			if name := string(e.Name); strings.HasPrefix(name, AUFSPrefix) {
				names[name] = struct{}{}
			}
			return nil
		})
		if err != nil {
			return err
		}
		a.names, a.read = names, st
		a.sure = now.Sub(time.Unix(st.Ctim.Unix())) > sameStamp
	}
	a.next = now.Add(aufsFresh)
	return nil
}

// ForgetAUFSNames makes AUFSName read the names again.
func (d *Dir) ForgetAUFSNames() {
	d.aufs.mu.Lock()
	defer d.aufs.mu.Unlock()
	d.aufs.names = nil
}

// MakeAUFSName makes the entry name, which begins with AUFSPrefix, if it is not there. It is an empty file that nobody
// may write to, as AUFS makes them.
func (d *Dir) MakeAUFSName(name string) error {
	a := &d.aufs
	a.mu.Lock()
	defer a.mu.Unlock()
	fd, err := d.Create(name, unix.O_WRONLY, 0o444)
	if err != nil && err != unix.EEXIST {
		return err
	}
	if err == nil {
		unix.Close(fd)
	}
	if a.names != nil {
		a.names[name] = struct{}{}
	}
	return nil
}
