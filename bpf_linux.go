package progrun

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// supported is whether the system has BPF_PROG_RUN at all.
const supported = true

// progRun is the system call itself, small enough that the compiler puts it into
// the frame of its caller: the processor comes back from the kernel having lost
// its record of where to return to, so that each frame between a run and its
// system call costs 1 to 2 % of the run. That is also why it is not
// unix.Syscall, which comes to the same by way of two more. Go does not move a
// stack, and so neither the attr nor a buffer on it, while its goroutine is in a
// system call.
func progRun(a *attr, size uintptr) (errno syscall.Errno) {
	res, _, errno := syscall.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(a)), size)
	if errno == 0 {
		errno = syscall.Errno(-res)
	}
	return
}

// progRunBlocked is progRun on a thread whose signals are blocked. A loop that
// the kernel gives up half-way because of a signal cannot be resumed, nor does
// the kernel tell how far it came.
func progRunBlocked(a *attr, size uintptr) syscall.Errno {
	runtime.LockOSThread()
	var old unix.Sigset_t
	if errno := setSignals(allSignals(), &old); errno != 0 {
		runtime.UnlockOSThread()
		return errno
	}
	errno := progRun(a, size)
	// Should the kernel refuse, the goroutine keeps the thread to itself: no
	// other may inherit its mask.
	if setSignals(&old, nil) == 0 {
		runtime.UnlockOSThread()
	}
	return errno
}

// allSignals are all but the one with which the Go runtime interrupts every
// thread for [syscall.AllThreadsSyscall]: a process whose threads block that
// one hangs.
func allSignals() *unix.Sigset_t {
	const allThreadsSyscall = 33
	set := new(unix.Sigset_t)
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	const bits = 8 * int(unsafe.Sizeof(set.Val[0]))
	set.Val[(allThreadsSyscall-1)/bits] &^= 1 << ((allThreadsSyscall - 1) % bits)
	return set
}

// setSignals sets the mask of the calling thread.
func setSignals(blocked, old *unix.Sigset_t) syscall.Errno {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, blocked, old); err != nil {
		return errnoOf(err)
	}
	return 0
}

// errnoOf is the errno in an error, EINVAL if there is none.
func errnoOf(err error) syscall.Errno {
	errno := unix.EINVAL
	errors.As(err, &errno)
	return errno
}
