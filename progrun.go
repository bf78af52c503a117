// Package progrun runs loaded BPF programs from user space, by the kernel's
// BPF_PROG_RUN command (once BPF_PROG_TEST_RUN).
//
// There is one request type for each family of program types, with just the
// fields that the kernel takes for it, and one verb, Run:
//
//	res, err := progrun.XDP{Packet: frame}.Run(prog)
//	res.Action // progrun.XDPDrop, which prints as "XDP_DROP"
//
// In the header of an if, for or switch, Go wants the literal in parentheses:
// (progrun.XDP{Packet: frame}).Run(prog).
//
// A request is a plain value: it may be kept, copied, changed and run again,
// from many goroutines at once as long as they do not share its output
// buffers. Nothing is kept between runs, and a run allocates nothing when it
// is given somewhere to put its output.
//
// # What a run does
//
// The program runs for real: its maps, ring buffers and helpers take effect.
// Its verdict is not acted on: nothing is dropped or redirected, though
// bpf_clone_redirect does transmit. Interface indexes are looked up in the
// network namespace of the calling thread; callers that moved theirs hold it
// with [runtime.LockOSThread].
//
// # Repeat and time
//
// Repeat runs the program again and again within one system call; 0 and 1 both
// mean once. The kernel does not reset the packet or the context in between:
// a program that edits the packet meets its own edits. PerRun is the kernel's
// own mean time of one run, without the system call. It cannot exceed 4.29
// seconds. For XDP, a call with a Repeat above 1 costs tens of milliseconds
// more, for it takes the program into the kernel's XDP dispatcher and out
// again (x86-64), unless the program is attached to some device meanwhile.
//
// Signals could cut such a call short, and nobody would know how far it came.
// So its thread blocks all signals until it is done; a Repeat of many seconds
// is many seconds in which no context ends it. Only a stop of the process and
// [syscall.AllThreadsSyscall] still cut it, with EINTR.
//
// # Output
//
// Out is a buffer that the output is written to from its start, growing as
// append would: pass the same one again to run without an allocation, or leave
// it nil. The output is as large as the packet came out of the program; no
// room for growth is needed. NoOutput wants the verdict only and is the
// fastest.
//
// # Privilege
//
// Since Linux 5.19 a process that holds a program's descriptor needs no
// capability to run it. Before, EPERM answers a process without CAP_BPF where
// the sysctl kernel.unprivileged_bpf_disabled is set.
package progrun

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// attr is the part of union bpf_attr that BPF_PROG_RUN reads and writes. It
// lives on the stack of the Run that makes it, and has the size of the
// kernel's own: the kernel writes results at their offsets whatever the size
// it is told.
type attr struct {
	progFD, retval          uint32
	dataSizeIn, dataSizeOut uint32
	dataIn, dataOut         pointer
	repeat, duration        uint32
	ctxSizeIn, ctxSizeOut   uint32
	ctxIn, ctxOut           pointer
	flags, cpu, batchSize   uint32
	tail                    [4]byte
}

const attrSize = unsafe.Sizeof(attr{})

// interruptible is whether a signal could cut the call short. Such calls are
// made with signals blocked; those that none can interrupt pay nothing.
func (a *attr) interruptible() bool { return a.repeat > 1 || !knowsBatchSize() }

// run hands the attr to the kernel, once. A request's Run does the same in its
// own frame, for the reason that progRun gives.
func (a *attr) run() syscall.Errno {
	if a.interruptible() {
		return progRunBlocked(a, attrSize)
	}
	return progRun(a, attrSize)
}

// ask is run for calls that only ask, and run nothing.
func (a *attr) ask() syscall.Errno { return progRun(a, attrSize) }

// longAttr is an attr with room for fields that later kernels append. A page
// is the most that the kernel takes.
type longAttr struct {
	attr
	more [4096 - attrSize]byte
}

// run is that of attr; size is how much of a longAttr to hand over.
func (a *longAttr) run(size uintptr) syscall.Errno {
	if a.interruptible() {
		return progRunBlocked(&a.attr, size)
	}
	return progRun(&a.attr, size)
}

// Flags of attr, by the names of linux/bpf.h.
const (
	testRunOnCPU            = 1 << 0 // BPF_F_TEST_RUN_ON_CPU
	testXDPLiveFrames       = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	testSKBChecksumComplete = 1 << 2 // BPF_F_TEST_SKB_CHECKSUM_COMPLETE
)

const (
	ethHLen      = 14             // ETH_HLEN
	maxFrags     = 45             // the most that CONFIG_MAX_SKB_FRAGS can be
	defaultFrags = 17             // CONFIG_MAX_SKB_FRAGS if not set
	skbHeadroom  = 64             // NET_SKB_PAD
	xdpHeadroom  = 256            // XDP_PACKET_HEADROOM
	minTailroom  = 320            // sizeof(struct skb_shared_info) with defaultFrags, in cache lines of 64 bytes
	maxCtx       = math.MaxUint16 // of a syscall program
	maxFuncArgs  = 12             // MAX_BPF_FUNC_ARGS
)

// on is an attr for a program, its data and its contexts; each is nil if there
// is none, but never empty otherwise.
func on(fd uint32, dataIn, dataOut, ctxIn, ctxOut []byte) attr {
	return repeatedOn(fd, dataIn, dataOut, ctxIn, ctxOut, 0, 0)
}

// repeatedOn is on, with a repeat and flags. It is one literal that the compiler
// puts where it is wanted: an attr that is filled in piece by piece, and copied,
// costs a twentieth of a run. What a run executes is cold after every system
// call; that is also why refusals and explanations are functions of their own.
func repeatedOn(fd uint32, dataIn, dataOut, ctxIn, ctxOut []byte, repeat, flags uint32) attr {
	return attr{
		progFD: fd,
		dataIn: pointer{ptr: unsafe.Pointer(unsafe.SliceData(dataIn))}, dataSizeIn: uint32(len(dataIn)),
		dataOut: pointer{ptr: unsafe.Pointer(unsafe.SliceData(dataOut))}, dataSizeOut: uint32(len(dataOut)),
		ctxIn: pointer{ptr: unsafe.Pointer(unsafe.SliceData(ctxIn))}, ctxSizeIn: uint32(len(ctxIn)),
		ctxOut: pointer{ptr: unsafe.Pointer(unsafe.SliceData(ctxOut))}, ctxSizeOut: uint32(len(ctxOut)),
		repeat: repeat, flags: flags,
	}
}

// orNil is nil for an empty slice.
func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// programTypes is a set of program types, one bit each.
type programTypes uint64

// requests are the types that there is a request for.
const requests programTypes = xdpTypes | tcTypes | socketFilterTypes | cgroupSKBTypes | lwtTypes |
	flowDissectorTypes | skLookupTypes | netfilterTypes | rawTracepointTypes | tracingTypes |
	syscallTypes | structOpsTypes

// anyType is every type, but that of a program which was never loaded.
const anyType = ^programTypes(1 << ebpf.UnspecifiedProgram)

// descriptor gives the file descriptor of prog, if prog is of one of these
// types and still open. The caller keeps prog alive until after the call.
func (t programTypes) descriptor(request string, prog *ebpf.Program) (uint32, error) {
	if prog != nil && t&(1<<prog.Type()) != 0 {
		if fd := prog.FD(); fd >= 0 {
			return uint32(fd), nil
		}
	}
	return 0, t.unfit(request, prog)
}

// unfit says why a program has no descriptor for a request.
func (t programTypes) unfit(request string, prog *ebpf.Program) error {
	switch {
	case prog == nil:
		return refuse(request, "", "", "the program is nil", syscall.EINVAL)
	case t&(1<<prog.Type()) == 0:
		return wrongType(request, prog.Type(), t)
	}
	return refuse(request, "", "", "the program is closed", syscall.EBADF)
}

func wrongType(request string, have ebpf.ProgramType, want programTypes) error {
	if have == ebpf.UnspecifiedProgram {
		return refuse(request, "", "", "the program was never loaded", syscall.EINVAL)
	}
	var names []string
	for t := range ebpf.ProgramType(64) {
		if want&(1<<t) != 0 {
			names = append(names, t.String())
		}
	}
	rule := fmt.Sprintf("runs %s programs, not %s", strings.Join(names, ", "), have)
	if other := requestFor(have); other != "" {
		rule += ", which progrun." + other + " runs"
	}
	return refuse(request, "", "", rule, syscall.EINVAL)
}

// requestFor is the request for programs of a type.
func requestFor(t ebpf.ProgramType) string {
	for _, r := range []struct {
		types programTypes
		name  string
	}{
		{xdpTypes, "XDP"}, {tcTypes, "TC"}, {socketFilterTypes, "SocketFilter"}, {cgroupSKBTypes, "CGroupSKB"},
		{lwtTypes, "LWT"}, {flowDissectorTypes, "FlowDissector"}, {skLookupTypes, "SkLookup"},
		{netfilterTypes, "Netfilter"}, {rawTracepointTypes, "RawTracepoint"}, {tracingTypes, "Tracing"},
		{syscallTypes, "Syscall"}, {structOpsTypes, "StructOps"},
	} {
		if r.types&(1<<t) != 0 {
			return r.name
		}
	}
	return ""
}

// inRange refuses a number that does not fit where the kernel has it.
func inRange(request, field string, n int, most uint32) error {
	if uint64(n) <= uint64(most) {
		return nil
	}
	return outOfRange(request, field, n, most)
}

func outOfRange(request, field string, n int, most uint32) error {
	if n < 0 {
		return refuse(request, field, strconv.Itoa(n), "it cannot be negative", syscall.EINVAL)
	}
	return refuse(request, field, strconv.Itoa(n), fmt.Sprintf("it can be at most %d", most), syscall.EINVAL)
}

// atLeastEthernet refuses a packet that ends before its Ethernet header does.
// Kernels before 6.14 ran XDP programs on such packets, and read past them.
func atLeastEthernet(request string, n int) error {
	if n >= ethHLen {
		return nil
	}
	return lessThanEthernet(request, n)
}

func lessThanEthernet(request string, n int) error {
	return refuse(request, "Packet", size(n), "a packet begins with a 14-byte Ethernet header", syscall.EINVAL)
}

var pageSize = os.Getpagesize()

// maxPacket is more than any kernel takes: a linear part and as many fragments
// as a kernel can have, a page each.
var maxPacket = (maxFrags + 1) * pageSize

// scratch is a pool of buffers that are large enough for any packet, before
// and after a run.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, maxPacket+xdpHeadroom+pageSize)
	return &b
}}

// buffer is the memory of a packet on its way to the kernel or back: the
// caller's, or scratch.
type buffer struct {
	buf     []byte
	scratch *[]byte
}

func fromScratch() buffer {
	s := scratch.Get().(*[]byte)
	return buffer{buf: *s, scratch: s}
}

// outputFor is where the kernel writes a packet of at most most bytes: the
// caller's buffer where that is surely large enough, else scratch, from which
// the caller gets a copy. The kernel is always told the size; a result cut
// short is then impossible, which matters since kernels before 7.2 cut those
// with fragments wrongly.
func outputFor(out []byte, most int) buffer {
	if cap(out) >= most {
		return buffer{buf: out[:cap(out)]}
	}
	return fromScratch()
}

// take returns the first n bytes of an output, in out's memory as far as that
// reaches, and gives scratch back.
func (b buffer) take(out []byte, n uint32) []byte {
	if uint64(n) > uint64(len(b.buf)) {
		n = uint32(len(b.buf)) // never beyond what was ours, whatever the kernel says
	}
	if b.scratch == nil {
		return b.buf[:n]
	}
	out = append(out[:0], b.buf[:n]...)
	b.release()
	return out
}

// release gives scratch back.
func (b buffer) release() {
	if b.scratch != nil {
		scratch.Put(b.scratch)
	}
}

// perRun is the kernel's mean time of one run.
func (a *attr) perRun() time.Duration { return time.Duration(a.duration) }

// Raw is every field of the kernel's attr, for any program type: for what the
// typed requests leave out, such as what a later kernel adds.
//
// The lengths of the slices are the sizes that the kernel is told; an empty
// slice is a null pointer. What DataIn and CtxIn hold is told by the kernel's
// headers, in the byte order of the machine. CtxIn of a Syscall program is
// written to. A later kernel's fields go into Tail.
//
// All is handed to the kernel as it is, unknown flags too, but for live frames
// (BPF_F_TEST_XDP_LIVE_FRAMES, 1<<1): for these, DataOut and CtxOut must be
// empty (the kernel would fill DataOut with frames that never ran), BatchSize
// at most 256, and the kernel must know them; kernels from 5.10 to 5.17 ignore
// the flag, and would run the program once more than meant.
type Raw struct {
	DataIn    []byte
	DataOut   []byte // written by the kernel, len(DataOut) bytes at most
	CtxIn     []byte
	CtxOut    []byte // written by the kernel, len(CtxOut) bytes at most
	Repeat    uint32 // 0 means 1
	Flags     uint32 // BPF_F_TEST_*
	CPU       uint32 // with BPF_F_TEST_RUN_ON_CPU
	BatchSize uint32 // with BPF_F_TEST_XDP_LIVE_FRAMES
	Tail      []byte // what follows batch_size, from offset 76 of the attr on; at most 4020 bytes
}

// RawResult is every output of the kernel's attr. DataSizeOut and CtxSizeOut
// are the full sizes of what there was to write, which may be more than the
// buffers held; after an error that says so (ENOSPC) the result is valid as
// far as it goes.
type RawResult struct {
	Retval      uint32
	DataSizeOut uint32
	CtxSizeOut  uint32
	Duration    time.Duration // the mean of one run
	// Ignored names the fields of the request that were set, but that the
	// kernel does not look at for this type of program, such as "CPU".
	Ignored string
}

// Run hands the request to the kernel. Since Linux 4.12; contexts since 5.2.
func (r Raw) Run(prog *ebpf.Program) (RawResult, error) {
	fd, err := anyType.descriptor("Raw", prog)
	if err == nil {
		err = r.check(prog)
	}
	if err != nil {
		return RawResult{}, err
	}
	a := r.attr(fd)
	errno := a.run(unsafe.Sizeof(a.attr) + uintptr(max(0, len(r.Tail)-len(a.tail))))
	runtime.KeepAlive(prog)
	res := RawResult{
		Retval: a.retval, DataSizeOut: a.dataSizeOut, CtxSizeOut: a.ctxSizeOut,
		Duration: a.perRun(), Ignored: r.ignored(prog.Type()),
	}
	if errno != 0 {
		return res, explain(errno, r.call(prog, &a.attr))
	}
	return res, nil
}

// check refuses what does not fit in an attr, and what a live run must not have.
func (r Raw) check(prog *ebpf.Program) error {
	var a longAttr
	if most := len(a.tail) + len(a.more); len(r.Tail) > most {
		return refuse("Raw", "Tail", size(len(r.Tail)), fmt.Sprintf("at most %d bytes", most), syscall.E2BIG)
	}
	for _, b := range []struct {
		field string
		n     int
	}{{"DataIn", len(r.DataIn)}, {"DataOut", len(r.DataOut)}, {"CtxIn", len(r.CtxIn)}, {"CtxOut", len(r.CtxOut)}} {
		if uint64(b.n) > math.MaxUint32 {
			return refuse("Raw", b.field, size(b.n), "a size has 32 bits", syscall.E2BIG)
		}
	}
	if r.Flags&testXDPLiveFrames != 0 {
		return r.checkLive(prog)
	}
	return nil
}

// checkLive holds a request with the live flag to the rules of live frames,
// where the kernel would rather run the program.
func (r Raw) checkLive(prog *ebpf.Program) error {
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
	case !haveXDPLiveFrames(prog):
		return &Error{Request: "Raw", Field: "Flags", Value: fmt.Sprintf("%#x", r.Flags),
			Rule: "this kernel has no live frames, and would ignore the flag", Err: unsupported{syscall.EINVAL}}
	}
	return nil
}

func (r Raw) attr(fd uint32) longAttr {
	a := longAttr{attr: on(fd, orNil(r.DataIn), orNil(r.DataOut), orNil(r.CtxIn), orNil(r.CtxOut))}
	a.repeat, a.flags, a.cpu, a.batchSize = r.Repeat, r.Flags, r.CPU, r.BatchSize
	copy(a.more[:], r.Tail[copy(a.tail[:], r.Tail):])
	return a
}

// ignored names what is set, but not for programs of type t.
func (r *Raw) ignored(t ebpf.ProgramType) string {
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
	return strings.Join(names, ", ")
}

func (r Raw) call(prog *ebpf.Program, a *attr) call {
	c := callOf("Raw", rawNames, prog, a)
	c.dataSizeOut, c.ctxSizeOut = uint32(len(r.DataOut)), uint32(len(r.CtxOut))
	copy(c.ctx[:], r.CtxIn)
	copy(c.head[:], r.DataIn)
	for _, b := range r.Tail {
		c.tail = c.tail || b != 0
	}
	return c
}
