package layer

// Spec is a union as text: which directories it stacks and with what options. It is independent of the host;
// [Open] is what looks at the disk.
type Spec struct {
	Lower   []string // lower layers, the topmost first, as in overlayfs's lowerdir=
	Upper   string   // the writable layer; empty for a read-only union
	Work    string   // overlayfs's workdir; on the file system of Upper; empty without Upper
	Options Options
}

// Options are the mount options of a union that are not directories. The zero value is the default.
type Options struct {
	ReadOnly  bool   // ro: refuse every write, even with an upper layer
	NoSuid    bool   // nosuid
	NoDev     bool   // nodev
	NoExec    bool   // noexec
	UserXattr bool   // userxattr: marks are user.overlay.*, for where trusted.* is not allowed
	Volatile  bool   // volatile: fsync and sync write nothing; the upper does not survive a crash
	FsName    string // fsname=: what /proc/mounts shows as source; "unionfsd" or "overlay" by default
	Subtype   string // subtype=: the NAME of fuse.NAME in /proc/mounts; "unionfsd" by default; FUSE only
}
