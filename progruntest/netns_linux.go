package progruntest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace for a test. See [NewNetNS].
type NetNS struct{ fd int }

// NewNetNS makes a network namespace, which has nothing but a loopback
// interface that is down. It goes when the test ends, with all that was made
// in it. It takes CAP_SYS_ADMIN; without, the test is skipped as by [Need].
func NewNetNS(tb testing.TB) *NetNS {
	tb.Helper()
	n := &NetNS{fd: -1}
	away(tb, func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() {
		tb.Helper()
		fd, err := openNetNS()
		Need(tb, err)
		n.fd = fd
		tb.Cleanup(func() {
			unix.Close(n.fd)
			n.fd = -1
		})
	})
	return n
}

// Fd returns the file descriptor of the namespace, as for the NetNS of
// [progrun.Live]. It is -1 once the test has ended.
func (n *NetNS) Fd() int { return n.fd }

// Do calls f in the namespace, on the calling goroutine: f may end the test, as
// by tb.Fatal or tb.Skip, and may panic. The goroutine is back in its own
// namespace however f ends.
//
// Only the calling goroutine is in the namespace, not those that f starts. Nor
// are subtests, for t.Run starts a goroutine: start them with [NetNS.Run]. So
// that the compiler finds those that are not, f gets tb as a [testing.TB],
// which has no Run; give it the name of the test's own. In a subtest that was
// started wrongly, Run and the loaders of this package fail.
func (n *NetNS) Do(tb testing.TB, f func(tb testing.TB)) {
	tb.Helper()
	away(tb, func() error { return unix.Setns(n.fd, unix.CLONE_NEWNET) }, func() {
		outer, nested := visits.Swap(tb.Name(), n)
		defer func() {
			if nested {
				visits.Store(tb.Name(), outer)
			} else {
				visits.Delete(tb.Name())
			}
		}()
		f(tb)
	})
}

// Run runs f as a subtest of t in the namespace. See [NetNS.Do].
func (n *NetNS) Run(t *testing.T, name string, f func(t *testing.T)) bool {
	t.Helper()
	return t.Run(name, func(t *testing.T) { n.Do(t, func(testing.TB) { f(t) }) })
}

// visits are the tests that are inside of NetNS.Do, by their names, each with
// its *NetNS.
var visits sync.Map

// checkNetNS fails a subtest that was started inside of NetNS.Do and runs
// outside.
func checkNetNS(tb testing.TB) {
	tb.Helper()
	name := tb.Name()
	if _, inside := visits.Load(name); inside {
		return
	}
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		if n, ok := visits.Load(name[:i]); ok && !n.(*NetNS).isCurrent() {
			tb.Fatalf("%s is inside of NetNS.Do, but its subtest is not, for t.Run starts a goroutine: use NetNS.Run", name[:i])
		}
	}
}

// isCurrent reports whether the calling thread is in the namespace.
func (n *NetNS) isCurrent() bool {
	var there, here unix.Stat_t
	return unix.Fstat(n.fd, &there) == nil && unix.Stat(threadNetNS, &here) == nil && there.Ino == here.Ino
}

const threadNetNS = "/proc/thread-self/ns/net"

func openNetNS() (int, error) {
	return unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// away calls f on the calling goroutine while enter has its thread in another
// namespace. Should there be no way back, the thread stays locked, and so ends
// with the goroutine.
func away(tb testing.TB, enter func() error, f func()) {
	tb.Helper()
	lockThread(tb)
	home, err := openNetNS()
	if err == nil {
		err = enter()
	}
	if err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		Need(tb, fmt.Errorf("enter a network namespace: %w", err))
	}
	defer func() {
		tb.Helper()
		err := unix.Setns(home, unix.CLONE_NEWNET)
		unix.Close(home)
		if err != nil {
			tb.Fatalf("cannot leave the network namespace: %v", err)
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// lockThread locks the calling goroutine to a thread that is not the process's
// first. That one cannot end, and what it looks like is what the process looks
// like in /proc.
func lockThread(tb testing.TB) {
	tb.Helper()
	for range 100 {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			return
		}
		runtime.UnlockOSThread()
		leaveThread()
	}
	tb.Fatal("the test is locked to the process's first thread, which must not leave its network namespace")
}

// leaveThread has the calling goroutine go on elsewhere, most of the time: the
// thread takes up the other goroutine, which then has it locked.
func leaveThread() {
	locked, left := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		close(locked)
		<-left
	}()
	<-locked
	close(left)
}
