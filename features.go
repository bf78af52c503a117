package progrun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"weak"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// noIfindex is an interface that cannot exist: a request which names it is
// checked, and refused with ENODEV where all else about it is legal.
const noIfindex = 0x7fffffff

// answer is what was found out of a kernel, once it is certain.
type answer struct{ atomic.Uint32 }

const (
	unknown uint32 = iota
	yes
	no
)

// lacks is whether a probe said no, rather than that it could not tell.
func lacks(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }

var batchSizeKnown answer

// knowsBatchSize is whether this kernel's attr has the field batch_size, as
// since 5.18. Unknown fields are looked at before the program, so a descriptor
// that cannot exist gives the answer: EBADF.
//
// Such a kernel also finishes a single run although a signal is pending, for
// it has 607b9cc92bd7 (5.13), which there is no asking for.
func knowsBatchSize() bool {
	return batchSizeKnown.Load() == yes || askForBatchSize()
}

func askForBatchSize() bool {
	if batchSizeKnown.Load() == no {
		return false
	}
	a := on(^uint32(0), nil, nil, nil, nil)
	a.batchSize = 1
	switch a.ask() {
	case syscall.EBADF:
		batchSizeKnown.Store(yes)
		return true
	case syscall.EINVAL:
		batchSizeKnown.Store(no)
	}
	return false
}

// probe runs a program of its own, which does nothing, to find out what the
// kernel can do.
type probe struct {
	name  string // in words, such as "XDP contexts"
	typ   ebpf.ProgramType
	since string           // mainline Linux; for the message
	insns asm.Instructions // of the program, if it does anything
	// ask makes the call, and yes is what the kernel answers if it can.
	ask func(fd uint32) syscall.Errno
	yes syscall.Errno

	known answer
	try   sync.Once
}

// once is the answer, or unknown, for those who can do without: where it cannot
// be found out, it is not tried again and again. It allocates nothing once it
// is known, and those who ask at the same time wait for the one who tries.
func (p *probe) once() uint32 {
	if known := p.known.Load(); known != unknown {
		return known
	}
	p.try.Do(func() { _ = p.result() })
	return p.known.Load()
}

// result runs the probe unless the answer is known: nil if the kernel can, an
// error that Is ebpf.ErrNotSupported if it cannot, and any other if that could
// not be found out.
func (p *probe) result() error {
	if p.known.Load() == unknown {
		if err := p.find(); err != nil {
			return &Error{Request: p.name, Rule: "cannot find out whether this kernel has them", Err: err}
		}
	}
	if p.known.Load() == no {
		return &Error{Request: p.name, Rule: "this kernel does not have them (Linux " + p.since + ")",
			Err: unsupported{syscall.EINVAL}}
	}
	return nil
}

func (p *probe) find() error {
	insns := p.insns
	if insns == nil {
		insns = nothingInsns()
	}
	prog, err := loadProbe(p.typ, insns)
	switch {
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, syscall.EINVAL):
		p.known.Store(no)
		return nil
	case err != nil:
		return err
	}
	defer prog.Close()
	switch errno := p.ask(uint32(prog.FD())); errno {
	case p.yes:
		p.known.Store(yes)
	case syscall.EPERM:
		return errno
	default:
		p.known.Store(no)
	}
	return nil
}

func nothingInsns() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
}

// nothing loads a program that does nothing.
func nothing(t ebpf.ProgramType) (*ebpf.Program, error) { return loadProbe(t, nothingInsns()) }

func loadProbe(t ebpf.ProgramType, insns asm.Instructions) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{Type: t, Instructions: insns, License: "Dual MIT/GPL"}
	switch t {
	case ebpf.SkLookup:
		spec.AttachType = ebpf.AttachSkLookup
	case ebpf.Netfilter:
		spec.AttachType = ebpf.AttachNetfilter
	case ebpf.FlowDissector:
		spec.AttachType = ebpf.AttachFlowDissector
	case ebpf.Tracing:
		spec.AttachType, spec.AttachTo = ebpf.AttachTraceFEntry, "bpf_fentry_test1"
	case ebpf.StructOps:
		spec.AttachType, spec.AttachTo = ebpf.AttachStructOps, "bpf_dummy_ops:test_1"
	case ebpf.Syscall:
		spec.Flags = 1 << 4 // BPF_F_SLEEPABLE
	}
	return ebpf.NewProgram(spec)
}

var xdpContext = probe{name: "XDP contexts", typ: ebpf.XDP, since: "5.15", yes: syscall.ENODEV,
	ask: func(fd uint32) syscall.Errno { return dryXDPOn(fd, 64, 0, 64) }}

// HaveXDPContext finds out whether the kernel takes and returns a context of
// XDP programs: metadata, ingress interface, receive queue. Linux 5.15.
//
// Like all functions of its kind it gives nil if the kernel can, an error that
// Is [ebpf.ErrNotSupported] if it cannot, and any other if it could not find
// out, such as EPERM for want of the privilege to load a program. Answers of
// the first two kinds are kept. Nothing but a program that does nothing runs.
func HaveXDPContext() error { return xdpContext.result() }

// haveXDPContext is HaveXDPContext for a process that may be unable to load
// programs, but has one. A no of that program can have other reasons, so it
// is only kept if a program of our own has it too.
func haveXDPContext(prog *ebpf.Program) bool {
	known := xdpContext.known.Load()
	return known == yes || known == unknown && askForXDPContext(prog)
}

func askForXDPContext(prog *ebpf.Program) bool {
	if dryXDP(prog, 64, 0, 64) == syscall.ENODEV {
		xdpContext.known.Store(yes)
		return true
	}
	return xdpContext.result() == nil
}

var xdpLinearSize = probe{name: "XDP packets with a chosen linear size", typ: ebpf.XDP, since: "6.18", yes: syscall.ENODEV,
	ask: func(fd uint32) syscall.Errno { return dryXDPOn(fd, 64, 0, ethHLen) }}

// HaveXDPLinearSize finds out whether [XDP.LinearSize] can be less than the
// packet. Linux 6.18, and backports to 6.1.161, 6.6.121 and 6.12.66. See
// [HaveXDPContext] for what it returns.
func HaveXDPLinearSize() error { return xdpLinearSize.result() }

var xdpMultiBuffer = probe{name: "XDP packets of more than one page", typ: ebpf.XDP, since: "5.18",
	ask: func(fd uint32) syscall.Errno {
		a := on(fd, make([]byte, pageSize), nil, nil, nil)
		return a.run()
	}}

// HaveXDPMultiBuffer finds out whether XDP programs run on packets larger than
// a page, in fragments. Linux 5.18. See [HaveXDPContext] for what it returns.
func HaveXDPMultiBuffer() error { return xdpMultiBuffer.result() }

var xdpLiveFrames = probe{name: "XDP live frames", typ: ebpf.XDP, since: "5.18", yes: syscall.E2BIG, ask: liveFramesOn}

// HaveXDPLiveFrames finds out whether the kernel has live frames. Linux 5.18.
// See [HaveXDPContext] for what it returns.
func HaveXDPLiveFrames() error { return xdpLiveFrames.result() }

// haveXDPLiveFrames is HaveXDPLiveFrames, asked of a program at hand. A program
// that the kernel does not run at all cannot tell; then the field batch_size
// does, which came with live frames.
func haveXDPLiveFrames(prog *ebpf.Program) bool {
	if xdpLiveFrames.known.Load() == unknown && liveFramesOn(uint32(prog.FD())) == syscall.E2BIG {
		xdpLiveFrames.known.Store(yes)
	}
	return xdpLiveFrames.known.Load() == yes || knowsBatchSize()
}

// liveFramesOn asks for a batch too large. Kernels that ignore the flag refuse
// batch_size as a field that they do not know; those too old to have that much
// attr say E2BIG as well, but for any batch size and program.
func liveFramesOn(fd uint32) syscall.Errno {
	if !knowsBatchSize() {
		return syscall.EINVAL
	}
	a := attr{progFD: fd, flags: testXDPLiveFrames, batchSize: maxBatchSize + 1}
	return a.ask()
}

var nonLinearSKB = probe{name: "skbs that are not linear", typ: ebpf.SchedCLS, since: "6.19",
	ask: func(fd uint32) syscall.Errno { return runSKB(fd, 0, skBuff{dataEnd: ethHLen}) }}

// HaveNonLinearSKB finds out whether skb programs run on packets with a part
// that is not linear: the LinearSize of [TC], [SocketFilter] and [CGroupSKB],
// and packets larger than a page. Linux 6.19. See [HaveXDPContext] for what it
// returns.
func HaveNonLinearSKB() error { return nonLinearSKB.result() }

var checksumComplete = probe{name: "checks of skb checksums", typ: ebpf.SchedCLS, since: "6.11",
	ask: func(fd uint32) syscall.Errno { return runSKB(fd, testSKBChecksumComplete, skBuff{}) }}

// HaveChecksumComplete finds out whether the kernel can check the checksum
// that a program leaves: the ChecksumComplete of the skb requests. Linux 6.11,
// and backports. See [HaveXDPContext] for what it returns.
func HaveChecksumComplete() error { return checksumComplete.result() }

// runSKB runs a program that does nothing on a packet of no known protocol.
func runSKB(fd, flags uint32, ctx skBuff) syscall.Errno {
	packet := make([]byte, 64)
	binary.BigEndian.PutUint16(packet[12:], 0x88b5) // for local experiments
	a := on(fd, packet, nil, view(&ctx), nil)
	a.flags = flags
	return a.run()
}

var runOnCPU = probe{name: "raw tracepoints on a CPU of choice", typ: ebpf.RawTracepoint, since: "5.10", yes: syscall.ENXIO,
	ask: func(fd uint32) syscall.Errno {
		a := attr{progFD: fd, flags: testRunOnCPU, cpu: ^uint32(0)}
		return a.ask()
	}}

// HaveRunOnCPU finds out whether raw tracepoint programs can be sent to a CPU:
// [OnCPU]. Linux 5.10. See [HaveXDPContext] for what it returns.
func HaveRunOnCPU() error { return runOnCPU.result() }

// flowVerdicts is whether a flow dissector's return comes back as it is. The
// probe's program returns BPF_OK, which older kernels turn into 1.
var flowVerdicts = probe{name: "return values of flow dissectors", typ: ebpf.FlowDissector, since: "6.1",
	ask: func(fd uint32) syscall.Errno {
		a := on(fd, make([]byte, 64), nil, nil, nil)
		if errno := a.run(); errno != 0 {
			return errno
		}
		if a.retval != 0 {
			return syscall.EINVAL
		}
		return 0
	}}

var cgroupSKBData = probe{name: "data in runs of cgroup_skb programs", typ: ebpf.CGroupSKB, since: "6.14",
	// return data + 1 <= data_end
	insns: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 76, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, 80, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
		asm.Add.Imm(asm.R2, 1),
		asm.JGT.Reg(asm.R2, asm.R3, "exit"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return().WithSymbol("exit"),
	},
	ask: func(fd uint32) syscall.Errno {
		a := on(fd, make([]byte, 64), nil, nil, nil)
		if errno := a.run(); errno != 0 {
			return errno
		}
		if a.retval == 0 {
			return syscall.EINVAL
		}
		return 0
	}}

// HaveCGroupSKBData finds out whether cgroup_skb programs can access the packet
// directly under BPF_PROG_RUN: before Linux 6.14 their data_end is their data.
// See [HaveXDPContext] for what it returns.
func HaveCGroupSKBData() error { return cgroupSKBData.result() }

// Sight is how much of a packet a program could see.
type Sight uint8

const (
	// SightWhole is all of it.
	SightWhole Sight = iota
	// SightPart is what the program can do nothing about: of a packet in
	// fragments just the linear part, as the program was loaded without
	// BPF_F_XDP_HAS_FRAGS; or nothing by direct access, as a cgroup_skb
	// program before Linux 6.14. Where the program is attached it may see
	// more, or not run at all, so the verdict is to be doubted.
	SightPart
	// SightUnknown is one or the other: finding out takes the privilege to
	// load programs.
	SightUnknown
)

// String gives "whole", "part" or "unknown".
func (s Sight) String() string { return name(int64(s), "Sight", "whole", "part", "unknown") }

// cgroupSKBSight is what a cgroup_skb program sees.
func cgroupSKBSight() Sight {
	switch cgroupSKBData.once() {
	case yes:
		return SightWhole
	case no:
		return SightPart
	}
	return SightUnknown
}

// fragsSights keeps the answers of fragsSight, each a *fragsAnswer, by
// weak.Pointer[ebpf.Program].
var fragsSights sync.Map

// lastFragsSight is the one that was given last: looking one up costs several
// times as much as comparing it, and most run one program many times.
var lastFragsSight atomic.Pointer[fragsAnswer]

type fragsAnswer struct {
	prog  weak.Pointer[ebpf.Program]
	sight Sight
}

// fragsSight is what prog sees of a packet in fragments.
func fragsSight(prog *ebpf.Program) Sight {
	last := lastFragsSight.Load()
	if last == nil || last.prog.Value() != prog {
		last = lookUpFragsSight(prog)
		lastFragsSight.Store(last)
	}
	return last.sight
}

// lookUpFragsSight finds out what prog sees, unless that is known. Nothing that
// the kernel tells of a program says whether it was loaded with
// BPF_F_XDP_HAS_FRAGS. But an array of programs takes only such as agree about
// it with its first.
func lookUpFragsSight(prog *ebpf.Program) *fragsAnswer {
	key := weak.Make(prog)
	if known, ok := fragsSights.Load(key); ok {
		return known.(*fragsAnswer)
	}
	answer := &fragsAnswer{prog: key, sight: SightUnknown}
	const hasFrags = 1 << 5 // BPF_F_XDP_HAS_FRAGS
	switch {
	case goesWith(prog, hasFrags):
		answer.sight = SightWhole
	case goesWith(prog, 0):
		answer.sight = SightPart
	}
	if _, known := fragsSights.LoadOrStore(key, answer); !known {
		runtime.AddCleanup(prog, func(key weak.Pointer[ebpf.Program]) { fragsSights.Delete(key) }, key)
	}
	return answer
}

// goesWith is whether an array of programs takes prog after one that was
// loaded with flags. Recent kernels ask for the same attach type too, which is
// either of two.
func goesWith(prog *ebpf.Program, flags uint32) bool {
	for _, attach := range []ebpf.AttachType{ebpf.AttachXDP, ebpf.AttachNone} {
		spec := &ebpf.ProgramSpec{
			Type: ebpf.XDP, AttachType: attach, Flags: flags,
			Instructions: nothingInsns(), License: "Dual MIT/GPL",
		}
		if inOneArray(spec, prog) {
			return true
		}
	}
	return false
}

func inOneArray(spec *ebpf.ProgramSpec, prog *ebpf.Program) bool {
	first, err := ebpf.NewProgram(spec)
	if err != nil {
		return false
	}
	defer first.Close()
	array, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return false
	}
	defer array.Close()
	return array.Put(uint32(0), first) == nil && array.Put(uint32(1), prog) == nil
}

// typeKnown keeps the answers of HaveProgramType.
var typeKnown [64]answer

// HaveProgramType finds out whether the kernel can run programs of a type. See
// [HaveXDPContext] for what it returns. A type for which there is no request
// is one that no kernel runs.
func HaveProgramType(t ebpf.ProgramType) error {
	if requests&(1<<t) == 0 {
		return &Error{Request: t.String() + " programs", Rule: "no kernel is known to run them", Err: unsupported{enotsupp}}
	}
	known := &typeKnown[t]
	if known.Load() == unknown {
		has, err := canRun(t)
		if err != nil {
			return &Error{Request: t.String() + " programs", Rule: "cannot find out whether this kernel runs them", Err: err}
		}
		known.Store(has)
	}
	if known.Load() == no {
		return &Error{Request: t.String() + " programs", Rule: "this kernel does not run them", Err: unsupported{enotsupp}}
	}
	return nil
}

// canRun loads a program that does nothing and makes a call that its handler
// refuses: of all that can answer, only the lack of a handler says ENOTSUPP.
func canRun(t ebpf.ProgramType) (uint32, error) {
	prog, err := nothing(t)
	switch {
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, syscall.EINVAL), errors.Is(err, btf.ErrNotFound):
		return no, nil
	case err != nil:
		return unknown, fmt.Errorf("load a program to ask with: %w", err)
	}
	defer prog.Close()
	a := on(uint32(prog.FD()), nil, nil, nil, nil)
	switch t {
	case ebpf.RawTracepoint, ebpf.Syscall:
		a.repeat = 1
	case ebpf.Tracing:
		a.flags = ^uint32(0)
	}
	switch errno := a.ask(); errno {
	case enotsupp:
		return no, nil
	case syscall.EPERM:
		return unknown, errno
	}
	return yes, nil
}

// dryXDP has the kernel check an XDP request of these sizes without running
// prog: ENODEV if they are legal. linear counts from the metadata.
func dryXDP(prog *ebpf.Program, dataSize, metadata, linear uint32) syscall.Errno {
	return dryXDPOn(uint32(prog.FD()), dataSize, metadata, linear)
}

func dryXDPOn(fd, dataSize, metadata, linear uint32) syscall.Errno {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	if int(dataSize) > len(*s) {
		return syscall.EINVAL
	}
	ctx := xdpMD{data: metadata, dataEnd: linear, ingressIfindex: noIfindex}
	a := on(fd, (*s)[:dataSize], nil, view(&ctx), nil)
	return a.ask()
}

// largestLive is the largest packet of a live frame behind this much metadata,
// found by bisection.
func largestLive(prog *ebpf.Program, metadata uint32) uint32 {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	return largest(ethHLen, uint32(pageSize), func(n uint32) bool {
		ctx := xdpMD{data: metadata, dataEnd: metadata + n, ingressIfindex: noIfindex}
		a := on(uint32(prog.FD()), (*s)[:metadata+n], nil, view(&ctx), nil)
		a.flags = testXDPLiveFrames
		return a.ask() == syscall.ENODEV
	})
}

// largest bisects for the largest number that is legal: legal is, illegal is not.
func largest(legal, illegal uint32, isLegal func(uint32) bool) uint32 {
	for illegal-legal > 1 {
		if n := (legal + illegal) / 2; isLegal(n) {
			legal = n
		} else {
			illegal = n
		}
	}
	return legal
}

// largestMetadata is how much metadata the kernel takes, or 0 if it takes none
// or cannot be asked. The limits there were: see xdp_metalen_invalid and
// bpf_prog_test_run_xdp.
func largestMetadata(prog *ebpf.Program) uint32 {
	for _, n := range []uint32{252, 216, 32} {
		if dryXDP(prog, n+64, n, n+64) == syscall.ENODEV {
			return n
		}
	}
	return 0
}

// drySKB has the kernel check an skb request of this size without running
// prog: ENODEV if it is legal.
func drySKB(prog *ebpf.Program, dataSize uint32) syscall.Errno {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	if int(dataSize) > len(*s) {
		return syscall.EINVAL
	}
	ctx := skBuff{ifindex: noIfindex}
	a := on(uint32(prog.FD()), (*s)[:dataSize], nil, view(&ctx), nil)
	return a.ask()
}

// skbTooLarge is whether the size alone makes the kernel refuse a packet.
func skbTooLarge(prog *ebpf.Program, n uint32) bool {
	return drySKB(prog, 64) == syscall.ENODEV && drySKB(prog, n) != syscall.ENODEV
}

// largestSKB finds the largest packet.
func largestSKB(prog *ebpf.Program) uint32 {
	return largest(64, uint32(maxPacket), func(n uint32) bool { return drySKB(prog, n) == syscall.ENODEV })
}
