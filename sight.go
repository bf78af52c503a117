package progrun

import (
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/cilium/ebpf"
)

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
	switch cgroupSKBData.cached() {
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
