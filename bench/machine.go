package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where a report was made. Figures of different machines can be compared only as ratios.
type Machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"` // that the benchmark could use
	Memory     int64  `json:"memory"`
	Kernel     string `json:"kernel"`
	OS         string `json:"os"`
	FileSystem string `json:"file_system"` // that the layers were on
	Load       string `json:"load"`        // averages of 1, 5 and 15 minutes when it began
	GoVersion  string `json:"go_version"`
}

func thisMachine(dir string) Machine {
	m := Machine{CPUs: runtime.NumCPU(), CPU: field("/proc/cpuinfo", "model name"), GoVersion: runtime.Version(), FileSystem: fileSystem(dir)}
	if m.CPU == "" {
		m.CPU = runtime.GOARCH // arm64 has no names there
	}
	m.Memory, _ = sizeField("/proc/meminfo", "MemTotal")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			m.OS = strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	if words := strings.Fields(string(load)); len(words) > 3 {
		m.Load = strings.Join(words[:3], " ")
	}
	return m
}

func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem names the type of the file system, by its magic number where it is none of the usual ones.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("%#x", st.Type)
}

// String is the machine in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d CPUs, %d GiB, Linux %s, %s, layers on %s, load %s",
		m.CPU, m.CPUs, (m.Memory+1<<29)>>30, m.Kernel, m.OS, m.FileSystem, m.Load)
}
