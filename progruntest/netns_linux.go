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

// NewNetNS makes a network namespace, whose only interface is a loopback that is
// down. The namespace and everything in it go away when the test ends. NewNetNS
// takes CAP_SYS_ADMIN. Errors go to [Need], which skips the test without it.
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

// Fd returns the file descriptor of the namespace, such as for [progrun.Live.NetNS].
// It is -1 after the test has ended.
func (n *NetNS) Fd() int { return n.fd }

// Do calls f in the namespace, on the calling goroutine. f may end the test, as by
// tb.Fatal or tb.Skip, and may panic. However f ends, the goroutine returns to its
// own namespace.
//
// Only the calling goroutine is in the namespace. Goroutines that f starts are not,
// and neither are subtests, since t.Run starts a goroutine: use [NetNS.Run] for
// these. f gets tb as a [testing.TB], which has no Run. If its parameter has the name
// of the test's own t, the compiler rejects t.Run in f. In a subtest that was started
// by t.Run all the same, Run and the loaders of this package fail.
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

// visits has the *NetNS of each test that is inside of NetNS.Do, by its name.
var visits sync.Map

// checkNetNS fails a subtest that was started inside of NetNS.Do, but runs outside
// of the namespace.
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

// away calls f on the calling goroutine, in the namespace to which enter moves its
// thread. If the thread cannot return, it stays locked, and so ends with the
// goroutine.
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

// lockThread locks the calling goroutine to a thread that is not the process's first
// one. The first thread cannot end, and /proc shows its state as that of the process.
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

// leaveThread moves the calling goroutine to another thread, most of the time: the
// thread runs the other goroutine, which locks it.
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
