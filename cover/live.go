package cover

import (
	"math/bits"

	"github.com/cilium/ebpf/asm"
)

// registers is a set of registers, one bit each.
type registers uint16

const (
	arguments   registers = 1<<asm.R1 | 1<<asm.R2 | 1<<asm.R3 | 1<<asm.R4 | 1<<asm.R5
	callerSaved           = arguments | 1<<asm.R0
)

// first returns the registers that hold n arguments.
func first(n int) registers { return registers(1<<(min(n, 5)+1)-1) &^ 1 }

// lowest returns the register with the lowest number.
func (s registers) lowest() asm.Register { return asm.Register(bits.TrailingZeros16(uint16(s))) }

// helperArguments has the number of arguments of each helper, one digit each. The
// list is final: new kernels gain kfuncs instead of helpers.
const helperArguments = "" +
	"02423050055533002131442215435333231032322103231125" +
	"43442435224224325454444443414102425513224431111115" +
	"54333444215533332104451130531243222211111444342335" +
	"41421242020315453413231111341454332101144533231442" +
	"255333220442"

// helper returns the number of the helper that ins calls.
func helper(ins *asm.Instruction) asm.BuiltinFunc { return asm.BuiltinFunc(ins.Constant) }

// liveness finds the registers that are live at each instruction of each function:
// those that it, or what runs after it, may read before they are written. It solves
// this for all functions at once, since a call reads what its function reads.
func liveness(list []*function) {
	called := make(map[string]*function, len(list))
	for _, f := range list {
		called[f.name] = f
		f.live = make([]registers, len(f.insns))
		f.writes = make([]registers, len(f.insns))
	}
	for changed := true; changed; {
		changed = false
		for _, f := range list {
			changed = f.propagate(called) || changed
		}
	}
}

// propagate updates the live registers of the function, and reports whether those
// at its start changed.
func (f *function) propagate(called map[string]*function) bool {
	before := f.live[0]
	for changed := true; changed; {
		changed = false
		for n := len(f.blocks) - 1; n >= 0; n-- {
			changed = f.propagateBlock(&f.blocks[n], called) || changed
		}
	}
	return f.live[0] != before
}

func (f *function) propagateBlock(b *block, called map[string]*function) bool {
	before := f.live[b.first]
	live := registers(0)
	for _, n := range []int{b.next, b.jump} {
		if n != none {
			live |= f.live[f.blocks[n].first]
		}
	}
	for i := b.end - 1; i >= b.first; i-- {
		reads, writes := effect(&f.insns[i], called)
		live = live&^writes | reads
		f.live[i], f.writes[i] = live, writes
	}
	return live != before
}

// effect returns the registers that ins may read, and those that it always writes.
func effect(ins *asm.Instruction, called map[string]*function) (reads, writes registers) {
	dst, src := registers(1)<<ins.Dst, registers(1)<<ins.Src
	switch op := ins.OpCode; op.Class() {
	case asm.LdClass:
		switch op.Mode() {
		case asm.AbsMode:
			return 1 << asm.R6, callerSaved
		case asm.IndMode:
			return 1<<asm.R6 | src, callerSaved
		}
		return 0, dst
	case asm.LdXClass:
		return src, dst
	case asm.StClass:
		return dst, 0
	case asm.StXClass:
		if op.Mode() == asm.AtomicMode {
			return dst | src | 1<<asm.R0, 0 // R0 for compare and exchange
		}
		return dst | src, 0
	case asm.ALUClass, asm.ALU64Class:
		return aluEffect(ins)
	}
	switch op := ins.OpCode; op.JumpOp() {
	case asm.Exit:
		return 1 << asm.R0, 0
	case asm.Call:
		return callReads(ins, called), callerSaved
	case asm.Ja, asm.JCOND:
		return 0, 0
	default:
		if op.Source() == asm.RegSource {
			return dst | src, 0
		}
		return dst, 0
	}
}

func aluEffect(ins *asm.Instruction) (reads, writes registers) {
	dst := registers(1) << ins.Dst
	if ins.OpCode.Source() == asm.RegSource {
		reads = 1 << ins.Src
	}
	switch ins.OpCode.ALUOp() {
	case asm.Mov, asm.MovSX8, asm.MovSX16, asm.MovSX32:
		return reads, dst
	}
	return reads | dst, dst
}

// callReads returns the registers of the arguments that a call reads. For a function
// of the program these are the ones that it does read, since compilers change the
// arguments of static functions, and the ones of its prototype, since the verifier
// checks those of global functions.
func callReads(ins *asm.Instruction, called map[string]*function) registers {
	switch {
	case ins.IsBuiltinCall():
		if n := int(helper(ins)); n >= 0 && n < len(helperArguments) {
			return first(int(helperArguments[n] - '0'))
		}
	case ins.IsFunctionCall():
		f := called[ins.Reference()]
		if f == nil {
			break
		}
		reads := f.live[0] & arguments
		if f.proto != nil {
			reads |= first(len(f.proto.Params))
		}
		return reads
	}
	return arguments
}
