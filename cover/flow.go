package cover

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// A function is a function of a program: the program's own, a subprogram, or
// a callback.
type function struct {
	name   string
	proto  *btf.FuncProto // nil without BTF
	insns  asm.Instructions
	throws bool  // every call may end the function
	raw    []int // offset of each instruction and of the end, in slots of 8 bytes
	blocks []block
	live   []registers // registers that are live at each instruction
	writes []registers // registers that each instruction always writes
}

// A block is a sequence of instructions that is entered only at the first, and left
// only at the last.
type block struct {
	first, end int  // range of instructions, without end
	next       int  // block that follows when the last one does not jump, or none
	jump       int  // block that the last one jumps to, or none
	leaves     bool // the function may end here
}

const none = -1

// functions splits a linked program into its functions.
func functions(insns asm.Instructions) ([]*function, error) {
	referenced := map[string]bool{}
	throws := false
	for i := range insns {
		ins := &insns[i]
		if ins.IsFunctionReference() {
			if ins.Reference() == "" {
				return nil, fmt.Errorf("instruction %d refers to a function that has no name", i)
			}
			referenced[ins.Reference()] = true
		}
		throws = throws || ins.IsKfuncCall() && ins.Reference() == "bpf_throw"
	}

	var list []*function
	for i, start := 0, 0; i < len(insns); i++ {
		if i+1 < len(insns) && !referenced[insns[i+1].Symbol()] && btf.FuncMetadata(&insns[i+1]) == nil {
			continue
		}
		f, err := newFunction(insns[start:i+1], throws)
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", insns[start].Symbol(), err)
		}
		list = append(list, f)
		start = i + 1
	}
	return list, nil
}

// newFunction finds the blocks of a function. throws says whether its program throws
// exceptions.
func newFunction(insns asm.Instructions, throws bool) (*function, error) {
	f := &function{name: insns[0].Symbol(), insns: insns, throws: throws}
	if fn := btf.FuncMetadata(&insns[0]); fn != nil {
		f.proto, _ = fn.Type.(*btf.FuncProto)
	}
	f.raw = rawOffsets(insns)
	targets, err := f.targets()
	if err != nil {
		return nil, err
	}

	begun := f.cut(targets)
	for n := range f.blocks {
		f.connect(n, targets, begun)
	}
	return f, nil
}

// cut makes the blocks of the function. It returns, for each instruction, the block that
// begins there.
func (f *function) cut(targets []int) (begun []int) {
	begins := make([]bool, len(f.insns)+1)
	begins[0] = true
	for i := range f.insns {
		if targets[i] != none {
			begins[targets[i]] = true
		}
		if targets[i] != none || ends(&f.insns[i]) || f.mayEnd(&f.insns[i]) {
			begins[i+1] = true
		}
	}
	begun = make([]int, len(f.insns))
	for i := range f.insns {
		if begins[i] {
			begun[i] = len(f.blocks)
			f.blocks = append(f.blocks, block{first: i})
		}
		f.blocks[len(f.blocks)-1].end = i + 1
	}
	return begun
}

// connect sets the blocks to which a block leads.
func (f *function) connect(n int, targets, begun []int) {
	b := &f.blocks[n]
	last := b.end - 1
	b.next, b.jump = none, none
	if targets[last] != none {
		b.jump = begun[targets[last]]
	}
	b.leaves = ends(&f.insns[last]) || f.mayEnd(&f.insns[last])
	switch {
	case ends(&f.insns[last]) || f.insns[last].OpCode.JumpOp() == asm.Ja:
	case b.end == len(f.insns):
		b.leaves = true // the kernel refuses such a program
	default:
		b.next = n + 1
	}
}

// rawOffsets returns the offsets of instructions in slots of 8 bytes.
func rawOffsets(insns asm.Instructions) []int {
	raw := make([]int, len(insns)+1)
	for i := range insns {
		raw[i+1] = raw[i] + int(insns[i].Width())
	}
	return raw
}

// targets returns the instruction that each one jumps to, or none.
func (f *function) targets() ([]int, error) {
	index := make(map[int]int, len(f.insns))
	labels := map[string]int{}
	for i := range f.insns {
		index[f.raw[i]] = i
		if symbol := f.insns[i].Symbol(); symbol != "" {
			labels[symbol] = i
		}
	}

	targets := make([]int, len(f.insns))
	for i := range f.insns {
		ins := &f.insns[i]
		targets[i] = none
		if indirect(ins) {
			return nil, fmt.Errorf("instruction %d jumps to an address in a register, where no probe can follow it", i)
		}
		if !jumps(ins) {
			continue
		}
		distance := int(ins.Offset)
		if far(ins) {
			distance = int(ins.Constant)
		}
		target, ok := index[f.raw[i]+1+distance]
		if label := ins.Reference(); label != "" && distance == -1 {
			target, ok = labels[label]
		}
		if !ok {
			return nil, fmt.Errorf("instruction %d jumps out of its function", i)
		}
		targets[i] = target
	}
	return targets, nil
}

// jumps reports whether ins may jump within its function.
func jumps(ins *asm.Instruction) bool {
	switch ins.OpCode.JumpOp() {
	case asm.InvalidJumpOp, asm.Call, asm.Exit:
		return false
	}
	return true
}

// far reports whether ins jumps by an offset of 32 bits.
func far(ins *asm.Instruction) bool {
	return ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja
}

// indirect reports whether ins jumps to an address in a register.
func indirect(ins *asm.Instruction) bool {
	op := ins.OpCode.JumpOp()
	return (op == asm.Ja || op == asm.Call) && ins.OpCode.Source() == asm.RegSource
}

// conditional reports whether ins is a conditional jump.
func conditional(ins *asm.Instruction) bool {
	op := ins.OpCode.JumpOp()
	return jumps(ins) && op != asm.Ja && op != asm.JCOND
}

// decides reports whether a block ends with a condition, and has two ways out.
func (f *function) decides(n int) bool {
	b := f.blocks[n]
	return b.next != none && conditional(&f.insns[b.end-1])
}

// ends reports whether ins always ends its function.
func ends(ins *asm.Instruction) bool { return ins.OpCode.JumpOp() == asm.Exit }

// mayEnd reports whether ins sometimes ends its function.
func (f *function) mayEnd(ins *asm.Instruction) bool {
	op := ins.OpCode
	if op.JumpOp() == asm.Call {
		return f.throws || ins.IsBuiltinCall() && helper(ins) == asm.FnTailCall
	}
	// A load beyond the end of the packet ends the program.
	return op.Class() == asm.LdClass && (op.Mode() == asm.AbsMode || op.Mode() == asm.IndMode)
}
