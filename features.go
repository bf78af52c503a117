package progrun

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// lacks is whether a probe said no, rather than that it could not tell.
func lacks(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }

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
func (p *probe) cached() uint32 {
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
		a := newAttr(fd, make([]byte, pageSize), nil, nil, nil, 0, 0)
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
	return a.probe()
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
	a := newAttr(fd, packet, nil, view(&ctx), nil, 0, 0)
	a.flags = flags
	return a.run()
}

var runOnCPU = probe{name: "raw tracepoints on a CPU of choice", typ: ebpf.RawTracepoint, since: "5.10", yes: syscall.ENXIO,
	ask: func(fd uint32) syscall.Errno {
		a := attr{progFD: fd, flags: testRunOnCPU, cpu: ^uint32(0)}
		return a.probe()
	}}

// HaveRunOnCPU finds out whether raw tracepoint programs can be sent to a CPU:
// [OnCPU]. Linux 5.10. See [HaveXDPContext] for what it returns.
func HaveRunOnCPU() error { return runOnCPU.result() }

// flowVerdicts is whether a flow dissector's return comes back as it is. The
// probe's program returns BPF_OK, which older kernels turn into 1.
var flowVerdicts = probe{name: "return values of flow dissectors", typ: ebpf.FlowDissector, since: "6.1",
	ask: func(fd uint32) syscall.Errno {
		a := newAttr(fd, make([]byte, 64), nil, nil, nil, 0, 0)
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
		a := newAttr(fd, make([]byte, 64), nil, nil, nil, 0, 0)
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
