package progrun

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread that is locked for it, and waits. The thread ends
// unless f reports that it restored the thread. It is never the process's first
// thread: that one cannot end, and /proc shows its state as that of the process.
func onThread(f func() (restored bool)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f) // this thread is locked, so f gets another
			runtime.UnlockOSThread()
			return
		}
		if f() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}

const ownNetNS = "/proc/thread-self/ns/net"

// netNS is a network namespace.
type netNS struct {
	id  uint64 // identifies the namespace, or 0 if unknown; see netNSID
	fd  int    // its file, if err is nil
	err error  // why its file is not open
	own bool   // whether close closes fd
}

// currentNetNS returns the namespace of the calling thread. Its file is needed only
// to move a thread that is elsewhere.
func currentNetNS() netNS {
	ns := netNS{id: netNSID(), own: true}
	ns.fd, ns.err = unix.Open(ownNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return ns
}

// netNSID returns a number that identifies the calling thread's namespace: the
// inode of its file or, without /proc, the kernel's cookie for it (Linux 5.14). It
// returns 0 if neither is available.
func netNSID() uint64 {
	var st unix.Stat_t
	if unix.Stat(ownNetNS, &st) == nil {
		return st.Ino
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(socket)
	cookie, _ := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie
}

// netNSOf returns the namespace of a file descriptor.
func netNSOf(fd int) (netNS, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return netNS{fd: fd, id: st.Ino, err: err}, err
}

// enter moves the calling thread into the namespace unless it is there.
func (ns netNS) enter() error {
	if ns.isCurrent() {
		return nil
	}
	if ns.err != nil {
		return ns.err
	}
	return unix.Setns(ns.fd, unix.CLONE_NEWNET)
}

// isCurrent reports whether the calling thread is known to be in the namespace.
func (ns netNS) isCurrent() bool { return ns.id != 0 && ns.id == netNSID() }

func (ns netNS) close() {
	if ns.own && ns.err == nil {
		unix.Close(ns.fd)
	}
}

// cannotMove is the rule of errors for a move that fails.
const cannotMove = "cannot move a thread into the network namespace, which takes CAP_SYS_ADMIN"

// run calls f on a thread in the namespace: the calling one if it is there already.
// If no thread can be moved there, it calls f with the reason.
func (ns netNS) run(f func(error)) {
	if ns.isCurrent() {
		f(nil)
		return
	}
	onThread(func() bool {
		f(ns.enter())
		return false
	})
}
