package progrun

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// lacks reports whether the error of a probe means no, and not that the probe could
// not find out.
func lacks(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }

// probe finds out whether the kernel has a feature, with a program of its own that
// has no effect. It keeps only answers of the kernel, which cannot change.
type probe struct {
	name  string // in words, such as "XDP contexts"
	typ   ebpf.ProgramType
	since string           // the version of mainline Linux, for the message
	insns asm.Instructions // nil for a program that returns 0
	// ask makes a call that tells yes from no: yes is the errno if the kernel
	// can, and EINVAL, EMSGSIZE or ENOTSUPP mean that it cannot.
	ask func(fd uint32) syscall.Errno
	yes syscall.Errno

	known answer
	retry retry
}

// result runs the probe unless the answer is known. It returns nil if the kernel
// can, an error that Is ebpf.ErrNotSupported if it cannot, and any other error
// if that could not be found out.
func (p *probe) result() error {
	err := p.find()
	return featureError(p.name, p.since, p.known.Load(), err)
}

// featureError returns the error of a probe with this answer. If the answer is
// unknown, err says why.
func featureError(name, since string, known uint32, err error) error {
	switch known {
	case yes:
		return nil
	case no:
		return &Error{Request: name, Rule: "this kernel does not have them (Linux " + since + ")", Err: unsupported{syscall.EINVAL}}
	}
	return &Error{Request: name, Rule: "cannot find out whether this kernel has them", Err: err}
}

// cached returns the answer, or unknown. It is for runs that can do without the
// answer. It costs nothing once the answer is known; until then, few runs pay for
// an attempt to find it.
func (p *probe) cached() uint32 {
	if p.known.Load() == unknown {
		p.retry.do(func() bool { return p.find() == nil })
	}
	return p.known.Load()
}

// find finds the answer, unless it is known. It returns why it could not.
func (p *probe) find() error {
	if p.known.Load() != unknown {
		return nil
	}
	if known, errno := askForBatchSize(); known == unknown {
		return errno // the kernel itself does not answer
	}
	insns := p.insns
	if insns == nil {
		insns = nothingInsns()
	}
	prog, err := loadProbe(p.typ, insns)
	switch {
	case lacksPrograms(err):
		p.known.Store(no)
		return nil
	case err != nil:
		return err
	}
	defer prog.Close()
	switch errno := p.ask(uint32(prog.FD())); errno {
	case p.yes:
		p.known.Store(yes)
	case syscall.EINVAL, syscall.EMSGSIZE, enotsupp:
		p.known.Store(no)
	default:
		return errno
	}
	return nil
}

// retry spaces out attempts that fail. The cause may pass soon, such as a lack of
// descriptors or memory, or never, such as a lack of privilege. So after each failed
// attempt, about twice as many calls go by without one, up to 1,023.
type retry struct {
	skip  atomic.Uint32 // calls that still go by without an attempt
	mu    sync.Mutex    // held during an attempt, and guards pause
	pause uint32
}

// do calls attempt, which reports whether it succeeded, unless it is too early.
// If an attempt is under way on another goroutine, do waits for it.
func (r *retry) do(attempt func() bool) {
	if n := r.skip.Load(); n > 0 {
		r.skip.CompareAndSwap(n, n-1)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !attempt() {
		r.skip.Store(r.pause)
		r.pause = min(2*r.pause+1, 1023)
	}
}

// lacksPrograms reports whether err, from an attempt to load a program that does
// nothing, means that the kernel has no programs of that type. To be sure, it loads
// a program of the oldest type.
func lacksPrograms(err error) bool {
	if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, btf.ErrNotFound) {
		return false
	}
	oldest, err := nothing(ebpf.SocketFilter)
	if err != nil {
		return !supported
	}
	oldest.Close()
	return true
}

func nothingInsns() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
}

// nothing loads a program that returns 0.
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
	ask: func(fd uint32) syscall.Errno { return dryXDP(fd, 64, 0, 64) }}

// HaveXDPContext reports whether the kernel takes and returns contexts of XDP
// programs: metadata, ingress interface and receive queue. Since Linux 5.15.
//
// Like the other Have functions, it returns nil if the kernel can, an error that
// Is [ebpf.ErrNotSupported] if it cannot, and any other error if it could not
// find out, such as EPERM for lack of the privilege to load a program. Answers of
// the first two kinds are kept. It runs no program, or one that has no effect.
func HaveXDPContext() error { return xdpContext.result() }

// haveXDPContext is like HaveXDPContext for a process that may be unable to load a
// program: it asks the kernel with prog. It reports false if it cannot find out.
func haveXDPContext(prog *ebpf.Program) bool {
	known := xdpContext.known.Load()
	return known == yes || known == unknown && askForXDPContext(prog)
}

// askForXDPContext asks the kernel with prog. A no can have other reasons, so only
// a program of the package's own can confirm it.
func askForXDPContext(prog *ebpf.Program) bool {
	if dryXDP(uint32(prog.FD()), 64, 0, 64) == syscall.ENODEV {
		xdpContext.known.Store(yes)
		return true
	}
	return xdpContext.cached() == yes
}

// lacksXDPContext reports whether the kernel surely has no contexts of XDP
// programs.
func lacksXDPContext(prog *ebpf.Program) bool {
	return !haveXDPContext(prog) && lacks(HaveXDPContext())
}

// neverRuns reports whether the kernel refuses every request to run an XDP
// program. It reports false where the kernel cannot be asked.
func neverRuns(prog *ebpf.Program) bool {
	return haveXDPContext(prog) && dryXDP(uint32(prog.FD()), 64, 0, 64) == syscall.EINVAL
}

var xdpLinearSize = probe{name: "XDP packets with a chosen linear size", typ: ebpf.XDP, since: "6.18", yes: syscall.ENODEV,
	ask: func(fd uint32) syscall.Errno { return dryXDP(fd, 64, 0, ethHLen) }}

// HaveXDPLinearSize reports whether [XDP.LinearSize] can be less than the packet.
// Since Linux 6.18, and in backports to 6.1.161, 6.6.121 and 6.12.66. See
// [HaveXDPContext] for what it returns.
func HaveXDPLinearSize() error { return xdpLinearSize.result() }

var xdpMultiBuffer = probe{name: "XDP packets of more than one page", typ: ebpf.XDP, since: "5.18",
	ask: func(fd uint32) syscall.Errno {
		a := newAttr(fd, make([]byte, pageSize), nil, nil, nil, 0, 0)
		return a.run()
	}}

// HaveXDPMultiBuffer reports whether XDP programs run on packets larger than a
// page, in fragments. Since Linux 5.18. See [HaveXDPContext] for what it returns.
func HaveXDPMultiBuffer() error { return xdpMultiBuffer.result() }

// HaveXDPLiveFrames reports whether the kernel has live frames: see [Live]. Since
// Linux 5.18. It takes no privilege. See [HaveXDPContext] for what it returns.
func HaveXDPLiveFrames() error {
	known, errno := askForBatchSize() // the field came with them
	return featureError("XDP live frames", "5.18", known, errno)
}

var nonLinearSKB = probe{name: "skbs that are not linear", typ: ebpf.SchedCLS, since: "6.19", ask: nonLinearSKBOn}

// HaveNonLinearSKB reports whether skb programs run on packets with a part that
// is not linear. If so, [TC], [SocketFilter] and [CGroupSKB] take a LinearSize, and
// packets larger than a page. Since Linux 6.19. See [HaveXDPContext] for what it
// returns.
func HaveNonLinearSKB() error { return nonLinearSKB.result() }

var checksumComplete = probe{name: "checks of skb checksums", typ: ebpf.SchedCLS, since: "6.11", ask: checksumCompleteOn}

// HaveChecksumComplete reports whether the kernel can check a packet's checksum
// after the run: see [TC.ChecksumComplete]. Since Linux 6.11, and in backports. See
// [HaveXDPContext] for what it returns.
func HaveChecksumComplete() error { return checksumComplete.result() }

var runOnCPU = probe{name: "raw tracepoints on a CPU of choice", typ: ebpf.RawTracepoint, since: "5.10", yes: syscall.ENXIO,
	ask: func(fd uint32) syscall.Errno { return dryOnCPU(fd, 0) }}

// HaveRunOnCPU reports whether raw tracepoint programs can run on a chosen CPU:
// see [OnCPU]. Since Linux 5.10. See [HaveXDPContext] for what it returns.
func HaveRunOnCPU() error { return runOnCPU.result() }

// flowVerdicts finds out whether a flow dissector's return value comes back as is.
// The probe's program returns BPF_OK, which older kernels turn into 1.
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

// HaveCGroupSKBData reports whether cgroup_skb programs can access the packet
// directly under BPF_PROG_RUN. Before Linux 6.14 their data_end equals their data.
// See [HaveXDPContext] for what it returns.
func HaveCGroupSKBData() error { return cgroupSKBData.result() }
