package progrun

import (
	"fmt"
	"math"
	"runtime"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// Raw runs a program of any type, with every field of the kernel's attr. It serves
// what the typed requests leave out, such as fields of later kernels.
//
// The kernel is told the lengths of the slices as sizes. An empty slice is a null
// pointer. The kernel's headers define what DataIn and CtxIn hold, in the byte
// order of the machine. A syscall program writes to CtxIn. Fields of later kernels
// go into Tail.
//
// Run passes everything to the kernel as it is, even unknown flags. The exception
// is live frames (BPF_F_TEST_XDP_LIVE_FRAMES, 1<<1). For these, DataOut and CtxOut
// must be empty, since the kernel would fill DataOut with frames that never ran.
// BatchSize is at most 256. The kernel must have live frames: kernels from 5.10 to
// 5.17 ignore the flag, and would run the program as if it were not set.
type Raw struct {
	DataIn    []byte // the input, usually a packet
	DataOut   []byte // buffer for the output; the kernel writes at most len(DataOut) bytes
	CtxIn     []byte // the context
	CtxOut    []byte // buffer for the context after the run; the kernel writes at most len(CtxOut) bytes
	Repeat    uint32 // how often the program runs; 0 means once
	Flags     uint32 // BPF_F_TEST_*
	CPU       uint32 // CPU to run on, with BPF_F_TEST_RUN_ON_CPU
	BatchSize uint32 // frames in a batch, with BPF_F_TEST_XDP_LIVE_FRAMES
	Tail      []byte // bytes of the attr after batch_size, from offset 76 on; at most 4,020, of which the first 4 cost nothing
}

// RawResult has every output of the kernel's attr. If an output did not fit its
// buffer, Run fails with ENOSPC, and the result is valid as far as it goes.
type RawResult struct {
	Retval      uint32        // what the program returned
	DataSizeOut uint32        // full size of the output, which may exceed len(DataOut)
	CtxSizeOut  uint32        // full size of the context, which may exceed len(CtxOut)
	Duration    time.Duration // mean time of one run
}

// Run runs prog, of any type. Since Linux 4.12; contexts since 5.2.
func (r Raw) Run(prog *ebpf.Program) (RawResult, error) {
	fd, err := anyType.descriptor("Raw", prog)
	if err == nil {
		err = r.check(prog)
	}
	if err != nil {
		return RawResult{}, err
	}
	a := r.attr(fd)
	var errno syscall.Errno
	if len(r.Tail) > len(a.tail) {
		errno = r.runLong(&a)
	} else {
		guard := a.guard()
		errno = progRun(&a, attrSize)
		guard.release()
	}
	runtime.KeepAlive(prog)
	res := RawResult{Retval: a.retval, DataSizeOut: a.dataSizeOut, CtxSizeOut: a.ctxSizeOut, Duration: a.perRun()}
	if errno != 0 {
		return res, explain(errno, r.call(prog, &a))
	}
	return res, nil
}

// runLong runs an attr whose tail is longer than the field for it. It is separate
// because filling and copying a page is slow.
func (r *Raw) runLong(a *attr) syscall.Errno {
	long := r.longAttr(a)
	errno := long.runSized(attrSize + uintptr(len(r.Tail)-len(a.tail)))
	*a = long.attr
	return errno
}

func (r *Raw) longAttr(a *attr) longAttr {
	long := longAttr{attr: *a}
	copy(long.more[:], r.Tail[len(a.tail):])
	return long
}

// check rejects requests that do not fit in an attr, and live frames that break
// the rules of Raw for them.
func (r *Raw) check(prog *ebpf.Program) error {
	if len(r.Tail) > maxTail || uint64(len(r.DataIn)|len(r.DataOut)|len(r.CtxIn)|len(r.CtxOut)) > math.MaxUint32 {
		return r.tooLarge()
	}
	if r.Flags&testXDPLiveFrames != 0 {
		return r.checkLive(prog)
	}
	return nil
}

func (r *Raw) tooLarge() error {
	for _, b := range []struct {
		field string
		n     int
	}{{"DataIn", len(r.DataIn)}, {"DataOut", len(r.DataOut)}, {"CtxIn", len(r.CtxIn)}, {"CtxOut", len(r.CtxOut)}} {
		if uint64(b.n) > math.MaxUint32 {
			return refuse("Raw", b.field, size(b.n), "a size has 32 bits", syscall.E2BIG)
		}
	}
	return refuse("Raw", "Tail", size(len(r.Tail)), fmt.Sprintf("at most %d bytes", maxTail), syscall.E2BIG)
}

// checkLive rejects a request with the flag for live frames that breaks their
// rules, where the kernel would run the program.
func (r *Raw) checkLive(prog *ebpf.Program) error {
	switch {
	case prog.Type() != ebpf.XDP:
		return refuse("Raw", "Flags", fmt.Sprintf("%#x", r.Flags),
			"only XDP programs run on live frames", syscall.EINVAL)
	case len(r.DataOut) > 0:
		return refuse("Raw", "DataOut", size(len(r.DataOut)), "live frames have no output", syscall.EINVAL)
	case len(r.CtxOut) > 0:
		return refuse("Raw", "CtxOut", size(len(r.CtxOut)), "live frames have no output", syscall.EINVAL)
	case r.BatchSize > maxBatchSize:
		return refuse("Raw", "BatchSize", fmt.Sprint(r.BatchSize), overMaxBatchSize, syscall.E2BIG)
	}
	return wantLiveFrames("Raw", "Flags", fmt.Sprintf("%#x", r.Flags), prog)
}

func (r *Raw) attr(fd uint32) attr {
	a := newAttr(fd, orNil(r.DataIn), orNil(r.DataOut), orNil(r.CtxIn), orNil(r.CtxOut), r.Repeat, r.Flags)
	a.cpu, a.batchSize = r.CPU, r.BatchSize
	copy(a.tail[:], r.Tail)
	return a
}

// Ignored returns the names of the fields that are set, but that the kernel
// ignores for programs of type t, such as "CPU". If that depends on the kernel,
// Ignored asks it, without running a program.
func (r Raw) Ignored(t ebpf.ProgramType) []string {
	var names []string
	add := func(name string, set bool) {
		if set {
			names = append(names, name)
		}
	}
	switch t {
	case ebpf.XDP:
		add("Flags", r.Flags != 0 && !knowsBatchSize()) // 5.18 began to look at them
		add("CPU", r.CPU != 0)
	case ebpf.Syscall:
		add("CPU", r.CPU != 0)
	case ebpf.RawTracepoint:
		add("Flags", r.Flags&^testRunOnCPU != 0)
	case ebpf.Netfilter:
		add("DataOut", len(r.DataOut) > 0)
		add("CtxOut", len(r.CtxOut) > 0)
	case ebpf.Tracing, ebpf.StructOps:
		add("DataIn", len(r.DataIn) > 0)
		add("DataOut", len(r.DataOut) > 0)
		add("CtxIn", len(r.CtxIn) > 0 && t == ebpf.Tracing)
		add("CtxOut", len(r.CtxOut) > 0)
		add("Repeat", r.Repeat != 0)
		add("Flags", r.Flags != 0)
		add("CPU", r.CPU != 0)
		add("BatchSize", r.BatchSize != 0)
	}
	return names
}

func (r *Raw) call(prog *ebpf.Program, a *attr) call {
	c := newCall("Raw", rawNames, prog, a)
	c.dataSizeOut, c.ctxSizeOut = uint32(len(r.DataOut)), uint32(len(r.CtxOut))
	copy(c.ctx[:], r.CtxIn)
	copy(c.head[:], r.DataIn)
	for _, b := range r.Tail {
		c.tail = c.tail || b != 0
	}
	return c
}
