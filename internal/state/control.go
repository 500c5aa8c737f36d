package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is the path of the control socket of m: beside its record, where only its owner has access. Empty for a
// union without a record.
func (m Mount) socket() string {
	if m.file == "" {
		return ""
	}
	return strings.TrimSuffix(m.file, ".json") + ".sock"
}

// ListenControl makes the control socket of m, on which other commands ask the process that serves it.
// [Root.DropMount] removes it.
func (m Mount) ListenControl() (net.Listener, error) {
	return listen(m.socket(), string(m.Mountpoint))
}

// listen makes the socket path, of what is called name.
func listen(path, name string) (net.Listener, error) {
	dir, address, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// The mode of a socket is that of the unbound one, less the umask (unix_bind_bsd).
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", address)
	if err != nil {
		return nil, fmt.Errorf("control socket of %q: %w", name, bareNet(err))
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its address ends with dir
	return l, nil
}

// ErrNoControl says that no process can be asked about a union: the kernel serves it, another state root has its
// record, or it was mounted by a version without control sockets.
var ErrNoControl = errors.New("nobody to ask")

// DialControl connects to the control socket of m.
func (m Mount) DialControl(ctx context.Context) (net.Conn, error) { return dial(ctx, m.socket()) }

func dial(ctx context.Context, path string) (net.Conn, error) {
	dir, address, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoControl
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", bareNet(err))
	}
	return conn, nil
}

// socketAddress is the address of the socket through an open directory: a path may be longer than the 107 bytes
// that fit into an address (unix(7)). It is good while dir is open.
func socketAddress(path string) (dir *os.File, address string, err error) {
	if path == "" {
		return nil, "", ErrNoControl
	}
	dir, err = os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, "", fmt.Errorf("state: %w", err)
	}
	return dir, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), nil
}

// bareNet drops from an error of package net the address, which means nothing to a reader.
func bareNet(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
