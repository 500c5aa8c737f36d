package mounttest

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// mountTmpfs is a layer on a file system of its own.
func mountTmpfs(u *union, text string) string {
	u.Helper()
	dir := testfs.Tmpfs(u)
	testfs.Write(u, dir, text)
	return dir
}

// nobody is the user without privileges that checks of permissions act as.
const nobody = 65534

// user is who a thread acts as.
type user struct {
	uid, gid int
	groups   []int
	umask    int
}

// as runs f as another user, on a thread of its own: credentials, umask and current directory are the thread's.
// In f, paths are relative to the working directory, which is the root of the union: other users may not search the
// temporary directory it is in.
func (u *union) as(who user, f func()) {
	u.Helper()
	errs := make(chan error, 1)
	done := make(chan bool)
	dir := u.dir
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := become(who, dir)
		if errs <- err; err == nil {
			u.dir = "."
			defer unix.Chdir("/") // the thread may live on for a moment, and must not keep the union busy
			f()
		}
	}()
	<-done
	u.dir = dir
	if err := <-errs; err != nil {
		u.Fatalf("become %+v: %v", who, err)
	}
	if u.Failed() {
		u.FailNow()
	}
}

func become(who user, dir string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	unix.Umask(who.umask)
	// The raw calls act on this thread; those of package syscall on all.
	groups := make([]uint32, len(who.groups)+1)
	for i, g := range who.groups {
		groups[i] = uint32(g)
	}
	if err := setgroups(groups[:len(who.groups)]); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(who.gid), uintptr(who.gid), uintptr(who.gid)); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(who.uid), uintptr(who.uid), uintptr(who.uid)); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return nil
}

// dropCapabilities takes capabilities from this thread.
func dropCapabilities(list ...uint) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	for _, c := range list {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	return unix.Capset(&hdr, &data[0])
}

// sleepTick sleeps until the clock that stamps files has moved on: a jiffy, at most 10 ms.
func sleepTick() { time.Sleep(11 * time.Millisecond) }
