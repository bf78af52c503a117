package progrun

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// programTypes is a set of program types, one bit each.
type programTypes uint64

// The types of programs that each request runs.
const (
	xdpTypes           = programTypes(1 << ebpf.XDP)
	tcTypes            = programTypes(1<<ebpf.SchedCLS | 1<<ebpf.SchedACT)
	socketFilterTypes  = programTypes(1 << ebpf.SocketFilter)
	cgroupSKBTypes     = programTypes(1 << ebpf.CGroupSKB)
	lwtTypes           = programTypes(1<<ebpf.LWTIn | 1<<ebpf.LWTOut | 1<<ebpf.LWTXmit | 1<<ebpf.LWTSeg6Local)
	flowDissectorTypes = programTypes(1 << ebpf.FlowDissector)
	skLookupTypes      = programTypes(1 << ebpf.SkLookup)
	netfilterTypes     = programTypes(1 << ebpf.Netfilter)
	rawTracepointTypes = programTypes(1 << ebpf.RawTracepoint)
	tracingTypes       = programTypes(1 << ebpf.Tracing)
	syscallTypes       = programTypes(1 << ebpf.Syscall)
	structOpsTypes     = programTypes(1 << ebpf.StructOps)

	// anyType is every type except that of a program that was never loaded.
	anyType = ^programTypes(1 << ebpf.UnspecifiedProgram)
)

// programKind describes the programs that one request runs.
type programKind struct {
	types   programTypes
	request string
	ctxSize uintptr       // size of the handler's context; 0 if it takes any number of bytes, or no context
	rules   func() []rule // the handler's reasons to refuse a call, in the order of its checks
}

// programKinds has a row for each request. A new program type is a row here and
// a file of its own; TestProgramKinds fails where a part is missing.
var programKinds = [...]programKind{
	{xdpTypes, "XDP", unsafe.Sizeof(xdpMD{}), xdpRules},
	{tcTypes, "TC", unsafe.Sizeof(skBuff{}), skbRules},
	{socketFilterTypes, "SocketFilter", unsafe.Sizeof(skBuff{}), skbRules},
	{cgroupSKBTypes, "CGroupSKB", unsafe.Sizeof(skBuff{}), skbRules},
	{lwtTypes, "LWT", unsafe.Sizeof(skBuff{}), skbRules},
	{flowDissectorTypes, "FlowDissector", unsafe.Sizeof(flowKeys{}), flowDissectorRules},
	{skLookupTypes, "SkLookup", unsafe.Sizeof(skLookup{}), skLookupRules},
	{netfilterTypes, "Netfilter", unsafe.Sizeof(nfHookState{}), netfilterRules},
	{rawTracepointTypes, "RawTracepoint", 0, rawTracepointRules},
	{tracingTypes, "Tracing", 0, tracingRules},
	{syscallTypes, "Syscall", 0, syscallRules},
	{structOpsTypes, "StructOps", 0, structOpsRules},
}

// kindOf returns the row for programs of type t. If there is none, it returns a
// row without a request.
func kindOf(t ebpf.ProgramType) *programKind {
	for i := range programKinds {
		if programKinds[i].types.has(t) {
			return &programKinds[i]
		}
	}
	return &programKind{}
}

// has reports whether t is in the set.
func (s programTypes) has(t ebpf.ProgramType) bool { return s&(1<<t) != 0 }

// descriptor returns the file descriptor of prog, which must be open and of a type
// in the set. The caller keeps prog alive until after the call.
func (s programTypes) descriptor(request string, prog *ebpf.Program) (uint32, error) {
	if prog != nil && s.has(prog.Type()) {
		if fd := prog.FD(); fd >= 0 {
			return uint32(fd), nil
		}
	}
	return 0, s.unfit(request, prog)
}

// unfit returns an error that says why prog has no descriptor for a request.
func (s programTypes) unfit(request string, prog *ebpf.Program) error {
	switch {
	case prog == nil:
		return refuse(request, "", "", "the program is nil", syscall.EINVAL)
	case !s.has(prog.Type()):
		return wrongType(request, prog.Type(), s)
	}
	return refuse(request, "", "", "the program is closed", syscall.EBADF)
}

func wrongType(request string, have ebpf.ProgramType, want programTypes) error {
	if have == ebpf.UnspecifiedProgram {
		return refuse(request, "", "", "the program was never loaded", syscall.EINVAL)
	}
	var names []string
	for t := range ebpf.ProgramType(64) {
		if want.has(t) {
			names = append(names, t.String())
		}
	}
	rule := fmt.Sprintf("runs %s programs, not %s", strings.Join(names, ", "), have)
	if other := kindOf(have).request; other != "" {
		rule += ", which progrun." + other + " runs"
	}
	return refuse(request, "", "", rule, syscall.EINVAL)
}

// typeKnown keeps the answers of HaveProgramRun.
var typeKnown [64]answer

// HaveProgramRun reports whether the kernel can run programs of type t. See
// [HaveXDPContext] for what it returns. The answer is no for types that no
// request runs: no known kernel runs them.
func HaveProgramRun(t ebpf.ProgramType) error {
	if kindOf(t).request == "" {
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

// canRun loads a program that does nothing. It then makes a call that the handler
// refuses, or that runs only this program. A kernel returns ENOTSUPP only if it
// cannot run the type.
func canRun(t ebpf.ProgramType) (uint32, error) {
	if known, errno := askForBatchSize(); known == unknown {
		return unknown, errno // the kernel itself does not answer
	}
	prog, err := nothing(t)
	switch {
	case lacksPrograms(err):
		return no, nil
	case err != nil:
		return unknown, fmt.Errorf("load a program to ask with: %w", err)
	}
	defer prog.Close()
	a := newAttr(uint32(prog.FD()), nil, nil, nil, nil, 0, 0)
	a.repeat = 1 // types without data take none
	switch t {
	case ebpf.XDP: // some kernels run it on no data
		a = newAttr(uint32(prog.FD()), nil, nil, view(&xdpMD{dataMeta: 4}), nil, 0, 0)
	case ebpf.Tracing:
		a.flags = ^uint32(0)
	case ebpf.StructOps: // where the architecture lacks trampolines, a legal call alone fails
		a = newAttr(uint32(prog.FD()), nil, nil, view(new(dummyOps))[:8], nil, 0, 0)
	}
	switch errno := a.probe(); errno {
	case enotsupp:
		return no, nil
	case syscall.EINVAL, 0:
		return yes, nil
	default:
		return unknown, errno
	}
}
