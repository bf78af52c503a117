package main

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The verdicts that the programs return.
const (
	xdpDrop = 1
	xdpPass = 2
	xdpTX   = 3
)

// returns returns a program of two instructions, so that the cost is that of the call.
func returns(t ebpf.ProgramType, value int32) *ebpf.ProgramSpec {
	spec := &ebpf.ProgramSpec{
		Type:         t,
		License:      "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, value), asm.Return()},
	}
	switch t {
	case ebpf.Syscall:
		spec.Flags = unix.BPF_F_SLEEPABLE
	case ebpf.SkLookup:
		spec.AttachType = ebpf.AttachSkLookup
	}
	return spec
}

// redirects returns an XDP program that sends frames out of an interface.
func redirects(ifindex int) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Type:    ebpf.XDP,
		License: "MIT",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(ifindex)),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
		},
	}
}
