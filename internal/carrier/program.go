package carrier

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// The structs that the program and Go share. All fields are in the machine's byte
// order.
type (
	// control is the state of one slot: of a chunk, or of a worker of Live.
	control struct {
		next     uint32 // the next packet
		end      uint32 // where to stop, or to begin again
		out      uint32 // where the next output goes, within its slab
		why      uint32 // why the program stopped before end
		verdicts [6]uint64
	}
	// packet is one packet, and its result.
	packet struct {
		pos, size, meta uint32 // position of metadata and packet among all slabs, their size, and that of the metadata

		verdict         uint32
		outPos, outSize uint32 // of metadata and packet, in the slab of outputs
		outMeta         uint32
		outLinear       uint32 // how much of the packet alone is linear
	}
)

// clear makes the program clear the headroom for each packet of a chunk, which does
// not count verdicts.
func (c *control) clear() { c.verdicts[0] = 1 }

const (
	controlSize = 64
	packetSize  = 32
)

// Offsets of the fields.
const (
	offNext, offEnd, offOut, offWhy, offVerdicts = 0, 4, 8, 12, 16
	offClear                                     = offVerdicts

	offPos, offSize, offMeta, offVerdict            = 0, 4, 8, 12
	offOutPos, offOutSize, offOutMeta, offOutLinear = 16, 20, 24, 28
)

// Why a program stopped.
const (
	running = iota
	noRoom  // no room for another output; the next packet has not run
	unfit   // the next packet cannot be carried, and has not run
	spent   // the last packet left a buffer that no other can use
	lost    // the output of the last packet could not be read
)

const (
	slabBits = 18
	slabSize = 1 << slabBits // packets lie in slabs, none across two
	leastLen = 14            // smallest packet: an Ethernet header

	xdpFrame = 40             // sizeof(struct xdp_frame), at the start of the headroom
	headroom = 256 - xdpFrame // the part of the headroom that a program can use

	xdpDrop = 1
	xdpPass = 2
	other   = len(control{}.verdicts) - 1
)

// The registers that keep their value across calls.
const (
	rCtx     = asm.R6
	rControl = asm.R7
	rPacket  = asm.R8
	rSaved   = asm.R9
)

// Offsets on the stack.
const (
	spSlot   int16 = -4
	spKey    int16 = -8
	spDelta  int16 = -16
	spMemory int16 = -24
)

// Fields of struct xdp_md.
const (
	ctxData, ctxEnd, ctxMeta = 0, 4, 8
)

// shape says what a carrier's program is for.
type shape struct {
	live    bool // whether it runs on live frames
	cpus    bool // whether the slot is the number of the CPU, and not 0
	packets bool // whether it writes packets into the frames
	output  bool // whether it copies outputs out
	frags   bool
	attach  ebpf.AttachType
	most    uint32 // largest size of metadata and packet, in bytes
}

// slabsOfChunk returns how many slabs a chunk has. If outputs are copied out, the second
// one is theirs.
func (s *shape) slabsOfChunk() int {
	if s.output {
		return 2
	}
	return 1
}

// program is a carrier's maps and how it uses them.
type program struct {
	shape
	slots                           int // number of controls
	controls, index, slabs, targets *ebpf.Map
}

const hasFrags = 1 << 5 // BPF_F_XDP_HAS_FRAGS

func (p *program) load() (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{
		Name: "progrun_carrier", Type: ebpf.XDP, AttachType: p.attach, License: "Dual MIT/GPL",
		Instructions: p.instructions(),
	}
	if p.frags {
		spec.Flags = hasFrags
	}
	return ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
}

// instructions returns the whole program. The methods and functions that follow return
// parts of it: the comment of each says what its instructions do.
func (p *program) instructions() asm.Instructions {
	var all asm.Instructions
	if p.live {
		all = p.liveFrame()
	} else {
		all = p.onePacket()
	}
	tail := p.tail()
	// Tail calls from subprograms need BTF.
	all[0] = function(all[0], "carrier")
	tail[0] = function(tail[0], "tail")
	return append(all, tail...)
}

// function marks the first instruction of a function that takes the context.
func function(first asm.Instruction, name string) asm.Instruction {
	number := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	return btf.WithFuncMetadata(first.WithSymbol(name), &btf.Func{Name: name, Linkage: btf.StaticFunc, Type: &btf.FuncProto{
		Return: number,
		Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: (*btf.Void)(nil)}}},
	}})
}

// onePacket returns the main program of a batch. Its buffer begins with the number of
// the slot, which the program puts back each time.
func (p *program) onePacket() asm.Instructions {
	var full asm.Instructions
	if p.output {
		full = stop("full", noRoom)
	}
	return join(
		asm.Instructions{asm.Mov.Reg(rCtx, asm.R1)},
		ctxPointers(asm.R2, asm.R3, leastLen, "out"),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R2, 0, asm.Word),
			asm.StoreMem(asm.RFP, spSlot, asm.R1, asm.Word),
		},
		p.slot(asm.R1, "out"),
		asm.Instructions{
			asm.LoadMem(asm.R1, rControl, offNext, asm.Word),
			asm.LoadMem(asm.R2, rControl, offEnd, asm.Word),
			asm.JGE.Reg(asm.R1, asm.R2, "out"),
		},
		p.room(),
		p.nextPacket("out"),
		p.fit("unfit"),
		asm.Instructions{
			asm.Mov.Imm(rSaved, 0),
			asm.LoadMem(asm.R1, rControl, offClear, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "cleared"),
		},
		p.clear("unfit"),
		asm.Instructions{
			asm.Mov.Imm(rSaved, headroom),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("cleared"),
		},
		p.write("unfit"),
		asm.Instructions{
			// The next packet will be where this one is now.
			asm.LoadMem(asm.R1, rCtx, ctxData, asm.Word),
			asm.Mov.Reg32(rSaved, asm.R1),
			asm.LoadMem(asm.R1, rControl, offNext, asm.Word),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(rControl, offNext, asm.R1, asm.Word),
		},
		p.callTarget(),
		p.note(),
		p.copyOut(),
		p.restore(),
		asm.Instructions{asm.Ja.Label("sign")},
		stop("unfit", unfit),
		asm.Instructions{asm.Ja.Label("sign")},
		stop("lost", lost),
		asm.Instructions{asm.Ja.Label("sign")},
		stop("spent", spent),
		asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("sign")},
		ctxPointers(asm.R2, asm.R3, leastLen, "out"),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, spSlot, asm.Word),
			asm.StoreMem(asm.R2, 0, asm.R1, asm.Word),
			asm.Ja.Label("out"),
		},
		full,
		exit("out", xdpPass),
	)
}

// liveFrame returns the main program of live frames.
func (p *program) liveFrame() asm.Instructions {
	all := asm.Instructions{asm.Mov.Reg(rCtx, asm.R1)}
	if p.cpus {
		all = append(all, asm.FnGetSmpProcessorId.Call())
	} else {
		all = append(all, asm.Mov.Imm(asm.R0, 0))
	}
	all = join(all, p.slot(asm.R0, "out"))
	if p.packets {
		all = join(all,
			asm.Instructions{asm.LoadMem(asm.R1, rControl, offNext, asm.Word)},
			p.nextPacket("out"),
			p.fit("unfit"),
			asm.Instructions{asm.Mov.Imm(rSaved, 0)},
			p.write("unfit"),
			asm.Instructions{
				asm.LoadMem(asm.R1, rControl, offNext, asm.Word),
				asm.LoadMem(asm.R2, rControl, offEnd, asm.Word),
				asm.Add.Imm(asm.R1, 1),
				asm.JLT.Reg(asm.R1, asm.R2, "next"),
				asm.Mov.Imm(asm.R1, 0),
				asm.StoreMem(rControl, offNext, asm.R1, asm.Word).WithSymbol("next"),
			},
		)
	}
	var failed asm.Instructions
	if p.packets {
		failed = stop("unfit", unfit)
	}
	return join(all,
		p.callTarget(),
		asm.Instructions{
			asm.Mov.Reg32(asm.R1, asm.R0),
			asm.JLT.Imm(asm.R1, int32(other), "known"),
			asm.Mov.Imm(asm.R1, int32(other)),
			asm.LSh.Imm(asm.R1, 3).WithSymbol("known"),
			asm.Add.Reg(rControl, asm.R1),
			asm.LoadMem(asm.R1, rControl, offVerdicts, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(rControl, offVerdicts, asm.R1, asm.DWord),
			asm.Return(),
		},
		failed,
		exit("out", xdpDrop),
	)
}

// tail returns the subprogram with the tail call. The target returns to the caller of
// the subprogram. The instructions after the tail call run if there is no target.
// Kernels before 6.18 assume that their result is the only possible one, and remove
// tests for others. So their result is one that the verifier cannot know: that of a
// redirect with flags, which is XDP_ABORTED.
func (p *program) tail() asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R2, p.targets.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R1, 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

// callTarget runs the target, through the subprogram of tail.
func (p *program) callTarget() asm.Instructions {
	return asm.Instructions{asm.Mov.Reg(asm.R1, rCtx), asm.Call.Label("tail")}
}

// slot makes rControl point to the control of a slot.
func (p *program) slot(number asm.Register, missing string) asm.Instructions {
	return asm.Instructions{
		asm.JGE.Imm(number, int32(p.slots), missing),
		asm.Mul.Imm(number, controlSize),
		asm.LoadMapValue(rControl, p.controls.FD(), 0),
		asm.Add.Reg(rControl, number),
	}
}

// nextPacket finds the packet whose number is in R1, and makes rPacket point to it.
func (p *program) nextPacket(missing string) asm.Instructions {
	return join(
		asm.Instructions{asm.StoreMem(asm.RFP, spKey, asm.R1, asm.Word)},
		p.lookup(p.index, spKey, rPacket, missing),
	)
}

// mostOut returns the largest size of an output in bytes. An output is larger than a
// linear packet only if a program left its packet in fragments.
func (p *program) mostOut() uint32 {
	if p.frags {
		return max(p.most, 1<<16)
	}
	return p.most
}

// room stops the call if another output might not fit.
func (p *program) room() asm.Instructions {
	if !p.output {
		return nil
	}
	return asm.Instructions{
		asm.LoadMem(asm.R2, rControl, offOut, asm.Word),
		asm.JGT.Imm(asm.R2, int32(slabSize-p.mostOut()), "full"),
	}
}

// fit adjusts the buffer to the length of the packet.
func (p *program) fit(failed string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, rCtx, ctxEnd, asm.Word),
		asm.LoadMem(asm.R1, rCtx, ctxData, asm.Word),
		asm.Sub.Reg(asm.R2, asm.R1), // present length
		asm.LoadMem(asm.R3, rPacket, offSize, asm.Word),
		asm.LoadMem(asm.R1, rPacket, offMeta, asm.Word),
		asm.Sub.Reg(asm.R3, asm.R1), // required length
		asm.JEq.Reg(asm.R3, asm.R2, "fits"),
		asm.Sub.Reg(asm.R3, asm.R2),
		asm.Mov.Reg(asm.R2, asm.R3),
		asm.Mov.Reg(asm.R1, rCtx),
		asm.FnXdpAdjustTail.Call(),
		asm.JNE.Imm(asm.R0, 0, failed),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("fits"),
	}
}

// clear writes zeros before the packet, where the kernel has them too, and leaves the
// head there.
func (p *program) clear(failed string) asm.Instructions {
	all := join(
		asm.Instructions{asm.Mov.Imm(asm.R2, -headroom)},
		adjust(asm.FnXdpAdjustHead, failed),
		ctxPointers(asm.R2, asm.R3, headroom, failed),
		asm.Instructions{asm.Mov.Imm(asm.R0, 0)},
	)
	for off := int16(0); off < headroom; off += 8 {
		all = append(all, asm.StoreMem(asm.R2, off, asm.R0, asm.DWord))
	}
	return all
}

// write writes metadata and packet. rSaved is the distance from the head to the
// packet.
func (p *program) write(failed string) asm.Instructions {
	return join(
		asm.Instructions{
			asm.Mov.Reg(asm.R2, rSaved),
			asm.LoadMem(asm.R1, rPacket, offMeta, asm.Word),
			asm.Sub.Reg(asm.R2, asm.R1),
			asm.JEq.Imm(asm.R2, 0, "at"),
		},
		adjust(asm.FnXdpAdjustHead, failed),
		asm.Instructions{
			asm.LoadMem(asm.R1, rPacket, offPos, asm.Word).WithSymbol("at"),
			asm.RSh.Imm(asm.R1, slabBits),
			asm.StoreMem(asm.RFP, spKey, asm.R1, asm.Word),
		},
		p.lookup(p.slabs, spKey, asm.R3, failed),
		asm.Instructions{
			asm.LoadMem(asm.R1, rPacket, offPos, asm.Word),
			asm.And.Imm(asm.R1, slabSize-1),
			asm.JGT.Imm(asm.R1, int32(slabSize-p.most), failed),
			asm.Add.Reg(asm.R3, asm.R1),
			asm.LoadMem(asm.R4, rPacket, offSize, asm.Word),
			asm.JLT.Imm(asm.R4, leastLen, failed),
			asm.JGT.Imm(asm.R4, int32(p.most), failed),
		},
		copyPacket("in", asm.FnXdpStoreBytes, asm.R2, asm.R3, failed),
		asm.Instructions{
			asm.LoadMem(rSaved, rPacket, offMeta, asm.Word),
			asm.JEq.Imm(rSaved, 0, "written"),
			asm.Mov.Reg(asm.R2, rSaved),
		},
		adjust(asm.FnXdpAdjustHead, failed),
		asm.Instructions{asm.Mov.Reg(asm.R2, rSaved), asm.Neg.Imm(asm.R2, 0)},
		adjust(asm.FnXdpAdjustMeta, failed),
		asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("written")},
	)
}

// note records the verdict, which is in R0, and the sizes of the packet.
func (p *program) note() asm.Instructions {
	all := asm.Instructions{
		asm.StoreMem(rPacket, offVerdict, asm.R0, asm.Word),
		asm.LoadMem(asm.R1, rCtx, ctxData, asm.Word),
		asm.LoadMem(asm.R2, rCtx, ctxMeta, asm.Word),
		asm.LoadMem(asm.R3, rCtx, ctxEnd, asm.Word),
		asm.Mov.Reg32(asm.R1, asm.R1),
		asm.Mov.Reg32(asm.R2, asm.R2),
		asm.Mov.Reg32(asm.R3, asm.R3),
		asm.Sub.Reg32(asm.R3, asm.R1),
		asm.Sub.Reg32(asm.R1, asm.R2),
		asm.StoreMem(rPacket, offOutMeta, asm.R1, asm.Word),
		asm.StoreMem(rPacket, offOutLinear, asm.R3, asm.Word),
	}
	if p.frags {
		all = append(all,
			asm.Mov.Reg(asm.R1, rCtx),
			asm.FnXdpGetBuffLen.Call(),
			asm.Mov.Reg(asm.R3, asm.R0),
			asm.LoadMem(asm.R1, rPacket, offOutMeta, asm.Word),
		)
	}
	return join(all,
		asm.Instructions{
			asm.Add.Reg32(asm.R3, asm.R1),
			asm.StoreMem(rPacket, offOutSize, asm.R3, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "bare"),
			asm.Mov.Reg(asm.R2, asm.R1), // the metadata becomes a part of the packet
		},
		adjust(asm.FnXdpAdjustMeta, "lost"),
		asm.Instructions{
			asm.LoadMem(asm.R2, rPacket, offOutMeta, asm.Word),
			asm.Neg.Imm(asm.R2, 0),
		},
		adjust(asm.FnXdpAdjustHead, "lost"),
		asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("bare")},
	)
}

// copyOut copies metadata and packet out.
func (p *program) copyOut() asm.Instructions {
	if !p.output {
		return nil
	}
	return join(
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, spSlot, asm.Word),
			asm.LSh.Imm(asm.R1, 1),
			asm.Or.Imm(asm.R1, 1),
			asm.StoreMem(asm.RFP, spKey, asm.R1, asm.Word),
		},
		p.lookup(p.slabs, spKey, asm.R3, "lost"),
		asm.Instructions{
			asm.LoadMem(asm.R1, rControl, offOut, asm.Word),
			asm.JGT.Imm(asm.R1, int32(slabSize-p.mostOut()), "lost"),
			asm.Add.Reg(asm.R3, asm.R1),
			asm.StoreMem(rPacket, offOutPos, asm.R1, asm.Word),
			asm.LoadMem(asm.R4, rPacket, offOutSize, asm.Word),
			asm.JLT.Imm(asm.R4, leastLen, "lost"),
			asm.JGT.Imm(asm.R4, int32(p.mostOut()), "lost"),
			asm.Add.Reg(asm.R1, asm.R4),
			asm.Add.Imm(asm.R1, 7),
			asm.And.Imm(asm.R1, ^7),
			asm.StoreMem(rControl, offOut, asm.R1, asm.Word),
		},
		copyPacket("out", asm.FnXdpLoadBytes, asm.R3, asm.R2, "lost"),
	)
}

// copyPacket copies R4 bytes between the packet, to which R2 then points, and the
// memory to which R3 points. A helper takes at least some 30 ns for a copy. So
// copyPacket copies short packets itself, in blocks, the last of which ends with the
// packet. That one is copied first. If it came last, the verifier would follow every
// length to it by itself.
func copyPacket(name string, helper asm.BuiltinFunc, to, from asm.Register, failed string) asm.Instructions {
	const long = 8 * 64
	block := func(off, size int32) asm.Instructions {
		all := asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R2),
			asm.Add.Imm(asm.R1, off+size),
			asm.JGT.Reg(asm.R1, asm.R5, failed),
		}
		for end := off + size; off < end; off += 8 {
			all = append(all,
				asm.LoadMem(asm.R0, from, int16(off), asm.DWord),
				asm.StoreMem(to, int16(off), asm.R0, asm.DWord),
			)
		}
		return all
	}
	copied := name + " copied"
	blocks := func(size, end int32) asm.Instructions {
		all := join(
			asm.Instructions{
				asm.StoreMem(asm.RFP, spMemory, asm.R3, asm.DWord),
				asm.Mov.Reg(asm.R1, asm.R4),
				asm.Sub.Imm(asm.R1, size),
				asm.Add.Reg(asm.R2, asm.R1),
				asm.Add.Reg(asm.R3, asm.R1),
			},
			block(0, size),
			asm.Instructions{
				asm.LoadMem(asm.R2, rCtx, ctxData, asm.Word),
				asm.LoadMem(asm.R3, asm.RFP, spMemory, asm.DWord),
			},
		)
		for off := int32(0); off < end-size; off += size {
			all = join(all,
				asm.Instructions{asm.JLE.Imm(asm.R4, off+size, copied)},
				block(off, size),
			)
		}
		return append(all, asm.Ja.Label(copied))
	}
	return join(
		asm.Instructions{asm.JGT.Imm(asm.R4, long, name+" long")},
		asm.Instructions{
			asm.LoadMem(asm.R2, rCtx, ctxData, asm.Word),
			asm.LoadMem(asm.R5, rCtx, ctxEnd, asm.Word),
			asm.JLT.Imm(asm.R4, 64, name+" short"),
		},
		blocks(64, long),
		asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(name + " short")},
		blocks(8, 64),
		asm.Instructions{
			asm.Mov.Imm(asm.R2, 0).WithSymbol(name + " long"),
			asm.Mov.Reg(asm.R1, rCtx),
			helper.Call(),
			asm.JNE.Imm(asm.R0, 0, failed),
			asm.Mov.Imm(asm.R0, 0).WithSymbol(copied),
		},
	)
}

// restore moves the head back to where it was before the target ran. It stops the call
// if the buffer is no longer in one piece.
func (p *program) restore() asm.Instructions {
	all := join(
		asm.Instructions{
			asm.LoadMem(asm.R1, rCtx, ctxData, asm.Word),
			asm.Mov.Reg32(asm.R1, asm.R1),
			asm.Mov.Reg(asm.R2, rSaved),
			asm.Sub.Reg(asm.R2, asm.R1),
		},
		signed(asm.R2),
		asm.Instructions{
			asm.JEq.Imm(asm.R2, 0, "restored"),
			asm.JSLT.Imm(asm.R2, 0, "back"),
			// The kernel moves the head only so far that a header remains. So
			// the tail grows first, which the next packet undoes.
			asm.LoadMem(asm.R3, rCtx, ctxEnd, asm.Word),
			asm.Mov.Reg32(asm.R3, asm.R3),
			asm.Sub.Reg(asm.R3, rSaved),
		},
		signed(asm.R3),
		asm.Instructions{
			asm.JSGE.Imm(asm.R3, leastLen, "back"),
			asm.StoreMem(asm.RFP, spDelta, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R2, leastLen),
			asm.Sub.Reg(asm.R2, asm.R3),
		},
		adjust(asm.FnXdpAdjustTail, "spent"),
		asm.Instructions{
			asm.LoadMem(asm.R2, asm.RFP, spDelta, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("back"),
		},
		adjust(asm.FnXdpAdjustHead, "spent"),
		asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("restored")},
	)
	if p.frags {
		all = append(all,
			asm.LoadMem(asm.R1, rPacket, offOutSize, asm.Word),
			asm.LoadMem(asm.R2, rPacket, offOutMeta, asm.Word),
			asm.LoadMem(asm.R3, rPacket, offOutLinear, asm.Word),
			asm.Sub.Reg(asm.R1, asm.R2),
			asm.JNE.Reg(asm.R1, asm.R3, "spent"),
		)
	}
	return all
}

// stop ends the call at the present packet, since the runs that follow find the end
// reached.
func stop(label string, why int64) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(rControl, offWhy, why, asm.Word).WithSymbol(label),
		asm.LoadMem(asm.R1, rControl, offNext, asm.Word),
		asm.StoreMem(rControl, offEnd, asm.R1, asm.Word),
	}
}

// exit returns a verdict.
func exit(label string, verdict int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, verdict).WithSymbol(label), asm.Return()}
}

// lookup finds the value whose key is on the stack, and makes a register point to it.
func (p *program) lookup(m *ebpf.Map, key int16, to asm.Register, missing string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(key)),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, missing),
		asm.Mov.Reg(to, asm.R0),
	}
}

// ctxPointers loads the start and the end of the packet into registers. It jumps if the
// packet is shorter than least.
func ctxPointers(data, end asm.Register, least int32, shorter string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(data, rCtx, ctxData, asm.Word),
		asm.LoadMem(end, rCtx, ctxEnd, asm.Word),
		asm.Mov.Reg(asm.R4, data),
		asm.Add.Imm(asm.R4, least),
		asm.JGT.Reg(asm.R4, end, shorter),
	}
}

// adjust moves an end of the packet by R2.
func adjust(helper asm.BuiltinFunc, failed string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, rCtx),
		helper.Call(),
		asm.JNE.Imm(asm.R0, 0, failed),
	}
}

// signed extends the sign of a 32-bit number.
func signed(r asm.Register) asm.Instructions {
	return asm.Instructions{asm.LSh.Imm(r, 32), asm.ArSh.Imm(r, 32)}
}

func join(parts ...asm.Instructions) asm.Instructions { return slices.Concat(parts...) }
