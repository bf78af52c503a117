package progrun

import (
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Held keeps a program in the kernel's XDP dispatcher. See [Hold].
type Held struct {
	once sync.Once
	id   ebpf.ProgramID
	link link.Link
	ns   netNS
	err  error
}

// Hold keeps an XDP program in the kernel's XDP dispatcher, a patch of code
// that calls programs directly, so that calls which repeat it need not take it
// in and out. It makes a Repeat of [XDP], and calls of [Live], tens of
// milliseconds faster, or some 0.3 ms where the kernel was told to expedite its
// grace periods. x86-64 has the dispatcher, with room for 48 programs.
//
// It attaches the program, in generic mode, to the loopback interface of a
// network namespace of its own, where no packet ever is. It needs CAP_SYS_ADMIN
// and CAP_NET_ADMIN, and Linux 5.9. The program shows in lists of links. Making
// it takes some 10 ms, and closing it some 20 ms. It ends with Close, or the
// process, however that ends.
func Hold(prog *ebpf.Program) (*Held, error) {
	if _, err := xdpTypes.descriptor("Hold", prog); err != nil {
		return nil, err
	}
	id, err := programID(prog)
	if err != nil {
		return nil, holdError("tell which program it is", err)
	}
	h := &Held{id: id}
	onThread(func() bool {
		var restored bool
		restored, err = h.attach(prog)
		return restored
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

func programID(prog *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := prog.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

// holds is whether the hold is on prog.
func (h *Held) holds(prog *ebpf.Program) bool {
	id, err := programID(prog)
	return err == nil && id == h.id
}

// attach does the work of Hold on a thread of its own, and reports whether that
// is back where it was.
func (h *Held) attach(prog *ebpf.Program) (restored bool, err error) {
	home, err := currentNetNS()
	if err != nil {
		return true, holdError("open the network namespace", err)
	}
	defer home.close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return true, holdError("make a network namespace", err)
	}
	h.ns, err = currentNetNS()
	if err == nil {
		const loopback = 1 // the first interface of every namespace
		h.link, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: loopback, Flags: link.XDPGenericMode})
		if err != nil {
			h.ns.close()
		}
	}
	if err != nil {
		err = holdError("attach the program in a network namespace of its own", err)
	}
	return home.join() == nil, err
}

func holdError(doing string, err error) error {
	e := &Error{Request: "Hold", Rule: "cannot " + doing, Err: err}
	if errno := errnoOf(err); errno == unix.EPERM {
		e.Rule += ", which takes CAP_SYS_ADMIN and CAP_NET_ADMIN"
	}
	return e
}

// Close lets go of the program. Further calls do nothing.
func (h *Held) Close() error {
	h.once.Do(func() {
		if err := h.link.Close(); err != nil {
			h.err = holdError("detach the program", err)
		}
		h.ns.close()
	})
	return h.err
}

// openNetNS opens the namespace of a request: 0 is that of the calling thread.
func openNetNS(fd int) (netNS, error) {
	if fd == 0 {
		ns, err := currentNetNS()
		if err != nil {
			return netNS{}, &Error{Request: "Live", Rule: "cannot open this thread's network namespace", Err: err}
		}
		return ns, nil
	}
	ns := netNS{fd: fd}
	if err := ns.stat(); err != nil {
		return netNS{}, &Error{Request: "Live", Field: "NetNS", Value: strconv.Itoa(fd), Rule: "no such file is open", Err: errnoOf(err)}
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return netNS{}, refuse("Live", "NetNS", strconv.Itoa(fd), "not a network namespace", syscall.EINVAL)
	}
	return ns, nil
}

// liveThread is what a worker changes about its thread, and puts back.
type liveThread struct {
	movedThread
	blocked bool
	signals unix.Sigset_t
	pinned  bool
	cpus    unix.CPUSet
	slack   int
}

// enter makes the calling thread a worker's.
func (t *liveThread) enter(ns netNS, cpu int) error {
	if err := t.move(ns); err != nil {
		return &Error{Request: "Live", Field: "NetNS", Rule: cannotMove, Err: err}
	}
	if cpu >= 0 {
		if err := t.pin(cpu); err != nil {
			return err
		}
	}
	if errno := setSignals(allSignals(), &t.signals); errno != 0 {
		return &Error{Request: "Live", Rule: "cannot block the signals of a thread", Err: errno}
	}
	t.blocked = true
	// The default of 50 µs is a long time between frames.
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil {
		t.slack = slack
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	}
	return nil
}

func (t *liveThread) pin(cpu int) error {
	if err := unix.SchedGetaffinity(0, &t.cpus); err != nil {
		return &Error{Request: "Live", Field: "CPUs", Rule: "cannot read the CPUs of a thread", Err: err}
	}
	var one, now unix.CPUSet
	one.Set(cpu)
	t.pinned = true
	err := unix.SchedSetaffinity(0, &one)
	if err == nil {
		err = unix.SchedGetaffinity(0, &now)
	}
	if err == nil && now != one {
		err = unix.EINVAL
	}
	if err != nil || cpu >= len(one)*strconv.IntSize {
		return &Error{Request: "Live", Field: "CPUs", Value: strconv.Itoa(cpu),
			Rule: "no such CPU is online, or this process may not use it", Err: unix.EINVAL}
	}
	return nil
}

// leave undoes enter, and reports whether all is as it was.
func (t *liveThread) leave() bool {
	ok := true
	if t.slack > 0 {
		ok = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(t.slack), 0, 0, 0) == nil
	}
	if t.pinned {
		var now unix.CPUSet
		ok = unix.SchedSetaffinity(0, &t.cpus) == nil && unix.SchedGetaffinity(0, &now) == nil && now == t.cpus && ok
	}
	ok = t.moveBack() && ok
	if t.blocked {
		ok = setSignals(&t.signals, nil) == 0 && ok
	}
	return ok
}

// sleepUntil waits for a moment, or less if the run ends before. The last bit
// is spent spinning: as much as sleeps are late here, which can be a tick of
// the kernel.
func (p *pace) sleepUntil(at time.Time) {
	const (
		nap  = 5 * time.Millisecond // how often to look whether the run has ended
		spin = 60 * time.Microsecond
	)
	for !p.run.ended() {
		begin := time.Now()
		left := at.Sub(begin)
		if left <= 0 {
			return
		}
		if left -= max(p.late, spin); left > 0 {
			left = min(left, nap)
			ts := unix.NsecToTimespec(int64(left))
			_ = unix.Nanosleep(&ts, nil) // cut short by a signal, it is tried again
			p.late = max(time.Since(begin)-left, p.late-p.late/16)
		}
	}
}
