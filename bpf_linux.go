package progrun

import (
	"runtime"
	"strings"
	"sync"
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

// guard keeps signals away from a thread while it makes a call. The zero guard
// keeps none away.
type guard struct {
	before *unix.Sigset_t // what the thread had blocked before
}

var sigsets = sync.Pool{New: func() any { return new(unix.Sigset_t) }}

// blockSignals blocks the signals of the calling thread, and wires the goroutine
// to it. A loop that the kernel gives up half-way because of a signal cannot be
// resumed, nor does the kernel tell how far it came. Where signals cannot be
// blocked, the call goes without, and fails with EINTR should one come.
func blockSignals() guard {
	runtime.LockOSThread()
	g := guard{before: sigsets.Get().(*unix.Sigset_t)}
	if setSignals(allSignals(), g.before) != 0 {
		sigsets.Put(g.before)
		runtime.UnlockOSThread()
		return guard{}
	}
	return g
}

// release undoes blockSignals.
func (g guard) release() {
	if g.before != nil {
		g.restore()
	}
}

// restore saves a system call where the caller had all signals blocked already.
// Should the kernel refuse it, the goroutine keeps the thread to itself: no
// other may inherit its mask.
func (g guard) restore() {
	if hasAllBlocked(g.before) || setSignals(g.before, nil) == 0 {
		runtime.UnlockOSThread()
	}
	sigsets.Put(g.before)
}

// hasAllBlocked reports whether a mask blocks every signal that can be blocked
// and is in allSignals. MIPS has more of them than are looked at here.
func hasAllBlocked(mask *unix.Sigset_t) bool {
	open := guarded
	delSignal(&open, unix.SIGKILL)
	delSignal(&open, unix.SIGSTOP)
	const words = 8 / int(unsafe.Sizeof(open.Val[0])) // of the 64 signals that the kernel has
	for i := range words {
		if open.Val[i]&^mask.Val[i] != 0 {
			return false
		}
	}
	return !strings.HasPrefix(runtime.GOARCH, "mips")
}

// allSignals returns all signals but the one with which the Go runtime interrupts
// every thread for [syscall.AllThreadsSyscall]: a process whose threads block
// that one hangs.
func allSignals() *unix.Sigset_t { return &guarded }

var guarded = func() (set unix.Sigset_t) {
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	const allThreadsSyscall = 33
	delSignal(&set, allThreadsSyscall)
	return set
}()

func delSignal(set *unix.Sigset_t, signal syscall.Signal) {
	const bits = 8 * int(unsafe.Sizeof(set.Val[0]))
	set.Val[int(signal-1)/bits] &^= 1 << (int(signal-1) % bits)
}

// setSignals sets the mask of the calling thread.
func setSignals(blocked, old *unix.Sigset_t) syscall.Errno {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, blocked, old); err != nil {
		return errnoOf(err)
	}
	return 0
}
