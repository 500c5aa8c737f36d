package ns

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is a terminal of the container, and its other end.
type terminal struct {
	program, master *os.File
}

func (t *terminal) close() {
	t.program.Close()
	t.master.Close()
}

// openTerminalPair makes a terminal of the container that this process is in. Its programs may have replaced anything
// in /dev; so the multiplexer is looked at, and the terminal is opened through it (TIOCGPTPEER), not by its name.
func openTerminalPair() (_ *terminal, err error) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open", "/", err)
	}
	defer unix.Close(root)
	const name = "/dev/pts/ptmx"
	fd, err := open(root, name, unix.O_RDWR|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	master := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, pathError("statfs", name, err)
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC || !isDevice(fd, unix.Mkdev(5, 2)) {
		return nil, pathError("open", name, errors.New("it is another file by now"))
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, pathError("TIOCSPTLCK", name, err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, pathError("TIOCGPTPEER", name, errno)
	}
	return &terminal{os.NewFile(peer, "terminal"), master}, nil
}
