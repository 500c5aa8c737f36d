package layer

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// IDRange is one line of an id map: Count ids from Disk on, as they are in the layers, are shown as those from Shown
// on.
type IDRange struct{ Disk, Shown, Count uint32 }

// IDMap says how the users or the groups that own files are shown, as uidmapping= and gidmapping= of fuse-overlayfs(1)
// do. None is changed by an empty one.
type IDMap []IDRange

// parseIDMap reads triples of numbers with colons between all of them, and one before the first perhaps, as container
// engines write it.
func parseIDMap(name, text string) (IDMap, error) {
	wrong := func(why string) (IDMap, error) {
		return nil, fmt.Errorf("option %s=%s: %s: write %s=DISK:SHOWN:COUNT[:DISK:SHOWN:COUNT]", name, text, why, name)
	}
	fields := strings.Split(strings.TrimPrefix(text, ":"), ":")
	if len(fields)%3 != 0 {
		return wrong("it must be triples of numbers")
	}
	var m IDMap
	for ; len(fields) > 0; fields = fields[3:] {
		var n [3]uint32
		for i := range n {
			v, err := strconv.ParseUint(fields[i], 10, 32)
			if err != nil || v == noID {
				return wrong(fmt.Sprintf("%q is no id", fields[i]))
			}
			n[i] = uint32(v)
		}
		r := IDRange{Disk: n[0], Shown: n[1], Count: n[2]}
		if r.Count == 0 || r.Disk > noID-r.Count || r.Shown > noID-r.Count {
			return wrong("a range is empty or leads beyond the last id")
		}
		m = append(m, r)
	}
	return m, nil
}

// noID is what chown(2) takes for "leave it", so nobody has it.
const noID = math.MaxUint32

// String is the text that parseIDMap reads.
func (m IDMap) String() string {
	var fields []string
	for _, r := range m {
		fields = append(fields, fmt.Sprintf("%d:%d:%d", r.Disk, r.Shown, r.Count))
	}
	return strings.Join(fields, ":")
}

// Shown is how the id of the layers is shown; false if it is in no range. An empty map shows every id as it is.
func (m IDMap) Shown(disk uint32) (uint32, bool) {
	for _, r := range m {
		if disk >= r.Disk && disk-r.Disk < r.Count {
			return r.Shown + (disk - r.Disk), true
		}
	}
	return disk, len(m) == 0
}

// Stored is the inverse of Shown.
func (m IDMap) Stored(shown uint32) (uint32, bool) {
	for _, r := range m {
		if shown >= r.Shown && shown-r.Shown < r.Count {
			return r.Disk + (shown - r.Shown), true
		}
	}
	return shown, len(m) == 0
}

// Squash is an id as which all are shown, or none.
type Squash struct {
	On bool
	ID uint32
}

// Owners is how users see who owns the files of the layers. The zero value shows it as it is.
type Owners struct {
	UID, GID             IDMap
	SquashUID, SquashGID Squash // squash_to_uid=, squash_to_gid=
	SquashToRoot         bool   // squash_to_root: as both of them with 0
}

// Changed reports whether any id is shown as another one.
func (o Owners) Changed() bool { return len(o.UID) > 0 || len(o.GID) > 0 || o.Squashed() }

// Squashed reports whether ids are all shown as one. What is asked to be changed about them need not be possible then.
func (o Owners) Squashed() bool { return o.SquashToRoot || o.SquashUID.On || o.SquashGID.On }

func parseSquash(name, value string) (Squash, error) {
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || id == noID {
		return Squash{}, fmt.Errorf("option %s=%s: the value must be one id", name, value)
	}
	return Squash{On: true, ID: uint32(id)}, nil
}
