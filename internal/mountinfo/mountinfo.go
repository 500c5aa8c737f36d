// Package mountinfo reads /proc/self/mountinfo (proc_pid_mountinfo(5)): the mounts of this mount namespace, in the
// order in which the kernel lists them, a mount that covers another one after it.
//
// It asks the kernel, never the mounted file systems. So it answers also where one of them hangs, or where the
// process that served it is gone and stat(2) of the mount point fails with ENOTCONN.
package mountinfo

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one line of mountinfo: one mount.
type Entry struct {
	ID         string // of the mount, unique while it is mounted
	Parent     string // ID of the mount that it is mounted on
	Dev        string // MAJOR:MINOR of the file system, as in st_dev
	Root       string // the directory of the file system that is mounted: not "/" for a bind mount
	MountPoint string // relative to the root of the reading process
	FSType     string // "overlay", "fuse.unionfsd"
	Source     string
	Options    string // of the file system, separated by commas; values still as in [Unescape]

	MountOptions string // of the mount alone: "rw,nosuid,relatime"

	Shared string // number of the peer group that it is in, with which it exchanges mounts and unmounts; empty if none
	Master string // number of the peer group that it gets them from
}

// Device is Dev as stat(2) has it.
func (e Entry) Device() uint64 {
	major, minor, _ := strings.Cut(e.Dev, ":")
	ma, _ := strconv.ParseUint(major, 10, 32)
	mi, _ := strconv.ParseUint(minor, 10, 32)
	return unix.Mkdev(uint32(ma), uint32(mi))
}

// Read returns the mounts of the calling process's mount namespace.
func Read() ([]Entry, error) { return ReadOf("self") }

// ReadOf returns the mounts of the mount namespace that the process pid is in.
func ReadOf(pid string) ([]Entry, error) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	return parse(f)
}

// Top returns the mount that a path lookup of mountPoint ends on: the last one mounted there.
func Top(entries []Entry, mountPoint string) (Entry, bool) {
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].MountPoint == mountPoint {
			return entries[i], true
		}
	}
	return Entry{}, false
}

// Inside reports whether path lies in the directory dir of the same file system, whatever mounts lead to the two,
// and what path it has in dir then. Both are absolute and real: without symlinks. What is seen of a file system
// through another mount than that of dir counts; what is mounted below dir does not.
func Inside(entries []Entry, path, dir string) (rel string, ok bool) {
	pathDev, pathIn := locate(entries, path)
	dirDev, dirIn := locate(entries, dir)
	if pathDev != dirDev {
		return "", false
	}
	return below(pathIn, dirIn)
}

// locate returns the file system that path is on, and its path in there.
func locate(entries []Entry, path string) (dev, in string) {
	best := -1
	for i, e := range entries {
		// Of two mounts on one directory, the later one covers the other.
		if _, ok := below(path, e.MountPoint); ok && (best < 0 || len(e.MountPoint) >= len(entries[best].MountPoint)) {
			best = i
		}
	}
	if best < 0 {
		return "", path // only where the root of this process is not a mount point
	}
	rel, _ := below(path, entries[best].MountPoint)
	return entries[best].Dev, filepath.Join(entries[best].Root, rel)
}

// below returns path relative to dir, with a slash before it, if it is dir or below dir.
func below(path, dir string) (string, bool) {
	rel := strings.TrimPrefix(path, strings.TrimSuffix(dir, "/"))
	ok := strings.HasPrefix(path, strings.TrimSuffix(dir, "/")) && (rel == "" || rel[0] == '/')
	if rel == "" {
		rel = "/"
	}
	return rel, ok
}

func parse(r io.Reader) ([]Entry, error) {
	var entries []Entry
	lines := bufio.NewReader(r) // not a Scanner: the options of an overlay of 500 layers are one long line
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			e, perr := parseLine(strings.TrimSuffix(line, "\n"))
			if perr != nil {
				return nil, perr
			}
			entries = append(entries, e)
		}
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list mounts: %w", err)
		}
	}
}

// parseLine takes apart
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// where any number of optional fields stand before the hyphen.
func parseLine(line string) (Entry, error) {
	head, tail, found := strings.Cut(line, " - ")
	before, after := strings.Split(head, " "), strings.SplitN(tail, " ", 3)
	if !found || len(before) < 6 || len(after) < 3 {
		return Entry{}, fmt.Errorf("list mounts: line %q of mountinfo has too few fields", line)
	}
	e := Entry{
		ID:         before[0],
		Parent:     before[1],
		Dev:        before[2],
		Root:       Unescape(before[3]),
		MountPoint: Unescape(before[4]),
		FSType:     Unescape(after[0]),
		Source:     Unescape(after[1]),
		Options:    after[2],

		MountOptions: before[5],
	}
	for _, field := range before[6:] {
		if group, ok := strings.CutPrefix(field, "shared:"); ok {
			e.Shared = group
		} else if group, ok := strings.CutPrefix(field, "master:"); ok {
			e.Master = group
		}
	}
	return e, nil
}

// Unescape undoes the kernel's mangle_path: a space, a tab, a newline, a backslash and, inside the
// value of an option, a comma are written as \ and three octal digits.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b.WriteByte(c)
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' {
		return 0, false
	}
	n := 0
	for _, d := range []byte(s[1:4]) {
		if d < '0' || d > '7' {
			return 0, false
		}
		n = n*8 + int(d-'0')
	}
	return byte(n), n < 256
}
