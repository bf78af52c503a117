package progrun

import (
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/cilium/ebpf"
)

// Sight says how much of a packet a program could see.
type Sight uint8

const (
	// SightWhole means all of the packet.
	SightWhole Sight = iota
	// SightPart means that direct access ended before the packet did. An XDP
	// program that was loaded without BPF_F_XDP_HAS_FRAGS reaches only the linear
	// part that way. Helpers such as bpf_xdp_load_bytes and bpf_xdp_get_buff_len
	// cover the fragments all the same. A cgroup_skb program reaches nothing that
	// way before Linux 6.14. Where the program is attached it may see more, or
	// not run at all, so do not trust a verdict from direct access.
	SightPart
	// SightUnknown means that the package could not find out which of the two
	// holds. That takes the privilege to load programs, and some free descriptors.
	// Later runs try again, ever more rarely.
	SightUnknown
)

// String returns "whole", "part" or "unknown".
func (s Sight) String() string { return name(int64(s), "Sight", "whole", "part", "unknown") }

// MarshalText returns what String does.
func (s Sight) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses what String returns.
func (s *Sight) UnmarshalText(text []byte) error {
	return parse(s, text, "Sight", SightWhole, SightPart, SightUnknown)
}

// cgroupSKBSight returns what a cgroup_skb program sees.
func cgroupSKBSight() Sight {
	switch cgroupSKBData.cached() {
	case yes:
		return SightWhole
	case no:
		return SightPart
	}
	return SightUnknown
}

// fragsSights keeps what fragsSight found out: a *fragsAnswer for each
// weak.Pointer[ebpf.Program].
var fragsSights sync.Map

// lastFragsSight is the answer of the last call. Comparing its program is several
// times as fast as a look-up, and most callers run one program many times.
var lastFragsSight atomic.Pointer[fragsAnswer]

// fragsAnswer says what a program sees of a packet in fragments.
type fragsAnswer struct {
	prog  weak.Pointer[ebpf.Program]
	known answer // whether the program sees fragments
	retry retry
}

// fragsSight returns what prog sees of a packet in fragments.
func fragsSight(prog *ebpf.Program) Sight {
	last := lastFragsSight.Load()
	if last == nil || last.prog.Value() != prog {
		last = fragsAnswerOf(prog)
		lastFragsSight.Store(last)
	}
	if last.known.Load() == unknown {
		last.retry.do(func() bool { return last.find(prog) })
	}
	switch last.known.Load() {
	case yes:
		return SightWhole
	case no:
		return SightPart
	}
	return SightUnknown
}

// fragsAnswerOf returns the answer of prog, which is unknown if prog is new.
func fragsAnswerOf(prog *ebpf.Program) *fragsAnswer {
	key := weak.Make(prog)
	if known, ok := fragsSights.Load(key); ok {
		return known.(*fragsAnswer)
	}
	kept, old := fragsSights.LoadOrStore(key, &fragsAnswer{prog: key})
	if !old {
		runtime.AddCleanup(prog, func(key weak.Pointer[ebpf.Program]) { fragsSights.Delete(key) }, key)
	}
	return kept.(*fragsAnswer)
}

// find finds out what prog sees, and reports whether that is known. The kernel does
// not say whether a program was loaded with BPF_F_XDP_HAS_FRAGS. But an array of
// programs accepts only programs that agree about it with its first one.
func (a *fragsAnswer) find(prog *ebpf.Program) bool {
	const hasFrags = 1 << 5 // BPF_F_XDP_HAS_FRAGS
	switch {
	case a.known.Load() != unknown:
	case goesWith(prog, hasFrags):
		a.known.Store(yes)
	case goesWith(prog, 0):
		a.known.Store(no)
	default:
		return false
	}
	return true
}

// goesWith reports whether an array of programs accepts prog after one that was
// loaded with flags. Recent kernels require the same attach type too. There are
// two, and goesWith tries both.
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

// inOneArray reports whether a program of spec and prog fit in one array.
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
