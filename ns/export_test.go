package ns

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/wire"
)

// StartUnbound starts cfg as Start does, but without the signal that the kernel sends to init when its supervisor
// dies. The caller has the supervisor's end of the socket.
func StartUnbound(cfg Config) (init *os.Process, socket *wire.Conn, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "supervisor")
	defer theirs.Close()
	c := Container{answers: map[int]chan answer{}}
	if c.socket, err = wire.FromFile(os.NewFile(uintptr(pair[0]), "init"), maxReport); err != nil {
		return nil, nil, err
	}
	files, closeFiles, err := initFiles(cfg, theirs)
	if err != nil {
		return nil, nil, err
	}
	defer closeFiles()
	c.init, err = os.StartProcess("/proc/self/exe", []string{initName}, &os.ProcAttr{
		Env: initEnv, Files: files, Sys: attributes(cfg),
	})
	if err != nil {
		return nil, nil, err
	}
	return c.init, c.socket, c.handOver(cfg, c.expect(0))
}

// Check is the check of a configuration that Start makes.
func (cfg *Config) Check() error { return cfg.check() }
