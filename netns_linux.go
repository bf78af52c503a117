package progrun

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread that is locked for it, and waits. The thread ends
// if f does not report that it left it as it was. It is never the process's
// first thread: that cannot end, and what it looks like is what the process
// looks like in /proc.
func onThread(f func() (restored bool)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f) // elsewhere, as this thread is taken
			runtime.UnlockOSThread()
			return
		}
		if f() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}

// netNS is an open network namespace.
type netNS struct {
	fd    int
	inode uint64
	own   bool // fd is ours to close
}

func currentNetNS() (netNS, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return netNS{}, err
	}
	ns := netNS{fd: fd, own: true}
	return ns, ns.stat()
}

func (ns *netNS) stat() error {
	var st unix.Stat_t
	err := unix.Fstat(ns.fd, &st)
	ns.inode = st.Ino
	return err
}

// join moves the calling thread into the namespace, and checks that it is
// there.
func (ns netNS) join() error {
	if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if !ns.isCurrent() {
		return unix.EINVAL
	}
	return nil
}

func (ns netNS) isCurrent() bool {
	now, err := currentNetNS()
	if err != nil {
		return false
	}
	defer now.close()
	return now.inode == ns.inode
}

func (ns netNS) close() {
	if ns.own {
		unix.Close(ns.fd)
	}
}

// cannotMove is the rule where a move fails.
const cannotMove = "cannot move a thread into the network namespace, which takes CAP_SYS_ADMIN"

// in calls f on a thread in the namespace, this one if it is there already, or
// with the reason why there is none.
func (ns netNS) run(f func(error)) {
	if ns.isCurrent() {
		f(nil)
		return
	}
	onThread(func() bool {
		var t movedThread
		f(t.move(ns))
		return t.moveBack()
	})
}

// movedThread is a locked thread that may be away from its network namespace.
type movedThread struct {
	moved bool
	home  netNS
}

// move takes the calling thread to a namespace.
func (t *movedThread) move(ns netNS) error {
	if ns.isCurrent() {
		return nil
	}
	home, err := currentNetNS()
	if err != nil {
		return err
	}
	t.home, t.moved = home, true
	return ns.join()
}

// moveBack undoes move, and reports whether the thread is where it was.
func (t *movedThread) moveBack() bool {
	if !t.moved {
		return true
	}
	defer t.home.close()
	return t.home.join() == nil
}

// threadNetNS is the network namespace that a thread is in, for other threads to
// follow it to. Without /proc, and with no descriptor left, they can still tell
// whether they are there already.
type threadNetNS struct {
	id  uint64 // of an inode, or a cookie; 0 if it cannot be told
	ns  netNS
	err error // why ns is not open
}

func openThreadNetNS() threadNetNS {
	t := threadNetNS{id: netNSID()}
	t.ns, t.err = currentNetNS()
	return t
}

// netNSID tells the calling thread's network namespace from others.
func netNSID() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &st) == nil {
		return st.Ino
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(socket)
	cookie, _ := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE) // Linux 5.14
	return cookie
}

// run calls f on a thread in the namespace, this one if it is there already. It
// reports whether a thread could get there.
func (t *threadNetNS) run(f func()) (there bool) {
	if netNSID() == t.id {
		f()
		return true
	}
	if t.err != nil {
		return false
	}
	t.ns.run(func(err error) {
		if there = err == nil; there {
			f()
		}
	})
	return there
}

func (t *threadNetNS) close() {
	if t.err == nil {
		t.ns.close()
	}
}
