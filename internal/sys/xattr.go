package sys

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// Getxattr reads the extended attribute attr of the object name in dirfd (of dirfd's own object if name is empty)
// without following a symbolic link. Errors: ENODATA if it has no such attribute, EOPNOTSUPP if it can have none.
func Getxattr(dirfd int, name, attr string) ([]byte, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := GetxattrInto(dirfd, name, attr, buf)
		switch err {
		case nil:
			return append([]byte(nil), buf[:n]...), nil
		case unix.ERANGE:
			n, err = GetxattrInto(dirfd, name, attr, nil)
			if err != nil {
				return nil, err
			}
			buf = make([]byte, n+64) // it may grow in between
		default:
			return nil, err
		}
	}
}

// GetxattrInto is Getxattr into buf; it returns the size of the value. ERANGE says that buf is too small; an empty
// buf asks for the size alone.
func GetxattrInto(dirfd int, name, attr string, buf []byte) (int, error) {
	return try1("getxattr", func() (int, error) {
		if name != "" && haveGetxattrat() {
			return getxattrat(dirfd, name, attr, buf)
		}
		path := ProcPath(dirfd, name)
		if name == "" { // the magic link itself has no attributes: follow it, it goes no further
			return unix.Getxattr(path, attr, buf)
		}
		return unix.Lgetxattr(path, attr, buf)
	})
}

// Setxattr sets an extended attribute; flags are XATTR_CREATE and XATTR_REPLACE.
func Setxattr(dirfd int, name, attr string, value []byte, flags int) error {
	path := ProcPath(dirfd, name)
	return try("setxattr", func() error {
		if name == "" {
			return unix.Setxattr(path, attr, value, flags)
		}
		return unix.Lsetxattr(path, attr, value, flags)
	})
}

// Removexattr removes an extended attribute.
func Removexattr(dirfd int, name, attr string) error {
	path := ProcPath(dirfd, name)
	return try("removexattr", func() error {
		if name == "" {
			return unix.Removexattr(path, attr)
		}
		return unix.Lremovexattr(path, attr)
	})
}

// Listxattr returns the names of the extended attributes that the caller may see.
func Listxattr(dirfd int, name string) ([]string, error) {
	path := ProcPath(dirfd, name)
	list := unix.Llistxattr
	if name == "" {
		list = unix.Listxattr
	}
	var small [1024]byte
	buf := small[:]
	for {
		n, err := try1("listxattr", func() (int, error) { return list(path, buf) })
		if err == unix.ERANGE {
			if n, err = list(path, nil); err != nil {
				return nil, err
			}
			buf = make([]byte, n+256)
			continue
		}
		if err != nil {
			return nil, err
		}
		var names []string
		for _, s := range bytes.Split(buf[:n], []byte{0}) {
			if len(s) > 0 {
				names = append(names, string(s))
			}
		}
		return names, nil
	}
}
