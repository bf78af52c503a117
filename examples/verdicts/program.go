package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// program is a loaded program.
type program struct {
	*ebpf.Program
	name   string
	attach ebpf.AttachType
	own    bool   // whether this command loaded it, so that nobody else uses its maps
	danger string // what a run could do to the kernel, or ""
	close  func()
}

func (p *program) String() string { return fmt.Sprintf("%s (%s)", p.name, p.Type()) }

// ahead returns how many packets of a capture may run ahead of the one that is shown. It
// is enough for many packets of an XDP program to run in one system call. It is 0 for
// a program that others may use, and for a capture that is still being made.
func (p *program) ahead(c *capture) int {
	if !p.own || c.live {
		return 0
	}
	return 1024
}

// empty loads a program of the same type that does nothing.
func (p *program) empty() (*program, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: p.Type(), AttachType: p.attach, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	return &program{Program: prog, name: "empty", own: true, close: func() { prog.Close() }}, nil
}
