package sys

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// NewMount returns a detached mount of a new file system, with options for fsconfig(2), key or key=value, and MOUNT_ATTR_*.
func NewMount(fsName string, options []string, attr int) (int, error) {
	ctx, err := unix.Fsopen(fsName, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	for _, o := range append([]string{"source=" + fsName}, options...) {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(ctx, key, value)
		} else {
			err = unix.FsconfigSetFlag(ctx, key)
		}
		if err != nil {
			return -1, fmt.Errorf("option %s: %w", o, withLog(ctx, err))
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, withLog(ctx, err)
	}
	mnt, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, withLog(ctx, err)
	}
	return mnt, nil
}

// withLog adds to err what the kernel says about it on the fsopen(2) descriptor, one message a read.
func withLog(ctx int, err error) error {
	buf := make([]byte, 256)
	n, rerr := unix.Read(ctx, buf)
	if rerr != nil || n == 0 {
		return err
	}
	// "e devpts: Unknown parameter": the letter is the severity.
	text := strings.TrimSpace(string(buf[:n]))
	if _, msg, ok := strings.Cut(text, " "); ok {
		text = msg
	}
	return fmt.Errorf("%w (%s)", err, text)
}
