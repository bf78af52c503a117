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

// reflects returns an XDP program that finds the port of UDP in IPv4 and sends the
// packet back: it swaps the Ethernet addresses.
func reflects() *ebpf.ProgramSpec {
	const data, end, headers = 0, 4, 42
	return &ebpf.ProgramSpec{
		Type:    ebpf.XDP,
		License: "MIT",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
			asm.LoadMem(asm.R3, asm.R1, end, asm.Word),
			asm.Mov.Imm(asm.R0, xdpPass),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, headers),
			asm.JGT.Reg(asm.R4, asm.R3, "pass"),
			asm.LoadMem(asm.R4, asm.R2, 12, asm.Half), // EtherType
			asm.HostTo(asm.BE, asm.R4, asm.Half),
			asm.JNE.Imm(asm.R4, unix.ETH_P_IP, "pass"),
			asm.LoadMem(asm.R4, asm.R2, 23, asm.Byte),
			asm.JNE.Imm(asm.R4, unix.IPPROTO_UDP, "pass"),
			asm.LoadMem(asm.R4, asm.R2, 36, asm.Half), // port
			asm.HostTo(asm.BE, asm.R4, asm.Half),
			asm.JNE.Imm(asm.R4, 9, "pass"),
			asm.LoadMem(asm.R4, asm.R2, 0, asm.Word),
			asm.LoadMem(asm.R5, asm.R2, 4, asm.Half),
			asm.LoadMem(asm.R1, asm.R2, 6, asm.Word),
			asm.LoadMem(asm.R3, asm.R2, 10, asm.Half),
			asm.StoreMem(asm.R2, 0, asm.R1, asm.Word),
			asm.StoreMem(asm.R2, 4, asm.R3, asm.Half),
			asm.StoreMem(asm.R2, 6, asm.R4, asm.Word),
			asm.StoreMem(asm.R2, 10, asm.R5, asm.Half),
			asm.Mov.Imm(asm.R0, xdpTX),
			asm.Return().WithSymbol("pass"),
		},
	}
}
