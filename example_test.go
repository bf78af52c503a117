package progrun_test

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/progrun/progrun"
)

// arp is an Ethernet frame that holds no IP packet, and ipv4 one that does.
var (
	arp  = append([]byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x08, 0x06}, make([]byte, 46)...)
	ipv4 = append([]byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45}, make([]byte, 45)...)
)

// load stands for however you load your programs.
func load(spec *ebpf.ProgramSpec) *ebpf.Program {
	spec.License = "MIT"
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		log.Fatal(err)
	}
	return prog
}

// dropARP drops ARP and passes everything else.
func dropARP() *ebpf.Program {
	return load(&ebpf.ProgramSpec{
		Type: ebpf.XDP,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
			asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
			asm.Mov.Imm(asm.R0, int32(progrun.XDPPass)),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, 14),
			asm.JGT.Reg(asm.R4, asm.R3, "end"),
			asm.LoadMem(asm.R5, asm.R2, 12, asm.Byte),
			asm.LoadMem(asm.R6, asm.R2, 13, asm.Byte),
			asm.JNE.Imm(asm.R5, 0x08, "end"),
			asm.JNE.Imm(asm.R6, 0x06, "end"),
			asm.Mov.Imm(asm.R0, int32(progrun.XDPDrop)),
			asm.Return().WithSymbol("end"),
		},
	})
}

func ExampleXDP() {
	prog := dropARP()
	defer prog.Close()

	for _, packet := range [][]byte{arp, ipv4} {
		res, err := progrun.XDP{Packet: packet}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Action, len(res.Packet))
	}
	// Output:
	// XDP_DROP 60
	// XDP_PASS 60
}

func ExampleTC() {
	// Shoots what has the mark 7, and gives everything the priority 5.
	prog := load(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, 5),
			asm.StoreMem(asm.R1, 32, asm.R2, asm.Word), // priority
			asm.LoadMem(asm.R3, asm.R1, 8, asm.Word),   // mark
			asm.Mov.Imm(asm.R0, int32(progrun.TCActOK)),
			asm.JNE.Imm(asm.R3, 7, "end"),
			asm.Mov.Imm(asm.R0, int32(progrun.TCActShot)),
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	res, err := progrun.TC{Packet: ipv4, Context: progrun.SKB{Mark: 7}}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Verdict, res.Context.Mark, res.Context.Priority)
	// Output: TC_ACT_SHOT 7 5
}

func ExampleSkLookup() {
	// Refuses port 23.
	prog := load(&ebpf.ProgramSpec{
		Type:       ebpf.SkLookup,
		AttachType: ebpf.AttachSkLookup,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 60, asm.Word), // local_port
			asm.Mov.Imm(asm.R0, int32(progrun.SkPass)),
			asm.JNE.Imm(asm.R2, 23, "end"),
			asm.Mov.Imm(asm.R0, int32(progrun.SkDrop)),
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	for _, local := range []string{"192.0.2.1:22", "192.0.2.1:23", "[2001:db8::1]:23"} {
		res, err := progrun.SkLookup{
			Protocol: syscall.IPPROTO_TCP,
			Local:    netip.MustParseAddrPort(local),
		}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(local, res.Verdict)
	}
	// Output:
	// 192.0.2.1:22 SK_PASS
	// 192.0.2.1:23 SK_DROP
	// [2001:db8::1]:23 SK_DROP
}

func ExampleSyscall() {
	// Multiplies two numbers of its context and stores the product there.
	prog := load(&ebpf.ProgramSpec{
		Type:  ebpf.Syscall,
		Flags: 1 << 4, // BPF_F_SLEEPABLE: the kernel wants it for this type
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.LoadMem(asm.R3, asm.R1, 8, asm.DWord),
			asm.Mul.Reg(asm.R2, asm.R3),
			asm.StoreMem(asm.R1, 16, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	defer prog.Close()

	numbers := struct{ A, B, Product uint64 }{A: 6, B: 7}
	res, err := progrun.Syscall{Context: &numbers}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Return, numbers.Product)
	// Output: 0 42
}

func ExampleRawTracepoint() {
	// Returns the sum of its arguments.
	prog := load(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord),
			asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord),
			asm.Add.Reg(asm.R0, asm.R2),
			asm.Return(),
		},
	})
	defer prog.Close()

	res, err := progrun.RawTracepoint{Args: []uint64{40, 2}, CPU: progrun.OnCPU(0)}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Return)
	// Output: 42
}

func ExampleBatch() {
	prog := dropARP()
	defer prog.Close()

	packets := slices.Values([][]byte{arp, ipv4, ipv4})
	for res, err := range progrun.Batch(prog, progrun.XDP{}, packets, progrun.BatchOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Action)
	}
	// Output:
	// XDP_DROP
	// XDP_PASS
	// XDP_PASS
}

func ExampleError() {
	prog := dropARP()
	defer prog.Close()

	_, err := progrun.XDP{Packet: arp[:13]}.Run(prog)
	fmt.Println(err)

	var refused *progrun.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Field, "is to blame; the program", refused.Ran)
	}
	fmt.Println(errors.Is(err, syscall.EINVAL), errors.Is(err, ebpf.ErrNotSupported))
	// Output:
	// progrun: XDP.Packet: 13 bytes: a packet begins with a 14-byte Ethernet header: invalid argument
	// Packet is to blame; the program did not run
	// true false
}
