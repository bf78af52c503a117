package progrun

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// programInfo is the start of struct bpf_prog_info.
type programInfo struct {
	typ, id                 uint32
	tag                     [8]byte
	jitedLen, translatedLen uint32 // 0 for a process without privilege
}

// infoOf returns the kernel's information about a program. It does not need /proc.
func infoOf(prog *ebpf.Program) (info programInfo, err error) {
	a := struct {
		fd, size uint32
		info     pointer
	}{uint32(prog.FD()), uint32(unsafe.Sizeof(info)), pointer{ptr: unsafe.Pointer(&info)}}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return info, errno
	}
	return info, nil
}

// programID returns the kernel's ID of a program.
func programID(prog *ebpf.Program) (uint32, error) {
	info, err := infoOf(prog)
	return info.id, err
}

// hasDispatcher reports whether the kernel has an XDP dispatcher, or cannot be
// asked. The dispatcher is part of the JIT. A kernel without a JIT interprets its
// programs, and has no sysctl for it.
func hasDispatcher(prog *ebpf.Program) bool {
	info, err := infoOf(prog)
	if err != nil || info.translatedLen == 0 || info.jitedLen > 0 {
		return true
	}
	_, err = os.Stat("/proc/sys/net/core/bpf_jit_enable")
	return !errors.Is(err, fs.ErrNotExist)
}

// entersAtOnce says whether a program enters the dispatcher without a wait, since
// the architecture generates no code.
const entersAtOnce = runtime.GOARCH != "amd64" && runtime.GOARCH != "386"

// moving is held while a program enters the dispatcher or leaves it. The kernel makes
// the next one wait, and attach must not take that for its own entry.
var moving sync.Mutex

// attach attaches the program in a new network namespace, on a thread that then
// ends. A socket keeps the namespace alive.
func (h *Hold) attach(prog *ebpf.Program) (err error) {
	onThread(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = holdPermission("make a network namespace", "CAP_SYS_ADMIN", err)
			return true
		}
		var socket int
		if socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			err = holdError("keep a network namespace", err)
			return false
		}
		const loopback = 1 // the first interface of every namespace
		moving.Lock()
		defer moving.Unlock()
		begin := time.Now()
		l, attachErr := link.AttachXDP(link.XDPOptions{Program: prog, Interface: loopback, Flags: link.XDPGenericMode})
		if attachErr != nil {
			unix.Close(socket)
			err = attachError(prog, attachErr)
			return false
		}
		h.entered = entersAtOnce || time.Since(begin) > dispatcherWait
		h.detach = func() error {
			moving.Lock()
			defer moving.Unlock()
			return errors.Join(l.Close(), unix.Close(socket))
		}
		return false
	})
	return err
}

// notHeld returns an error if the kernel never runs the program.
func notHeld(prog *ebpf.Program) error {
	if neverRuns(prog) {
		return explain(unix.EINVAL, newCall("Hold", nil, prog, &attr{}))
	}
	return nil
}

// attachError returns the error for a program that the kernel does not attach. If
// the kernel would not run the program either, it is the error of a run.
func attachError(prog *ebpf.Program, err error) error {
	if never := notHeld(prog); never != nil {
		return never
	}
	return holdPermission("attach the program in a network namespace of its own", "CAP_BPF before Linux 5.19", err)
}

func holdPermission(doing, takes string, err error) error {
	if errors.Is(err, unix.EPERM) {
		doing += ", which takes " + takes
	}
	return holdError(doing, err)
}
