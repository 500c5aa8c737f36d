package layer

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// FUSEOptions are what fuse-overlayfs(1) can do and overlayfs cannot. The zero value is the default, and all that the
// kernel backend takes.
type FUSEOptions struct {
	Owners Owners

	// AUFSMarks is aufs_marks=on: names that begin with ".wh." are the marks of AUFS and of container images; see
	// package whiteout. Users of the union neither see nor make such names.
	AUFSMarks bool

	// OverrideStat is xattr_permissions=1 or 2: owner, mode and type of the files of the upper layer, and of lower
	// ones whose root has such an attribute, are in an extended attribute, for file systems on which the daemon may
	// not set them. It implies NoACL.
	OverrideStat OverrideStat

	NoACL       bool // noacl: no POSIX ACLs
	StaticNlink bool // static_nlink: st_nlink of a directory is 1, and nobody counts
	NoFsync     bool // fsync=0: fsync writes nothing, as with volatile, but without its mark

	// Passthrough is passthrough=: which files the kernel reads and writes without the FUSE server.
	Passthrough Passthrough

	// Lazy is lazy=: how the data of large files are copied up.
	Lazy Lazy

	// Remember is timeout=: for how long the kernel may remember names and attributes.
	Remember Duration

	// IOUring is io_uring=: whether requests come over io_uring. The kernel backend has no use for it and takes it all
	// the same, so that a union keeps it when its backend is switched.
	IOUring IOUring
}

// IOUring is a value of the option io_uring.
type IOUring string

const (
	IOUringAuto IOUring = ""   // where the kernel offers it
	IOUringOn   IOUring = "on" // or not at all
	IOUringOff  IOUring = "off"
)

// OverrideStat is a value of the option xattr_permissions.
type OverrideStat int

const (
	OverrideOff        OverrideStat = 0
	OverridePrivileged OverrideStat = 1 // security.fuseoverlayfs.override_stat
	OverrideContainers OverrideStat = 2 // user.containers.override_stat
)

// Passthrough is a value of the option passthrough.
type Passthrough string

const (
	PassthroughDefault Passthrough = ""     // auto
	PassthroughAuto    Passthrough = "auto" // files of the upper layer, and all in a union that cannot be written
	PassthroughAll     Passthrough = "all"  // those of lower layers too: who has one open does not see it change
	PassthroughOff     Passthrough = "off"
)

// Lazy is a value of the option lazy.
type Lazy string

const (
	LazyDefault Lazy = ""     // on
	LazyOn      Lazy = "on"   // when they are needed, and the rest in the background; at the latest when it is unmounted
	LazyKeep    Lazy = "keep" // the rest never, unless it is needed
	LazyOff     Lazy = "off"  // before the first write
)

// Duration is a length of time that an option gives, in whole milliseconds, or none.
type Duration struct {
	Given bool
	time.Duration
}

// set applies an option with a value.
func (o *FUSEOptions) set(name, value string) (known bool, err error) {
	switch name {
	case "uidmapping":
		o.Owners.UID, err = parseIDMap(name, value)
	case "gidmapping":
		o.Owners.GID, err = parseIDMap(name, value)
	case "squash_to_uid":
		o.Owners.SquashUID, err = parseSquash(name, value)
	case "squash_to_gid":
		o.Owners.SquashGID, err = parseSquash(name, value)
	case "xattr_permissions":
		value, err = oneOf(name, value, "0", "1", "2")
		o.OverrideStat = map[string]OverrideStat{"1": OverridePrivileged, "2": OverrideContainers}[value]
	case "fsync":
		value, err = oneOf(name, value, "0", "1")
		o.NoFsync = value == "0"
	case "passthrough":
		o.Passthrough, err = oneOf(name, Passthrough(value), PassthroughAuto, PassthroughAll, PassthroughOff)
	case "lazy":
		o.Lazy, err = oneOf(name, Lazy(value), LazyOn, LazyKeep, LazyOff)
	case "timeout":
		o.Remember, err = parseSeconds(name, value)
	case "io_uring":
		if o.IOUring, err = oneOf(name, IOUring(value), "auto", IOUringOn, IOUringOff); o.IOUring == "auto" {
			o.IOUring = IOUringAuto
		}
	default:
		return false, nil
	}
	return true, err
}

func parseSeconds(name, value string) (Duration, error) {
	const most = 1e9 // fuse-overlayfs's default
	s, err := strconv.ParseFloat(value, 64)
	if err != nil || !(s >= 0 && s <= most) { // not a number is neither
		return Duration{}, fmt.Errorf("option %s=%s: the value must be a number of seconds from 0 to %.0f", name, value, most)
	}
	return Duration{Given: true, Duration: time.Duration(math.Round(s*1000)) * time.Millisecond}, nil
}

// options is what set reads. Flags are not among them.
func (o FUSEOptions) options() (list []string) {
	add := func(given bool, format string, value any) {
		if given {
			list = append(list, fmt.Sprintf(format, value))
		}
	}
	owners := o.Owners
	add(len(owners.UID) > 0, "uidmapping=%v", owners.UID)
	add(len(owners.GID) > 0, "gidmapping=%v", owners.GID)
	add(owners.SquashUID.On, "squash_to_uid=%d", owners.SquashUID.ID)
	add(owners.SquashGID.On, "squash_to_gid=%d", owners.SquashGID.ID)
	add(o.OverrideStat != OverrideOff, "xattr_permissions=%d", o.OverrideStat)
	add(o.NoFsync, "fsync=%d", 0)
	add(o.Passthrough != PassthroughDefault, "passthrough=%s", o.Passthrough)
	add(o.Lazy != LazyDefault, "lazy=%s", o.Lazy)
	add(o.Remember.Given, "timeout=%s", strconv.FormatFloat(o.Remember.Seconds(), 'f', -1, 64))
	add(o.IOUring != IOUringAuto, "io_uring=%s", o.IOUring)
	return list
}

// First is one of the options that are set, as it is written, and that change what a union is; empty if none is. With
// maps, those of ids are not among them.
func (o FUSEOptions) First(maps bool) string {
	o.IOUring = IOUringAuto
	if maps {
		o.Owners.UID, o.Owners.GID = nil, nil
	}
	all := Spec{Options: Options{FUSE: o}}.String()
	first, _, _, err := cutOption(all)
	if err != nil {
		return all // it is printed by us, and well-formed
	}
	return first
}
