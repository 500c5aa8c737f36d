package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/ns"
)

// etcFiles writes what the container has of its own in /etc, beside its layers, and says where that is to be mounted.
// A container on top of the host's own root has what is there.
func (s *supervisor) etcFiles() ([]mountSpec, error) {
	if slices.Contains(s.Spec.Lower, "/") && len(s.Hosts) == 0 {
		return nil, nil
	}
	hostname := s.Hostname
	if hostname == "" {
		hostname = s.home.Name()
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	resolv := ""
	if !s.PrivateNetwork { // then names mean what they mean on the host
		for name, into := range map[string]*string{"/etc/hosts": &hosts, "/etc/resolv.conf": &resolv} {
			text, err := os.ReadFile(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if err == nil {
				*into = strings.TrimRight(string(text), "\n") + "\n"
			}
		}
	}
	hosts += "127.0.1.1\t" + hostname + "\n"
	for _, line := range s.Hosts {
		hosts += line + "\n"
	}
	dir := s.home.Etc()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var specs []mountSpec
	for _, f := range []struct{ name, text string }{{"hostname", hostname + "\n"}, {"hosts", hosts}, {"resolv.conf", resolv}} {
		target := "/etc/" + f.name
		if slices.ContainsFunc(s.Mounts, func(m mountSpec) bool { return m.Target == target || m.Target == "/etc" }) {
			continue // the user knows better
		}
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return nil, err
		}
		if err := s.ownFile(path); err != nil {
			return nil, err
		}
		specs = append(specs, mountSpec{Source: path, Target: target,
			Attr: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC})
	}
	return specs, nil
}

// withMountPoints adds a lowest layer with the places that are to be mounted on, as far as no layer has them: made in
// the upper layer they would be changes of the program.
func (s *supervisor) withMountPoints(specs []mountSpec) (layer.Spec, error) {
	dir := s.home.Points()
	missing := func(name string) bool {
		return !slices.ContainsFunc(s.Spec.Lower, func(l string) bool {
			_, err := os.Lstat(filepath.Join(l, name))
			return err == nil
		})
	}
	made := false
	point := func(name string, isDir bool) error {
		if !missing(name) {
			return nil
		}
		made = true
		if isDir {
			return os.MkdirAll(filepath.Join(dir, name), 0o755)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), nil, 0o644)
	}
	for _, name := range ns.MountPoints() {
		if err := point(name, true); err != nil {
			return s.Spec, fmt.Errorf("mount points: %w", err)
		}
	}
	for _, m := range specs {
		isDir := m.Source == ""
		if !isDir {
			st, err := os.Stat(m.Source)
			if err != nil {
				return s.Spec, err
			}
			isDir = st.IsDir()
		}
		if err := point(m.Target, isDir); err != nil {
			return s.Spec, fmt.Errorf("mount points: %w", err)
		}
	}
	spec := s.Spec
	if made {
		spec.Lower = append(slices.Clone(spec.Lower), dir)
	}
	return spec, nil
}
