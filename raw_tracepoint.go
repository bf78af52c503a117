package progrun

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// CPU says on which CPU a program runs. The zero value means the caller's CPU.
type CPU struct {
	n      int
	chosen bool
}

// OnCPU returns the CPU with number n, counted from 0.
func OnCPU(n int) CPU { return CPU{n, true} }

// String returns "CPU 3" or "the caller's CPU".
func (c CPU) String() string {
	if !c.chosen {
		return "the caller's CPU"
	}
	return "CPU " + strconv.Itoa(c.n)
}

// MarshalText returns what String does.
func (c CPU) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText parses what String returns.
func (c *CPU) UnmarshalText(text []byte) error {
	digits, chosen := strings.CutPrefix(string(text), "CPU ")
	n, _ := strconv.Atoi(digits)
	if parsed := (CPU{n, chosen}); parsed.String() == string(text) {
		*c = parsed
		return nil
	}
	return noSuchWord("CPU", text)
}

// RawTracepoint runs a raw tracepoint program, once. Since Linux 5.10. See
// bpf_prog_test_run_raw_tp in the kernel's net/bpf/test_run.c.
//
// The kernel does not measure the time of these programs. Since Linux 7.2 it
// silently skips the run if the program is already active on that CPU. Return is
// then 0.
type RawTracepoint struct {
	// Args are the arguments of the tracepoint: at most 12, and at least as many as
	// the program reads (EINVAL). A pointer is passed as a number. Programs read
	// through it with helpers, which may fail.
	Args []uint64
	// CPU is the CPU to run on. OnCPU(n) runs the program there in interrupt
	// context. It fails if the CPU is not online (ENXIO), or if the program sleeps,
	// as some can since Linux 7.2 (EINVAL).
	CPU CPU
}

// RawTracepointResult is the result of a run of [RawTracepoint].
type RawTracepointResult struct {
	// Return is the low 32 bits of what the program returned.
	Return int32
}

var rawTracepointNames = fieldNames{"ctx_size_in": "Args", "cpu": "CPU"}

// Run runs prog, of type [ebpf.RawTracepoint].
func (r RawTracepoint) Run(prog *ebpf.Program) (RawTracepointResult, error) {
	fd, err := rawTracepointTypes.descriptor("RawTracepoint", prog)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return RawTracepointResult{}, err
	}

	a := r.attr(fd)
	errno := progRun(&a, attrSize) // no signal can interrupt this type
	runtime.KeepAlive(prog)
	if errno != 0 {
		return RawTracepointResult{}, explain(errno, newCall("RawTracepoint", rawTracepointNames, prog, &a))
	}
	return RawTracepointResult{Return: int32(a.retval)}, nil
}

func (r *RawTracepoint) attr(fd uint32) attr {
	var args []byte
	if len(r.Args) > 0 {
		args = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r.Args))), 8*len(r.Args))
	}
	a := newAttr(fd, nil, nil, args, nil, 0, 0)
	if r.CPU.chosen {
		a.flags, a.cpu = testRunOnCPU, uint32(r.CPU.n)
	}
	return a
}

// check rejects too many arguments, and a CPU that does not fit in the kernel's 32
// bits.
func (r *RawTracepoint) check() error {
	if len(r.Args) > maxFuncArgs {
		return refuse("RawTracepoint", "Args", fmt.Sprintf("%d arguments", len(r.Args)),
			fmt.Sprintf("a tracepoint has at most %d", maxFuncArgs), syscall.EINVAL)
	}
	return canExist("RawTracepoint", "CPU", r.CPU.n, noSuchCPU, syscall.ENXIO)
}
