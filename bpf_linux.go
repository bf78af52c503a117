package progrun

import (
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// supported says whether the operating system has BPF_PROG_RUN at all.
const supported = true

// progRun makes the system call. It is small enough for the compiler to inline. The
// processor loses its record of return addresses in the kernel, so each frame
// between a run and its system call costs 1 to 2 % of the run. That is also why
// progRun does not call unix.Syscall, which adds two frames. Go does not move the
// stack of a goroutine in a system call, so the attr and buffers on it stay in
// place.
func progRun(a *attr, size uintptr) (errno syscall.Errno) {
	res, _, errno := syscall.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(a)), size)
	if errno == 0 {
		errno = syscall.Errno(-res)
	}
	return
}

// guard keeps a thread's signals blocked during a call. The zero guard blocks none.
type guard struct {
	before *unix.Sigset_t // signals that the thread had blocked before
}

var sigsets = sync.Pool{New: func() any { return new(unix.Sigset_t) }}

// blockSignals blocks the signals of the calling thread, and locks the goroutine to
// it. A loop that the kernel ends early because of a signal cannot be resumed, and
// the kernel does not say how far it came. If signals cannot be blocked, the call
// is made all the same, and fails with EINTR if a signal comes.
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

// release undoes what blockSignals did.
func (g guard) release() {
	if g.before != nil {
		g.restore()
	}
}

// restore restores the thread's mask. It makes no system call if the caller had all
// signals blocked already. If the kernel refuses, the goroutine stays locked to the
// thread, so that no other goroutine inherits the mask.
func (g guard) restore() {
	if hasAllBlocked(g.before) || setSignals(g.before, nil) == 0 {
		runtime.UnlockOSThread()
	}
	sigsets.Put(g.before)
}

// hasAllBlocked reports whether a mask blocks every signal that can be blocked
// and is in allSignals. It looks at 64 signals. MIPS has more, so there it reports
// false.
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

// allSignals returns every signal except the one with which the Go runtime
// interrupts all threads for [syscall.AllThreadsSyscall]. A process whose threads
// block that one hangs.
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
