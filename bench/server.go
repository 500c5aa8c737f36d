package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Kinds of servers. Others are the names of peers.
const (
	FUSE   = "fuse"
	Kernel = "kernel"
	Native = "native"
)

// Server is one way to show layers as one tree.
type Server struct {
	Label   string   // what the report calls it
	Kind    string   // FUSE, Kernel, Native, or the name of a peer
	Program string   // its path; empty for Native
	Args    []string // more arguments for unionfsd mount
	Version string
	Missing string // why it is not measured; empty if it is
}

// peer is another union file system. All of them serve in the foreground when started like this.
type peer struct {
	says string // the line of --version that is about it begins so
	args func(lower []string, upper, work, target string) []string
}

var peerNames = []string{"fuse-overlayfs", "mergerfs", "unionfs-fuse"}

var peers = map[string]peer{
	"fuse-overlayfs": {"fuse-overlayfs", func(lower []string, upper, work, target string) []string {
		options := "lowerdir=" + strings.Join(lower, ":")
		if upper != "" {
			options += ",upperdir=" + upper + ",workdir=" + work
		}
		return []string{"-f", "-o", options, target}
	}},
	// It copies nothing up and hides nothing: it cannot change what a lower layer has.
	"mergerfs": {"mergerfs", func(lower []string, upper, _, target string) []string {
		return []string{"-f", "-o", "category.create=ff,fsname=mergerfs", branches(lower, upper), target}
	}},
	"unionfs-fuse": {"unionfs", func(lower []string, upper, _, target string) []string {
		return []string{"-f", "-o", "cow", branches(lower, upper), target}
	}},
}

func branches(lower []string, upper string) string {
	list := strings.Join(lower, "=RO:") + "=RO"
	if upper != "" {
		list = upper + "=RW:" + list
	}
	return list
}

// DefaultServers returns what a report should have: unionfsd's backends, the bare directory, and all peers. program is
// unionfsd.
func DefaultServers(program string) ([]Server, error) {
	servers, err := ParseServers(strings.Join([]string{FUSE, Kernel, Native}, ","), program)
	if err != nil {
		return nil, err
	}
	for _, name := range peerNames {
		servers = append(servers, findPeer(name))
	}
	return servers, nil
}

// ParseServers reads a list of servers, separated by commas, each of them
//
//	[LABEL=]KIND[@PROGRAM][ ARGUMENT]...
//
// such as "fuse,kernel", or "fuse,old=fuse@/tmp/unionfsd-old,quiet=fuse --io-uring=off": another build of unionfsd
// and other arguments of its mount command are measured beside it. program is the unionfsd of those without one.
func ParseServers(list, program string) ([]Server, error) {
	var servers []Server
	for text := range strings.SplitSeq(list, ",") {
		s, err := parseServer(text, program)
		if err != nil {
			return nil, err
		}
		label := s.Label
		for n := 2; slices.ContainsFunc(servers, func(other Server) bool { return other.Label == s.Label }); n++ {
			s.Label = fmt.Sprintf("%s#%d", label, n)
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func parseServer(text, program string) (Server, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return Server{}, errors.New("a backend without a name: drop the extra comma")
	}
	s := Server{Args: words[1:]}
	label, kind, labelled := strings.Cut(words[0], "=")
	if !labelled {
		kind = words[0]
	}
	kind, own, hasProgram := strings.Cut(kind, "@")
	s.Kind, s.Label = kind, kind
	if labelled {
		s.Label = label
	}
	_, isPeer := peers[kind]
	switch {
	case kind == FUSE || kind == Kernel:
		s.Program = program
		if hasProgram {
			s.Program = own
		}
		var err error
		if s.Program, err = exec.LookPath(s.Program); err == nil {
			s.Program, err = filepath.Abs(s.Program)
		}
		if err != nil {
			return s, fmt.Errorf("backend %q: %w", text, err)
		}
		s.Version = version(s.Program, "version", "unionfsd")
	case hasProgram || len(s.Args) > 0:
		return s, fmt.Errorf("backend %q: only %s and %s take a program or arguments", text, FUSE, Kernel)
	case isPeer:
		found := findPeer(kind)
		found.Label = s.Label
		if found.Missing != "" {
			return s, fmt.Errorf("backend %s is %s: install it or leave it out", kind, found.Missing)
		}
		return found, nil
	case kind != Native:
		return s, fmt.Errorf("unknown backend %q: it is %s, %s, %s, %s", kind, FUSE, Kernel, Native, strings.Join(peerNames, ", "))
	}
	return s, nil
}

func findPeer(name string) Server {
	s := Server{Label: name, Kind: name}
	path, err := exec.LookPath(name)
	if err != nil {
		s.Missing = "not in PATH"
		return s
	}
	s.Program = path
	s.Version = version(path, "--version", peers[name].says)
	return s
}

// version returns the line with prefix of what a program says of its version: libraries have lines of their own.
func version(program, arg, prefix string) string {
	out, _ := exec.Command(program, arg).CombinedOutput() // some say it and fail
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// command returns how the server is started for spec, in the foreground. state is a directory for what unionfsd
// remembers.
func (s Server) command(spec layer.Spec, target, state string) *exec.Cmd {
	if p, ok := peers[s.Kind]; ok {
		// Relative paths: what a peer takes is limited, and there may be 2,000 layers.
		dir := filepath.Dir(spec.Lower[len(spec.Lower)-1])
		var lower []string
		for _, path := range spec.Lower {
			if filepath.Dir(path) == dir {
				path = filepath.Base(path)
			}
			lower = append(lower, path)
		}
		cmd := exec.Command(s.Program, p.args(lower, spec.Upper, spec.Work, target)...)
		cmd.Dir = dir
		return cmd
	}
	args := []string{"--root", state, "mount", "-f", "-b", s.Kind}
	if spec.Upper != "" {
		args = append(args, "-u", spec.Upper, "-w", spec.Work)
	} else if s.Kind == FUSE {
		args = append(args, "-o", "lower=immutable", "--passthrough=off")
	}
	for _, dir := range spec.Lower {
		args = append(args, "-l", dir)
	}
	args = append(args, s.Args...)
	cmd := exec.Command(s.Program, append(args, target)...)
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	return cmd
}

// serves reports whether a process answers for what is mounted.
func (s Server) serves() bool { return s.Kind != Native && s.Kind != Kernel }
