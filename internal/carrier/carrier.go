// Package carrier runs many packets through an XDP program in one system call.
//
// A carrier is an XDP program that the kernel runs once for each packet, by the
// repeat of BPF_PROG_RUN. It takes the packet from a map, writes it into the kernel's
// buffer, tail-calls the target from a subprogram, records the result, and leaves the
// buffer as it found it. A tail call from a subprogram returns to the caller of the
// subprogram with the target's verdict, on x86-64 since Linux 5.10, on arm64 since
// 6.0. The helpers that copy packets exist since 5.18.
//
// The target sees what it would see in a run of its own, except that it can make 32
// tail calls in a row instead of 33.
package carrier

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// Carrier holds the program and the maps of a carrier.
type Carrier struct {
	program
	prog  *ebpf.Program
	clear bool // whether the headroom is cleared before each packet

	controlMem, indexMem, slabMem []byte
}

// Options configures a carrier.
type Options struct {
	Chunks  int  // number of chunks
	Packets int  // number of packets in a chunk, at most
	Output  bool // whether results have packets and metadata
	Slabs   int  // number of slabs for packets, besides those of the chunks
}

// New makes a carrier that runs target.
func New(target *ebpf.Program, opts Options) (*Carrier, error) {
	c := &Carrier{}
	c.output, c.most = opts.Output, uint32(os.Getpagesize())
	err := c.make(target, opts.Chunks, opts.Chunks*opts.Packets, opts.Chunks*c.slabsOfChunk()+opts.Slabs)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// make makes the maps, for these numbers of slots, packets and slabs, and the program.
func (c *Carrier) make(target *ebpf.Program, slots, packets, slabs int) (err error) {
	c.slots = slots
	if err := c.aim(target); err != nil {
		return err
	}
	for _, m := range []struct {
		to         **ebpf.Map
		mem        *[]byte
		name       string
		size, many int
	}{
		{&c.controls, &c.controlMem, "control", controlSize * slots, 1},
		{&c.index, &c.indexMem, "index", packetSize, packets},
		{&c.slabs, &c.slabMem, "slabs", slabSize, slabs},
	} {
		if m.many == 0 {
			continue
		}
		*m.to, err = ebpf.NewMap(&ebpf.MapSpec{
			Name: "carrier_" + m.name, Type: ebpf.Array, KeySize: 4,
			ValueSize: uint32(m.size), MaxEntries: uint32(m.many), Flags: mmapable,
		})
		if err == nil {
			*m.mem, err = mapMemory((*m.to).FD(), m.size*m.many)
		}
		if err != nil {
			return fmt.Errorf("make a map of %d bytes: %w", m.size*m.many, err)
		}
	}
	c.prog, err = c.load()
	c.clear = err == nil && mayMoveHead(target, c.prog)
	if err != nil {
		if lack := lacking(); lack != nil {
			err = fmt.Errorf("%w: %w", err, lack)
		}
		return fmt.Errorf("load the carrier: %w", err)
	}
	return nil
}

// lacking returns an error that names what the kernel lacks, or nil.
func lacking() error {
	err := features.HaveProgramHelper(ebpf.XDP, asm.FnXdpStoreBytes)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("bpf_xdp_store_bytes (Linux 5.18): %w", err)
	}
	if err := tailCallInSubprogram(); errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("tail calls from a subprogram, which take a JIT that has them: %w", ebpf.ErrNotSupported)
	}
	return nil
}

// tailCallInSubprogram loads the smallest program with a tail call from a subprogram.
func tailCallInSubprogram() error {
	targets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer targets.Close()
	tail := (&program{targets: targets}).tail()
	tail[0] = function(tail[0], "tail")
	insns := append(asm.Instructions{function(asm.Call.Label("tail"), "carrier"), asm.Return()}, tail...)
	prog, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: insns},
		ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return err
	}
	return prog.Close()
}

const mmapable = 1 << 10 // BPF_F_MMAPABLE

// aim makes the array with the target, and finds out which kind of program fits the
// target: an array accepts only programs that agree with its first one.
func (c *Carrier) aim(target *ebpf.Program) (err error) {
	c.targets, err = ebpf.NewMap(&ebpf.MapSpec{Name: "carrier_target", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return err
	}
	if err := c.targets.Put(uint32(0), target); err != nil {
		return fmt.Errorf("put the program into an array of programs: %w", err)
	}
	for _, c.frags = range []bool{false, true} {
		for _, c.attach = range []ebpf.AttachType{ebpf.AttachXDP, ebpf.AttachNone} {
			if err = c.fits(); err == nil {
				return c.targets.Delete(uint32(1))
			}
		}
	}
	return fmt.Errorf("no other program fits into an array with the program: %w", err)
}

// fits returns an error unless a small program of the carrier's kind fits the target.
func (c *Carrier) fits() error {
	spec := &ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: c.attach, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	}
	if c.frags {
		spec.Flags = hasFrags
	}
	prog, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return err
	}
	defer prog.Close()
	return c.targets.Put(uint32(1), prog)
}

func (c *Carrier) control(i int) *control {
	return (*control)(unsafe.Pointer(&c.controlMem[i*controlSize]))
}

// Program returns the carrier's program, which is to be run and held.
func (c *Carrier) Program() *ebpf.Program { return c.prog }

// Exchange replaces the target, with one store that every later packet sees.
func (c *Carrier) Exchange(target *ebpf.Program) error {
	if !c.live && !c.clear && mayMoveHead(target, c.prog) {
		c.clear = true
		for i := range c.slots {
			c.control(i).clear()
		}
	}
	return c.targets.Put(uint32(0), target)
}

// mayMoveHead reports whether a program could see the headroom, which is full of zeros
// in a single run. A program sees it only if it calls a helper that moves the head. The
// kernel has replaced the numbers of helpers by their addresses, so mayMoveHead compares
// them with the calls of our own program, which moves the head. It reports true if the
// kernel hides the addresses, or if the program calls anything that is not a helper.
func mayMoveHead(target, ours *ebpf.Program) bool {
	moving := make(map[int64]bool)
	made, err := calls(ours)
	for _, call := range made {
		moving[call.Constant] = true
	}
	theirs, theirErr := calls(target)
	if err != nil || theirErr != nil {
		return true
	}
	for _, call := range theirs {
		if !call.IsBuiltinCall() || moving[call.Constant] {
			return true
		}
	}
	return false
}

// calls returns the calls of a program, as the kernel has translated it.
func calls(prog *ebpf.Program) (all asm.Instructions, err error) {
	info, err := prog.Info()
	if err != nil {
		return nil, err
	}
	insns, err := info.Instructions()
	for _, ins := range insns {
		if class := ins.OpCode.Class(); class.IsJump() && ins.OpCode.JumpOp() == asm.Call {
			all = append(all, ins)
		}
	}
	return all, err
}

// Close releases everything. No call may be under way.
func (c *Carrier) Close() error {
	err := c.prog.Close()
	for _, mem := range [][]byte{c.controlMem, c.indexMem, c.slabMem} {
		err = errors.Join(err, unmapMemory(mem))
	}
	for _, m := range []*ebpf.Map{c.controls, c.index, c.slabs, c.targets} {
		err = errors.Join(err, m.Close())
	}
	c.controlMem, c.indexMem, c.slabMem = nil, nil, nil
	return err
}
