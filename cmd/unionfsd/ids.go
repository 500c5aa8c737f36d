package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"syscall"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/ns"
)

// Who is who in a container, --userns.
//
// A container of root's has the ids of the host, or with auto those from 0 to 65535 as a range of the host's that no other
// container has: who gets out of it is nobody there. A container of an ordinary user is in a user namespace already
// (userns.go), where the user is root; with keep-id it gets one of its own in there, where the user has their own number.
//
// The layers have the ids that images give. Both backends show them as those that the container has (uidmapping=,
// gidmapping=), so nothing is chowned, and what the container writes has the ids in the upper layer that it has inside.
const (
	usersHost   = "host"
	usersAuto   = "auto"
	usersKeepID = "keep-id"
)

// rangeSize is how many ids a container has with auto: as many as images use.
const rangeSize = 1 << 16

// Ids that nobody else uses where root is lent none: systemd leaves those from 0x70000000 to 0x7ffe0000 to nobody
// (UIDS-GIDS.md), and shadow lends no such.
const (
	freeIDs      = 0x70000000
	freeIDRanges = 0xffe
)

// checkUsers reports whether this user can have --userns how.
func checkUsers(how string) error {
	nested := !ns.InInitialUserNamespace()
	switch how {
	case usersHost, usersAuto:
		return nil
	case usersKeepID:
		if !nested {
			return errors.New("--userns keep-id is for ordinary users; root has its id anyway, or pass auto")
		}
		return nil
	}
	return fmt.Errorf("--userns %q; it is host, auto or keep-id", how)
}

// mapUsers decides on the ids of the container. The file, if there is one, is to be closed when it has ended.
func (s *supervisor) mapUsers() (*os.File, error) {
	switch {
	case s.Users == usersAuto && !s.nested:
		return s.ownUsers()
	case s.Users == usersKeepID:
		return nil, s.keepUser()
	}
	return nil, nil // those that this process has
}

// ownUsers takes a range of ids for the container.
func (s *supervisor) ownUsers() (*os.File, error) {
	uids, gids, err := idRanges()
	if err != nil {
		return nil, err
	}
	i, held, err := s.root.TakeRange(min(len(uids), len(gids)))
	if err != nil {
		return nil, err
	}
	s.setUsers(&ns.UserNamespace{
		UIDs: []syscall.SysProcIDMap{{HostID: uids[i], Size: rangeSize}},
		GIDs: []syscall.SysProcIDMap{{HostID: gids[i], Size: rangeSize}},
	})
	return held, nil
}

// idRanges returns where ranges of ids begin that containers may have.
func idRanges() (uids, gids []int, err error) {
	if uids, err = lentRanges("/etc/subuid"); err != nil {
		return nil, nil, err
	}
	if gids, err = lentRanges("/etc/subgid"); err != nil {
		return nil, nil, err
	}
	return uids, gids, nil
}

// lentRanges returns the ranges that file lends to root, or those that nobody has if it lends none.
func lentRanges(file string) ([]int, error) {
	var list []int
	lines, err := lent(file, &user.User{Uid: "0", Username: "root"}, 0)
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		for i := range freeIDRanges {
			list = append(list, freeIDs+i*rangeSize)
		}
		return list, nil
	}
	for _, r := range lines[1:] { // the first is root itself
		for n := range r.count / rangeSize {
			list = append(list, int(r.outside+n*rangeSize))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s lends root fewer than %d ids in one range: add root:FIRST:%d, or drop the line for root", file, rangeSize, rangeSize)
	}
	return list, nil
}

// keepUser makes the container have this user by the number that they have outside of the user namespace of this process.
func (s *supervisor) keepUser() error {
	uids, uid, err := keepID("/proc/self/uid_map")
	if err != nil {
		return err
	}
	gids, gid, err := keepID("/proc/self/gid_map")
	if err != nil {
		return err
	}
	users := &ns.UserNamespace{UIDs: uids, GIDs: gids}
	if len(uids) == 1 {
		users.UID = uid // there is nobody else
	}
	if len(gids) == 1 {
		users.GID = gid
	}
	if slices.Contains(s.Spec.Lower, "/") {
		s.users = users // the ids of the host are what they are; those that are the user's stay that
	} else {
		s.setUsers(users)
	}
	if s.Program.User == "" {
		s.Program.User = fmt.Sprintf("%d:%d", uid, gid)
	}
	return nil
}

// keepID returns the map of a user namespace in this one, and the id that 0 of this one has in it: the one that it has
// outside. The others take what is left in their order, so that all that are mapped here are mapped there, but one.
func keepID(file string) (m []syscall.SysProcIDMap, id int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	others := 0
	for line := range strings.Lines(string(text)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return nil, 0, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		if inside == 0 {
			id = outside
			count, inside = count-1, 1
		}
		if inside == others+1 {
			others += count
		}
	}
	below := min(id, others)
	if below > 0 {
		m = append(m, syscall.SysProcIDMap{ContainerID: 0, HostID: 1, Size: below})
	}
	m = append(m, syscall.SysProcIDMap{ContainerID: id, HostID: 0, Size: 1})
	if above := others - below; above > 0 {
		m = append(m, syscall.SysProcIDMap{ContainerID: id + 1, HostID: below + 1, Size: above})
	}
	return m, id, nil
}

// setUsers gives the container a user namespace, and shows the layers with its ids.
func (s *supervisor) setUsers(users *ns.UserNamespace) {
	s.users = users
	owners := &s.Spec.Options.FUSE.Owners
	// A single id is what all files have that this user owns.
	if len(users.UIDs) > 1 || users.UIDs[0].Size > 1 {
		owners.UID = shownAs(users.UIDs)
	}
	if len(users.GIDs) > 1 || users.GIDs[0].Size > 1 {
		owners.GID = shownAs(users.GIDs)
	}
}

// shownAs shows an id of the layers as that of who has it inside.
func shownAs(m []syscall.SysProcIDMap) (list layer.IDMap) {
	for _, r := range m {
		list = append(list, layer.IDRange{Disk: uint32(r.ContainerID), Shown: uint32(r.HostID), Count: uint32(r.Size)})
	}
	return list
}

// ownFile gives a file of the container's own to its root.
func (s *supervisor) ownFile(path string) error {
	if s.users == nil {
		return nil
	}
	uid, gid := s.users.Outside()
	return os.Lchown(path, uid, gid)
}
