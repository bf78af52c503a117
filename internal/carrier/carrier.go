// Package carrier runs many packets through an XDP program in one system call.
//
// A carrier is an XDP program of its own that the kernel runs once for each
// packet, by the repeat of BPF_PROG_RUN. It takes the packet out of a map, writes
// it into the kernel's buffer, tail-calls the target out of a subprogram, notes
// what became of the packet, and leaves the buffer as it found it. A tail call
// out of a subprogram returns to the caller of the subprogram with the target's
// verdict, on x86-64 since Linux 5.10, on arm64 since 6.0. The helpers that copy
// packets are there since 5.18.
//
// The target sees what it would in a run of its own, but for one tail call of 33
// that it cannot make.
package carrier

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// Carrier holds the program and the maps of a carrier.
type Carrier struct {
	program
	prog *ebpf.Program

	controlMem, indexMem, slabMem []byte
}

// Options configures a carrier.
type Options struct {
	Chunks  int  // how many chunks there are
	Packets int  // how many packets one takes
	Output  bool // whether packets and metadata are wanted back
}

// New makes a carrier of target.
func New(target *ebpf.Program, opts Options) (*Carrier, error) {
	c := &Carrier{}
	c.output, c.most = opts.Output, uint32(os.Getpagesize())
	err := c.make(target, opts.Chunks, opts.Chunks*opts.Packets, 2*opts.Chunks)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// make makes maps of so many entries, and the program.
func (c *Carrier) make(target *ebpf.Program, controls, packets, slabs int) (err error) {
	if err := c.aim(target); err != nil {
		return err
	}
	for _, m := range []struct {
		to         **ebpf.Map
		mem        *[]byte
		name       string
		size, many int
	}{
		{&c.controls, &c.controlMem, "control", controlSize, controls},
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
	if err != nil {
		return fmt.Errorf("load the carrier: %w", errors.Join(err, lacking()))
	}
	return nil
}

// lacking says what the kernel does not have, if that is why.
func lacking() error {
	err := features.HaveProgramHelper(ebpf.XDP, asm.FnXdpStoreBytes)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("bpf_xdp_store_bytes (Linux 5.18): %w", err)
	}
	return nil
}

const mmapable = 1 << 10 // BPF_F_MMAPABLE

// aim makes the array with the target in it, and finds out which programs go
// with the target: an array takes only such as agree with its first.
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
	return fmt.Errorf("no program goes with the program: %w", err)
}

// fits tries a small program of the same kind.
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

// Program is the program to run, and to hold while it does.
func (c *Carrier) Program() *ebpf.Program { return c.prog }

// Exchange puts another target in the place of the one there is, with one store
// that every later packet sees.
func (c *Carrier) Exchange(target *ebpf.Program) error { return c.targets.Put(uint32(0), target) }

// Close lets go of everything. No call may be under way.
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
