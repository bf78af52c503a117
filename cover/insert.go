package cover

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

var errFar = errors.New("with probes the function is too long for its jumps, which have 16 bits: leave the program out with Options.Skip")

// An insertion builds the instructions of a function with its probes.
type insertion struct {
	*function
	out   asm.Instructions
	head  []int // where jumps to each instruction land
	place []int // where each instruction is
	jump  []int // where the trampoline of each jump is, or none
}

// insert returns the instructions of a function with the probes of a plan. The
// probes set bytes of counters, from offset on.
func insert(p *plan, counters asm.FDer, offset int) (asm.Instructions, error) {
	onBlock := map[int]asm.Instructions{} // by the instruction that they precede
	onEdge := map[edge]asm.Instructions{}
	for i, probe := range p.probes {
		insns, err := probe.instructions(counters, offset+i)
		if err != nil {
			return nil, err
		}
		if n := probe.node - len(p.blocks); n >= 0 {
			onEdge[p.edges[n]] = insns
		} else {
			onBlock[probe.before] = insns
		}
	}

	size := len(p.insns)
	in := &insertion{function: p.function, head: make([]int, size), place: make([]int, size), jump: make([]int, size)}
	for n, b := range p.blocks {
		for i := b.first; i < b.end; i++ {
			in.instruction(i, onBlock[i])
		}
		in.out = append(in.out, onEdge[edge{n, false}]...)
	}
	for n, b := range p.blocks {
		in.trampoline(b, onEdge[edge{n, true}])
	}
	return in.out, in.fixJumps()
}

// instructions returns the instructions of a probe, which load the address of its
// byte and set the byte.
func (p *probe) instructions(counters asm.FDer, n int) (asm.Instructions, error) {
	load := asm.LoadMapValue(p.register, 0, uint32(n))
	if err := load.AssociateMap(counters); err != nil {
		return nil, err
	}
	insns := asm.Instructions{load, asm.StoreImm(p.register, 0, 1, asm.Byte)}
	if p.clears {
		insns = append(insns, asm.Mov.Imm(p.register, 0))
	}
	return insns, nil
}

// instruction adds an instruction after its probe. The metadata that marks the place
// in the program moves to the probe: the symbol, the function, and the line.
func (in *insertion) instruction(i int, probe asm.Instructions) {
	ins := in.insns[i]
	in.head[i], in.jump[i] = len(in.out), none
	if probe != nil {
		probe[0] = probe[0].WithSource(ins.Source())
		ins = ins.WithSource(nil)
		if symbol := ins.Symbol(); symbol != "" {
			probe[0] = probe[0].WithSymbol(symbol)
			ins = ins.WithSymbol("")
		}
		if fn := btf.FuncMetadata(&ins); fn != nil {
			probe[0] = btf.WithFuncMetadata(probe[0], fn)
			ins = btf.WithFuncMetadata(ins, nil)
		}
		in.out = append(in.out, probe...)
	}
	in.place[i] = len(in.out)
	in.out = append(in.out, ins)
}

// trampoline adds a probe at the end of the function, through which a jump passes.
func (in *insertion) trampoline(b block, probe asm.Instructions) {
	if probe == nil {
		return
	}
	in.jump[b.end-1] = len(in.out)
	in.out = append(in.out, probe...)
	in.out = append(in.out, asm.Ja.Label("")) // fixJumps sets its offset
}

// fixJumps sets the offsets of all jumps.
func (in *insertion) fixJumps() error {
	raw := rawOffsets(in.out)
	for _, b := range in.blocks {
		if b.jump == none {
			continue
		}
		from, to := in.place[b.end-1], in.head[in.blocks[b.jump].first]
		if t := in.jump[b.end-1]; t != none {
			end := t
			for in.out[end].OpCode.JumpOp() != asm.Ja {
				end++
			}
			if err := setJump(&in.out[end], raw[to]-raw[end]-1); err != nil {
				return err
			}
			to = t
		}
		if err := setJump(&in.out[from], raw[to]-raw[from]-1); err != nil {
			return err
		}
	}
	return nil
}

// setJump makes ins jump by a number of slots.
func setJump(ins *asm.Instruction, slots int) error {
	*ins = ins.WithReference("")
	switch {
	case far(ins):
		ins.Constant = int64(slots)
	case slots < math.MinInt16 || slots > math.MaxInt16:
		return errFar
	default:
		ins.Offset = int16(slots)
	}
	return nil
}

// instrumentedKey marks the first instruction of a program with probes.
type instrumentedKey struct{}

// insertAll returns the instructions of a program with the probes of the plans of
// its functions.
func insertAll(plans []*plan, counters asm.FDer, offset int) (asm.Instructions, error) {
	var out asm.Instructions
	for _, p := range plans {
		insns, err := insert(p, counters, offset)
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", p.name, err)
		}
		offset += len(p.probes)
		out = append(out, insns...)
	}
	out[0].Metadata.Set(instrumentedKey{}, true)
	return out, nil
}
