package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/ns"
)

// mountSpec is something to be mounted in a container: Source of the host, an absolute path, or an empty file system
// if that is empty.
type mountSpec struct {
	Source, Target string
	Union          *layer.Spec // instead of Source
	Recursive      bool        // with what is mounted below Source
	Attr           int         // MOUNT_ATTR_*
	Options        []string    // of tmpfs
	MapIDs         bool        // ids are on disk as they are in the container
}

// mountSpecs reads -v, --mount and --tmpfs.
func (f *containerFlags) mountSpecs() ([]mountSpec, error) {
	var specs []mountSpec
	for _, list := range []struct {
		flag  string
		texts []string
		parse func(string) (mountSpec, error)
	}{{"-v", f.volumes, parseVolume}, {"--mount", f.mounts, parseMount}, {"--tmpfs", f.tmpfs, parseTmpfs}} {
		for _, text := range list.texts {
			m, err := list.parse(text)
			if err == nil && (!path.IsAbs(m.Target) || path.Clean(m.Target) == "/") {
				err = errors.New("the target must be an absolute path below the root of the container")
			}
			if err != nil {
				return nil, fmt.Errorf("%s %q: %w", list.flag, text, err)
			}
			m.Target = path.Clean(m.Target)
			if slices.ContainsFunc(specs, func(other mountSpec) bool { return other.Target == m.Target }) {
				return nil, fmt.Errorf("%s %q: something else is to be mounted there; drop one", list.flag, text)
			}
			specs = append(specs, m)
		}
	}
	return specs, nil
}

// parseVolume reads SRC:DST[:OPTION,...].
func parseVolume(text string) (mountSpec, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return mountSpec{}, errors.New("write it as SRC:DST[:OPTIONS]; use --mount for names with a colon")
	}
	m := mountSpec{Target: parts[1], Recursive: true}
	if len(parts) == 3 {
		for o := range strings.SplitSeq(parts[2], ",") {
			if err := m.option(o); err != nil {
				return m, err
			}
		}
	}
	var err error
	m.Source, err = absPath(parts[0])
	return m, err
}

// parseMount reads the keys and values of docker run --mount.
func parseMount(text string) (m mountSpec, err error) {
	kind, source := "bind", ""
	var union layer.Spec
	m.Recursive = true
	for field := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "type":
			kind = value
		case "src", "source":
			source = value
		case "lower":
			union.Lower = append(union.Lower, value)
		case "upper":
			union.Upper = value
		case "work":
			union.Work = value
		case "dst", "destination", "target":
			m.Target = value
		case "tmpfs-size":
			m.Options = append(m.Options, "size="+value)
		case "tmpfs-mode":
			m.Options = append(m.Options, "mode="+value)
		case "size", "mode":
			m.Options = append(m.Options, field)
		case "readonly":
			if value != "false" {
				err = m.option("ro")
			}
		default:
			err = m.option(field)
		}
		if err != nil {
			return m, err
		}
	}
	isUnion := len(union.Lower) > 0 || union.Upper != "" || union.Work != ""
	switch {
	case kind == "union":
		return m.asUnion(union, source)
	case isUnion:
		return m, errors.New("lower, upper and work are for type=union")
	case kind == "tmpfs" && source == "":
		m.Recursive = false
		return m.asTmpfs(), nil
	case kind == "tmpfs":
		return m, errors.New("a tmpfs has no source; drop src")
	case kind != "bind":
		return m, fmt.Errorf("type %q; it is bind, tmpfs or union", kind)
	case source == "":
		return m, errors.New("no source; add src=SRC")
	case len(m.Options) > 0:
		return m, fmt.Errorf("%s is for type=tmpfs", m.Options[0])
	}
	m.Source, err = absPath(source)
	return m, err
}

// asUnion makes it a union of layers, which must exist.
func (m mountSpec) asUnion(union layer.Spec, source string) (mountSpec, error) {
	m.Recursive = false
	switch {
	case source != "" || len(union.Lower) == 0:
		return m, errors.New("a union has layers in the place of a source; write them as lower=DIR, the topmost first")
	case (union.Upper == "") != (union.Work == ""):
		return m, errors.New("upper and work go together; pass both, or neither for an upper layer in the container's directory")
	case len(m.Options) > 0:
		return m, fmt.Errorf("%s is for type=tmpfs", m.Options[0])
	}
	for _, dir := range slices.Concat(union.Lower, slices.DeleteFunc([]string{union.Upper, union.Work}, func(d string) bool { return d == "" })) {
		if _, err := absPath(dir); err != nil {
			return m, err
		}
	}
	union.Options.ReadOnly = m.Attr&unix.MOUNT_ATTR_RDONLY != 0
	union, err := absolute(union)
	m.Union = &union
	return m, err
}

// parseTmpfs reads DST[:OPTION,...].
func parseTmpfs(text string) (mountSpec, error) {
	target, options, _ := strings.Cut(text, ":")
	m := mountSpec{Target: target}.asTmpfs()
	for o := range strings.SplitSeq(options, ",") {
		switch key, _, _ := strings.Cut(o, "="); key {
		case "":
		case "size", "mode", "uid", "gid", "nr_inodes":
			m.Options = append(m.Options, o)
		default:
			if err := m.option(o); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

// asTmpfs gives the options that Docker's --tmpfs has if nothing else is said.
func (m mountSpec) asTmpfs() mountSpec {
	m.Attr |= unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if !slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "mode=") }) {
		m.Options = append(m.Options, "mode=1777")
	}
	return m
}

// option sets a mount option that is a word.
func (m *mountSpec) option(word string) error {
	switch word {
	case "ro", "readonly":
		m.Attr |= unix.MOUNT_ATTR_RDONLY
	case "rw":
		m.Attr &^= unix.MOUNT_ATTR_RDONLY
	case "nosuid":
		m.Attr |= unix.MOUNT_ATTR_NOSUID
	case "suid":
		m.Attr &^= unix.MOUNT_ATTR_NOSUID
	case "nodev":
		m.Attr |= unix.MOUNT_ATTR_NODEV
	case "dev":
		m.Attr &^= unix.MOUNT_ATTR_NODEV
	case "noexec":
		m.Attr |= unix.MOUNT_ATTR_NOEXEC
	case "exec":
		m.Attr &^= unix.MOUNT_ATTR_NOEXEC
	case "rbind":
		m.Recursive = true
	case "bind":
		m.Recursive = false
	case "idmap":
		m.MapIDs = true
	case "private", "rprivate":
		// What all are.
	default:
		return fmt.Errorf("unknown option %q; there are ro, rw, rbind, bind, idmap, and [no]suid, [no]dev, [no]exec", word)
	}
	return nil
}

// openUnions opens the unions that are to be mounted in the container besides its root.
func (s *supervisor) openUnions(ctx context.Context, backend string, specs []mountSpec) error {
	for _, m := range specs {
		if m.Union == nil {
			continue
		}
		fd, err := s.openBranch(ctx, backend, m.Target, *m.Union)
		if err != nil {
			return fmt.Errorf("union on %s: %w", m.Target, err)
		}
		s.mounts = append(s.mounts, ns.Mount{Path: m.Target, FD: fd, Attr: m.Attr})
	}
	return nil
}

// openMounts clones what is to be bound, for a container with these ids of its own, if it has some. The function that it
// returns closes it, when it is first called.
func openMounts(specs []mountSpec, users *ns.UserNamespace) (mounts []ns.Mount, closeAll func(), err error) {
	var fds []int
	closeAll = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
		fds = nil
	}
	for _, s := range specs {
		if s.Union != nil {
			continue
		}
		m := ns.Mount{Path: s.Target, Attr: s.Attr, Options: s.Options}
		if s.Source == "" {
			m.FS = "tmpfs"
			mounts = append(mounts, m)
			continue
		}
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if s.Recursive {
			flags |= unix.AT_RECURSIVE
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, s.Source, flags)
		if err != nil {
			closeAll()
			fix := "create it or correct the path"
			switch err {
			case unix.EPERM:
				fix = "run as root"
			case unix.EINVAL:
				fix = "pass the option rbind"
			}
			return nil, nil, fmt.Errorf("mount %q: %w; %s", s.Source, err, fix)
		}
		fds = append(fds, fd)
		// Private, and no part of it is the host's any more.
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("mount %q: %w", s.Source, err)
		}
		if s.MapIDs {
			if err := mapIDs(fd, s.Recursive, users); err != nil {
				closeAll()
				return nil, nil, fmt.Errorf("mount %q: idmap: %w", s.Source, err)
			}
		}
		m.FD, m.Recursive = fd, s.Recursive
		mounts = append(mounts, m)
	}
	return mounts, closeAll, nil
}

// mapIDs makes a mount show ids that are on disk as they are in the container.
func mapIDs(fd int, recursive bool, users *ns.UserNamespace) error {
	if users == nil {
		return errors.New("the container has no ids of its own; pass --userns auto, or drop it")
	}
	userns, err := sys.NewUserNamespace(users.UIDs, users.GIDs)
	if err != nil {
		return err
	}
	defer userns.Close()
	switch err := sys.IDMapMount(fd, userns, recursive); err {
	case unix.EINVAL:
		return fmt.Errorf("%w: its file system, or one below it, cannot; drop it, or pass bind", err)
	case unix.EPERM:
		return fmt.Errorf("%w: it takes root of the host, or is a mount that has ids mapped already", err)
	default:
		return err
	}
}
