package sys

import "sync/atomic"

// Fault sees the system calls that this package makes on the objects of layers, under their names in the manual
// ("openat", "renameat2"). It is called before each of them with done false: an error is the result then, and the
// call is not made. It is called again after the call with done true, when its error means nothing. It is called from
// many threads at once.
type Fault func(call string, done bool) error

// fault is nil but in tests of what a union does when the file system under it fails, or when it is killed at a bad
// moment. It costs one load of a pointer that never changes, 3 ns
// beside the microsecond of the call.
var fault atomic.Pointer[Fault]

// Inject makes f see all system calls from now on; nil ends that.
func Inject(f Fault) {
	if f == nil {
		fault.Store(nil)
		return
	}
	fault.Store(&f)
}

// try makes one system call.
func try(call string, do func() error) error {
	f := fault.Load()
	if f == nil {
		return do()
	}
	if err := (*f)(call, false); err != nil {
		return err
	}
	err := do()
	_ = (*f)(call, true)
	return err
}

// try1 makes one system call that returns something.
func try1[T any](call string, do func() (T, error)) (result T, err error) {
	err = try(call, func() (err error) {
		result, err = do()
		return err
	})
	return result, err
}
