package progrun

import (
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// Hold keeps a program in the kernel's XDP dispatcher, a piece of generated code
// that calls XDP programs directly. Each call that repeats an XDP program adds it
// to the dispatcher and removes it again. That takes tens of milliseconds, or some
// 0.3 ms if the kernel was told to expedite its grace periods. A held program is in
// the dispatcher already. So a Hold makes a Repeat of [XDP] and the calls of [Live]
// that much faster.
//
// The dispatcher has room for 48 programs: a Hold that finds it full silently does
// nothing until others leave. It also has a lock, which every call that repeats an
// XDP program takes. While another process repeats a program that it does not hold,
// such calls still wait for each other, tens of milliseconds each. And a run of [Raw]
// with a Repeat that needs more fragments than a packet has (ENOMEM) takes the program
// out of the dispatcher, which a Hold does not notice.
//
// Only x86-64 has the generated code. Other architectures also keep the list of
// programs, and a call waits when it removes the last one. So a Hold is as useful
// there. A kernel that was built without a JIT has neither. There a Hold does
// nothing, costs nothing and needs no privilege.
type Hold struct {
	id      uint32 // of the program
	entered bool   // whether the program entered the dispatcher when the hold was made, if there is one
	mu      sync.Mutex
	detach  func() error // nil once closed
}

// dispatcherWait is shorter than a wait for the XDP dispatcher.
const dispatcherWait = 2 * time.Millisecond

// NewHold holds an XDP program until Close is called or the process ends.
//
// It attaches the program, in generic mode, to the loopback interface of a new
// network namespace, where there are no packets. The program appears in lists of
// links. This takes Linux 5.9, and CAP_SYS_ADMIN in the process's own user namespace
// (EPERM). Before Linux 5.19 it takes CAP_BPF too. NewHold and Close take some 15 ms
// each, or about 1 ms for a program that is in the dispatcher already.
func NewHold(prog *ebpf.Program) (*Hold, error) {
	if _, err := xdpTypes.descriptor("Hold", prog); err != nil {
		return nil, err
	}
	id, err := programID(prog)
	if err != nil {
		return nil, holdError("tell which program it is", err)
	}
	h := &Hold{id: id}
	if hasDispatcher(prog) {
		err = h.attach(prog)
	} else {
		h.entered, h.detach = true, func() error { return nil }
		err = notHeld(prog)
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// holds reports whether h holds prog.
func (h *Hold) holds(prog *ebpf.Program) bool {
	id, err := programID(prog)
	return err == nil && id == h.id
}

func holdError(doing string, err error) error {
	return &Error{Request: "Hold", Rule: "cannot " + doing, Err: err}
}

// Close releases the program. It does nothing if the Hold is closed or nil.
func (h *Hold) Close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	detach := h.detach
	h.detach = nil
	h.mu.Unlock()
	if detach == nil {
		return nil
	}
	if err := detach(); err != nil {
		return holdError("detach the program", err)
	}
	return nil
}

// closed returns an error if the Hold is closed, or was not made by NewHold.
func (h *Hold) closed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.detach != nil {
		return nil
	}
	return refuse("Live", "Hold", "", "the hold is closed", syscall.EBADF)
}
