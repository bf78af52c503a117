package progrun

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// supported is whether the system has BPF_PROG_RUN at all.
const supported = true

// replaced stands for a result other than 0 of a call that did not fail: a
// program on the writable tracepoint bpf_test_finish can bring that about. The
// kernel's own errnos end at 4095.
const replaced = syscall.Errno(4096)

// progRun is the system call itself. Go does not move a stack, and so neither the
// attr nor a buffer on it, while its goroutine is in a system call.
func progRun(attr unsafe.Pointer, size uintptr) syscall.Errno {
	res, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(attr), size)
	if errno == 0 && res != 0 {
		return replaced
	}
	return errno
}

// progRunBlocked is progRun on a thread whose signals are blocked. A loop that the
// kernel gives up half-way because of a signal cannot be resumed, nor does
// the kernel tell how far it came.
func progRunBlocked(attr unsafe.Pointer, size uintptr) syscall.Errno {
	var old unix.Sigset_t
	if errno := blockSignals(&old); errno != 0 {
		return errno
	}
	errno := progRun(attr, size)
	restoreSignals(&old)
	return errno
}

// blockSignals wires the goroutine to its thread, and blocks all signals there
// but the one that the Go runtime interrupts every thread with, for
// [syscall.AllThreadsSyscall]: a process whose threads block that one hangs.
func blockSignals(old *unix.Sigset_t) syscall.Errno {
	const allThreadsSyscall = 33
	var block unix.Sigset_t
	for i := range block.Val {
		block.Val[i] = ^block.Val[i]
	}
	const bits = 8 * int(unsafe.Sizeof(block.Val[0]))
	block.Val[(allThreadsSyscall-1)/bits] &^= 1 << ((allThreadsSyscall - 1) % bits)

	runtime.LockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &block, old); err != nil {
		runtime.UnlockOSThread()
		return errnoOf(err)
	}
	return 0
}

// restoreSignals undoes blockSignals. Should the kernel refuse, the goroutine
// keeps the thread to itself: no other may inherit its mask.
func restoreSignals(old *unix.Sigset_t) {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, old, nil); err == nil {
		runtime.UnlockOSThread()
	}
}

// errnoOf is the errno in an error of x/sys/unix.
func errnoOf(err error) syscall.Errno {
	if errno, ok := err.(syscall.Errno); ok {
		return errno
	}
	return unix.EINVAL
}
