package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/ns"
)

// containerFlags say what a container is like besides its root and its program.
type containerFlags struct {
	hostname        string
	network         string
	addHosts        []string
	readOnly        bool
	volumes         []string
	mounts          []string
	tmpfs           []string
	users           string
	capAdd, capDrop []string
	privileged      bool
	securityOpt     []string
	ulimits         []string
	memory          string
	cpus            float64
	pids            int64
	stopSignal      string
	pidFile         string
	statusFD        int
}

func (f *containerFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.hostname, "hostname", "", "host `NAME` (default: that of the container)")
	flags.StringVar(&f.network, "network", "host", "`NET`: host, or none: only a loopback interface")
	flags.StringArrayVar(&f.addHosts, "add-host", nil, "add `NAME:ADDRESS` to /etc/hosts")
	flags.BoolVar(&f.readOnly, "read-only", false, "make the root file system read-only")
	flags.StringArrayVarP(&f.volumes, "volume", "v", nil, "show `SRC:DST[:OPTIONS]` of the host: ro, rbind, nosuid, nodev, noexec; idmap: by the ids of the container")
	flags.StringArrayVar(&f.mounts, "mount", nil, "mount `SPEC`: type=bind,src=SRC,dst=DST[,ro...], type=tmpfs,dst=DST or type=union,lower=DIR...,dst=DST[,upper=DIR,work=DIR]")
	flags.StringArrayVar(&f.tmpfs, "tmpfs", nil, "mount an empty file system on `DST[:OPTIONS]`: size=, mode=, ro, exec")
	flags.StringVar(&f.users, "userns", usersHost, "`WHO` has which ids in it: host: as here; auto: ids of its own; keep-id: an ordinary user keeps theirs")
	flags.StringSliceVar(&f.capAdd, "cap-add", nil, "let it have the capability `CAP`, or ALL")
	flags.StringSliceVar(&f.capDrop, "cap-drop", nil, "take the capability `CAP` from it, or ALL")
	flags.BoolVar(&f.privileged, "privileged", false, "all capabilities, no filter of system calls, all of /proc and /sys")
	flags.StringArrayVar(&f.securityOpt, "security-opt", nil, "`OPT`: seccomp=unconfined, no-new-privileges=false, systempaths=unconfined")
	flags.StringArrayVar(&f.ulimits, "ulimit", nil, "set a resource limit, `NAME=SOFT[:HARD]`, such as nofile=1024")
	flags.StringVarP(&f.memory, "memory", "m", "", "`SIZE` of the memory that its programs may use together, such as 512m; limits take cgroup version 2")
	flags.Float64Var(&f.cpus, "cpus", 0, "`NUMBER` of CPUs whose time they may use together, such as 1.5")
	flags.Int64Var(&f.pids, "pids-limit", 0, "`NUMBER` of processes and threads that there may be; -1 for any")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "`SIGNAL` by which unionfsd stop asks it to end (default TERM)")
	flags.StringVar(&f.pidFile, "pidfile", "", "write the pid of its init to `FILE` when it runs")
	flags.IntVar(&f.statusFD, "json-status-fd", 0, "write lines of JSON about it to descriptor `N`")
}

// apply sets what the flags say.
func (f *containerFlags) apply(l *launch) (err error) {
	l.Hostname, l.ReadOnly, l.StatusFD = f.hostname, f.readOnly, f.statusFD
	if f.pidFile != "" {
		dir, err := absPath(filepath.Dir(f.pidFile)) // before anything runs
		if err != nil {
			return fmt.Errorf("--pidfile: directory %w", err)
		}
		l.PIDFile = filepath.Join(dir, filepath.Base(f.pidFile))
	}
	switch f.network {
	case "host":
	case "none":
		l.PrivateNetwork = true
	default:
		return fmt.Errorf("--network %q; it is host or none", f.network)
	}
	if l.Detached && f.statusFD != 0 {
		return errors.New("--json-status-fd with -d, where nobody is left to write to it; drop one")
	}
	if err := checkUsers(f.users); err != nil {
		return err
	}
	if f.users != usersHost {
		l.Users = f.users
	}
	if l.Hosts, err = hostLines(f.addHosts); err != nil {
		return err
	}
	if l.Mounts, err = f.mountSpecs(); err != nil {
		return err
	}
	for _, u := range f.ulimits {
		limit, err := parseUlimit(u)
		if err != nil {
			return err
		}
		l.Limits = append(l.Limits, limit)
	}
	if l.Cgroup, err = f.limits(); err != nil {
		return err
	}
	if f.stopSignal != "" {
		s, err := parseSignal(f.stopSignal)
		if err != nil {
			return err
		}
		l.StopSignal = int(s)
	}
	l.Security = ns.Security{AddCaps: f.capAdd, DropCaps: f.capDrop, Privileged: f.privileged}
	for _, opt := range f.securityOpt {
		if err := securityOption(&l.Security, opt); err != nil {
			return err
		}
	}
	return nil
}

func securityOption(s *ns.Security, opt string) error {
	switch strings.Replace(opt, ":", "=", 1) { // Docker takes both
	case "seccomp=unconfined":
		s.AnySyscall = true
	case "no-new-privileges=false":
		s.NewPrivileges = true
	case "no-new-privileges", "no-new-privileges=true":
		s.NewPrivileges = false
	case "systempaths=unconfined":
		s.Unmasked = true
	default:
		return fmt.Errorf("--security-opt %q; it is seccomp=unconfined, no-new-privileges=BOOL or systempaths=unconfined", opt)
	}
	return nil
}

// hostLines turns NAME:ADDRESS into lines of hosts(5).
func hostLines(list []string) ([]string, error) {
	var lines []string
	for _, h := range list {
		name, address, ok := strings.Cut(h, ":")
		if _, err := netip.ParseAddr(strings.Trim(address, "[]")); !ok || err != nil || name == "" {
			return nil, fmt.Errorf("--add-host %q; write it as NAME:ADDRESS", h)
		}
		lines = append(lines, strings.Trim(address, "[]")+"\t"+name)
	}
	return lines, nil
}

// ulimitNames are the names that docker run takes, which are those of limits.conf(5).
var ulimitNames = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE,
	"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

func parseUlimit(text string) (ns.Limit, error) {
	name, values, _ := strings.Cut(text, "=")
	wrong := fmt.Errorf("--ulimit %q; write it as NAME=SOFT[:HARD], with -1 for no limit", text)
	resource, ok := ulimitNames[name]
	if !ok {
		return ns.Limit{}, fmt.Errorf("--ulimit %q: no such limit; there are %s", text, strings.Join(sortedKeys(ulimitNames), ", "))
	}
	soft, hard, two := strings.Cut(values, ":")
	if !two {
		hard = soft
	}
	limit := ns.Limit{Resource: resource}
	for _, v := range []struct {
		text string
		into *uint64
	}{{soft, &limit.Soft}, {hard, &limit.Hard}} {
		if v.text == "-1" {
			*v.into = unix.RLIM_INFINITY
			continue
		}
		n, err := strconv.ParseUint(v.text, 10, 63)
		if err != nil {
			return ns.Limit{}, wrong
		}
		*v.into = n
	}
	if limit.Soft > limit.Hard {
		return ns.Limit{}, fmt.Errorf("--ulimit %q: the soft limit is above the hard one; write it as NAME=SOFT:HARD", text)
	}
	return limit, nil
}

func sortedKeys(m map[string]int) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// parseSignal takes a number or a name, with SIG or without.
func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")); s != 0 {
		return s, nil
	}
	return 0, usagef("signal %q; give a number from 1 to 64, or a name such as TERM (kill -l lists them)", text)
}
