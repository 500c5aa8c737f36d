package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Address is where to serve metrics: a network and an address in it, as [net.Listen] takes them.
type Address struct{ Network, Address string }

// ParseAddress reads HOST:PORT or unix:PATH. Without a host the metrics are for this machine only: they tell the names
// of directories and how much is done in them.
func ParseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return Address{}, errors.New("unix: without a path; write unix:/run/NAME.sock")
		}
		abs, err := filepath.Abs(path)
		return Address{"unix", abs}, err
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || port == "" {
		return Address{}, fmt.Errorf("%q is not HOST:PORT or unix:PATH; write 127.0.0.1:9737 or unix:/run/NAME.sock", text)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return Address{"tcp", net.JoinHostPort(host, port)}, nil
}

// Listen listens on the address. A socket that a killed process has left there is replaced.
func (a Address) Listen() (net.Listener, error) {
	l, err := a.listen()
	if errors.Is(err, unix.EADDRINUSE) && a.abandoned() {
		if err := os.Remove(a.Address); err != nil {
			return nil, err
		}
		l, err = a.listen()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return nil, fmt.Errorf("listen on %s: %w; choose another address", a.Address, op.Err)
	}
	return l, err
}

func (a Address) listen() (net.Listener, error) {
	var config net.ListenConfig
	if a.Network == "unix" {
		config.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			// The mode of a socket is that of the unbound one, less the umask (unix_bind_bsd).
			if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o660) }); cerr != nil {
				return cerr
			}
			return err
		}
	}
	return config.Listen(context.Background(), a.Network, a.Address)
}

// abandoned reports whether the address is that of a socket that nobody listens on.
func (a Address) abandoned() bool {
	if a.Network != "unix" {
		return false
	}
	conn, err := net.Dial(a.Network, a.Address)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED) && isSocket(a.Address)
}

func isSocket(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&os.ModeSocket != 0
}
