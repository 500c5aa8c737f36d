package ns

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// StartUnbound starts cfg as Start does, but without the signal that the kernel sends to init when its supervisor
// dies. The caller has the supervisor's end of the socket.
func StartUnbound(cfg Config) (init *os.Process, socket *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	socket, theirs := os.NewFile(uintptr(pair[0]), "init"), os.NewFile(uintptr(pair[1]), "supervisor")
	defer theirs.Close()
	files, closeFiles, err := initFiles(cfg, theirs)
	if err != nil {
		return nil, nil, err
	}
	defer closeFiles()
	init, err = os.StartProcess("/proc/self/exe", []string{initName}, &os.ProcAttr{
		Env: initEnv, Files: files, Sys: &syscall.SysProcAttr{Cloneflags: cloneFlags},
	})
	if err != nil {
		return nil, nil, err
	}
	c := Container{init: init}
	return init, socket, c.handOver(plan(cfg), socket)
}
