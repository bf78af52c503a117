package progrun_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/progrun/progrun"
)

// arp is an Ethernet frame without an IP packet, and ipv4 one with a packet.
var (
	arp  = append([]byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x08, 0x06}, make([]byte, 46)...)
	ipv4 = append([]byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45}, make([]byte, 45)...)
)

// load loads a program. Your own programs may come from an object file.
func load(spec *ebpf.ProgramSpec) *ebpf.Program {
	spec.License = "Dual MIT/GPL"
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		log.Fatal(err)
	}
	return prog
}

// dropARP loads a program that drops ARP and passes everything else.
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
	// Shoots packets with mark 7, and sets the priority of every packet to 5.
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

func ExampleSocketFilter() {
	// Keeps 20 bytes of each packet, counted from its IP header.
	prog := load(&ebpf.ProgramSpec{
		Type:         ebpf.SocketFilter,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 20), asm.Return()},
	})
	defer prog.Close()

	res, err := progrun.SocketFilter{Packet: ipv4, NoOutput: true}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Verdict)
	// Output: keep 20 bytes
}

func ExampleCGroupSKB() {
	// Allows packets with mark 7.
	prog := load(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 8, asm.Word), // mark
			asm.Mov.Imm(asm.R0, int32(progrun.CGroupSKBAllow)),
			asm.JEq.Imm(asm.R2, 7, "end"),
			asm.Mov.Imm(asm.R0, int32(progrun.CGroupSKBDrop)),
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	for _, mark := range []uint32{7, 8} {
		res, err := progrun.CGroupSKB{Packet: ipv4, Context: progrun.SKB{Mark: mark}}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(mark, res.Verdict)
	}
	// Output:
	// 7 allow
	// 8 drop
}

func ExampleLWT() {
	// Drops packets of more than 40 bytes, counted from their IP header.
	prog := load(&ebpf.ProgramSpec{
		Type: ebpf.LWTIn,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // len
			asm.Mov.Imm(asm.R0, int32(progrun.LWTDrop)),
			asm.JGT.Imm(asm.R2, 40, "end"),
			asm.Mov.Imm(asm.R0, int32(progrun.LWTOK)),
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	for _, packet := range [][]byte{ipv4, ipv4[:54]} {
		res, err := progrun.LWT{Packet: packet}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(packet), res.Verdict)
	}
	// Output:
	// 60 BPF_DROP
	// 54 BPF_OK
}

func ExampleFlowDissector() {
	// Treats every packet as UDP after an IPv4 header without options.
	prog := load(&ebpf.ProgramSpec{
		Type:       ebpf.FlowDissector,
		AttachType: ebpf.AttachFlowDissector,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 144, asm.DWord), // flow_keys
			asm.StoreImm(asm.R2, 2, 34, asm.Half),       // thoff
			asm.StoreImm(asm.R2, 9, 17, asm.Byte),       // ip_proto
			asm.Mov.Imm(asm.R0, 0),                      // BPF_OK
			asm.Return(),
		},
	})
	defer prog.Close()

	res, err := progrun.FlowDissector{Packet: ipv4, Flags: progrun.FlowStopAtEncap}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Verdict, res.Keys.THOff, res.Keys.IPProto, res.Keys.Flags)
	// Output: BPF_OK 34 17 STOP_AT_ENCAP
}

func ExampleNetfilter() {
	prog := load(&ebpf.ProgramSpec{
		Type:         ebpf.Netfilter,
		AttachType:   ebpf.AttachNetfilter,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(progrun.NFAccept)), asm.Return()},
	})
	defer prog.Close()

	res, err := progrun.Netfilter{Packet: ipv4, Hook: progrun.NFPreRouting}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Verdict)
	// Output: NF_ACCEPT
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

func ExampleStructOps() {
	// Sets the state to 5 and returns 42.
	prog := load(&ebpf.ProgramSpec{
		Type:       ebpf.StructOps,
		AttachType: ebpf.AttachStructOps,
		AttachTo:   "bpf_dummy_ops:test_1",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord), // the first argument
			asm.Mov.Imm(asm.R0, 42),
			asm.JEq.Imm(asm.R2, 0, "end"),
			asm.StoreImm(asm.R2, 0, 5, asm.Word), // val
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	var state int32
	res, err := progrun.StructOps{State: &state}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Return, state)
	// Output: 42 5
}

// The program runs if it is attached to bpf_fentry_test1. It may count its runs in a
// map.
func ExampleTracing() {
	prog := load(&ebpf.ProgramSpec{
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceFEntry,
		AttachTo:     "bpf_fentry_test1",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	defer prog.Close()
	attached, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		log.Fatal(err)
	}
	defer attached.Close()

	if _, err := (progrun.Tracing{}).Run(prog); err != nil {
		log.Fatal(err)
	}
}

// Raw sets a field of the attr that the typed requests do not have.
func ExampleRaw() {
	prog := dropARP()
	defer prog.Close()

	out := make([]byte, 128)
	res, err := progrun.Raw{DataIn: arp, DataOut: out, Repeat: 3}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(progrun.XDPAction(res.Retval), res.DataSizeOut)
	// Output: XDP_DROP 60
}

// The loop ends at the first packet that is dropped, whose result stays valid.
func ExampleBatch() {
	prog := dropARP()
	defer prog.Close()

	packets := slices.Values([][]byte{ipv4, arp, ipv4})
	var dropped progrun.BatchResult[progrun.XDP, progrun.XDPResult]
	for res, err := range progrun.Batch(prog, progrun.Packets(progrun.XDP{}, packets), nil) {
		if err != nil {
			log.Fatal(err)
		}
		if res.Result.Action == progrun.XDPDrop {
			dropped = res
			break
		}
	}
	fmt.Println(dropped.Input, dropped.Result.Action, len(dropped.Result.Packet))
	// Output: 2 XDP_DROP 60
}

// In a batch of requests, each packet has a context of its own. With KeepGoing, an
// error of one input does not end the batch.
func ExampleBatch_requests() {
	// Shoots packets with mark 7.
	prog := load(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 8, asm.Word), // mark
			asm.Mov.Imm(asm.R0, int32(progrun.TCActShot)),
			asm.JEq.Imm(asm.R2, 7, "end"),
			asm.Mov.Imm(asm.R0, int32(progrun.TCActOK)),
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	requests := slices.Values([]progrun.TC{
		{Packet: ipv4, Context: progrun.SKB{Mark: 7}},
		{Packet: ipv4[:10]},
		{Packet: ipv4, Context: progrun.SKB{Mark: 8}},
	})
	for res, err := range progrun.Batch(prog, requests, &progrun.BatchOptions{KeepGoing: true}) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(res.Request.Context.Mark, res.Result.Verdict)
	}
	// Output:
	// 7 TC_ACT_SHOT
	// progrun: input 2: TC.Packet: 10 bytes: a packet begins with a 14-byte Ethernet header: invalid argument
	// 8 TC_ACT_OK
}

// With room to run ahead, many packets of an XDP program run in one system call.
func ExampleBatch_ahead() {
	prog := dropARP()
	defer prog.Close()

	packets := slices.Values(slices.Repeat([][]byte{ipv4, arp}, 50_000))
	var stats progrun.BatchStats
	// The packets stay where they are, so they need not be copied.
	opts := &progrun.BatchOptions{Ahead: 1024, NoCopy: true, Stats: &stats}
	dropped := 0
	for res, err := range progrun.Batch(prog, progrun.Packets(progrun.Any{NoOutput: true}, packets), opts) {
		if err != nil {
			log.Fatal(err)
		}
		if res.Result.Verdict == (progrun.AnyVerdict{Type: ebpf.XDP, Value: int64(progrun.XDPDrop)}) {
			dropped++
		}
	}
	// stats.Carried says how many of the packets ran in calls with others, and
	// stats.CarryErr why not all of them did.
	fmt.Println(stats.Inputs, dropped)
	// Output: 100000 50000
}

func ExamplePackets() {
	prog := dropARP()
	defer prog.Close()

	// The request has the fields that are the same for each packet.
	requests := progrun.Packets(progrun.XDP{NoOutput: true}, slices.Values([][]byte{arp, ipv4}))
	for res, err := range progrun.Batch(prog, requests, nil) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Input, res.Result.Action)
	}
	// Output:
	// 1 XDP_DROP
	// 2 XDP_PASS
}

// One loop runs programs of any type that takes packets. Its results have the context
// of those that run on a socket buffer.
func ExampleAny() {
	mark := load(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 7),
			asm.StoreMem(asm.R1, 8, asm.R0, asm.Word), // __sk_buff.mark
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	defer mark.Close()
	xdp := dropARP()
	defer xdp.Close()

	for _, prog := range []*ebpf.Program{xdp, mark} {
		res, err := progrun.Any{Packet: arp}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(prog.Type(), res.Verdict, len(res.Packet), res.Context.Mark)
	}
	// Output:
	// XDP XDP_DROP 60 0
	// SchedCLS TC_ACT_OK 60 7
}

func ExampleMeasure() {
	prog := dropARP()
	defer prog.Close()

	t, err := progrun.Measure(prog, progrun.XDP{Packet: arp}, 10*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	perRun := t.PerRun
	if t.Drifts { // the program met its own edits
		perRun = t.PerFreshRun
	}
	fmt.Println(perRun > 0, t.Median <= t.P90, t.P90 <= t.P99)
	// Output: true true true
}

// Add merges the timings of several packets into one.
func ExampleTiming_Add() {
	prog := dropARP()
	defer prog.Close()

	var all progrun.Timing
	for _, packet := range [][]byte{arp, ipv4} {
		t, err := progrun.Measure(prog, progrun.XDP{Packet: packet}, 5*time.Millisecond)
		if err != nil {
			log.Fatal(err)
		}
		all.Add(t)
	}
	runs := 0
	for bucket := range all.Buckets() { // bucket.From, bucket.To
		runs += bucket.Runs
	}
	fmt.Println(runs == all.FreshRuns)
	// Output: true
}

// Ignored finds the fields that the kernel ignores for a program type.
func ExampleRaw_Ignored() {
	raw := progrun.Raw{DataIn: ipv4, CPU: 3}
	fmt.Println(raw.Ignored(ebpf.XDP), raw.Ignored(ebpf.RawTracepoint))
	// Output: [CPU] []
}

func ExampleLive() {
	prog := returns(progrun.XDPDrop) // nothing leaves the machine
	defer prog.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stats, err := progrun.Live{Packet: ipv4, Frames: 1000, Rate: 100_000}.Run(ctx, prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Frames, stats.Uncertain)
	// Output: 1000 0
}

// A capture runs at the times of its packets, here at twice the speed. Each frame is
// written anew.
func ExampleLive_packets() {
	prog := dropARP()
	defer prog.Close()

	live := progrun.Live{
		Packets: [][]byte{arp, ipv4, arp},
		Times:   []time.Duration{0, 2 * time.Millisecond, 6 * time.Millisecond},
		Speed:   2,
		Frames:  6, // two rounds
	}
	stats, err := live.Run(context.Background(), prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Frames, stats.Verdicts.Drop, stats.Verdicts.Pass, stats.Wall >= 6*time.Millisecond)
	// Output: 6 4 2 true
}

// Add makes one total of several runs. It marshals to JSON.
func ExampleLiveStats_Add() {
	prog := dropARP()
	defer prog.Close()

	var total progrun.LiveStats
	for _, packet := range [][]byte{arp, ipv4} {
		stats, err := progrun.Live{Packet: packet, Frames: 100, CountVerdicts: true}.Run(context.Background(), prog)
		if err != nil {
			log.Fatal(err)
		}
		total.Add(stats)
	}
	verdicts, err := json.Marshal(total.Verdicts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(total.Frames, total.Verdicts.Total(), total.FramesPerSecond() > 0)
	fmt.Println(string(verdicts))
	// Output:
	// 200 200 true
	// {"aborted":0,"drop":100,"pass":100,"tx":0,"redirect":0,"other":0}
}

// This replaces the program of a run that goes on meanwhile.
func ExampleExchange() {
	first, second := returns(progrun.XDPDrop), returns(progrun.XDPPass)
	defer first.Close()
	defer second.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var exchange progrun.Exchange
	stats, err := progrun.Live{
		Packet: ipv4, Rate: 10_000, Exchange: &exchange,
		ProgressInterval: 10 * time.Millisecond,
		Progress: func(stats progrun.LiveStats) {
			switch {
			case stats.Verdicts.Pass > 0:
				cancel()
			case stats.Verdicts.Drop > 0:
				if err := exchange.Put(second); err != nil {
					log.Fatal(err)
				}
			}
		},
	}.Run(ctx, first)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Verdicts.Drop > 0, stats.Verdicts.Pass > 0)
	// Output: true true
}

// returns loads an XDP program that returns an action.
func returns(action progrun.XDPAction) *ebpf.Program {
	return load(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(action)), asm.Return()},
	})
}

// Without a Hold, each call with a Repeat above 1 pays for the XDP dispatcher.
func ExampleNewHold() {
	prog := dropARP()
	defer prog.Close()

	hold, err := progrun.NewHold(prog)
	if err != nil {
		log.Fatal(err)
	}
	defer hold.Close()
	for _, n := range []int{10, 100, 1000} {
		res, err := progrun.XDP{Packet: arp, Repeat: n, NoOutput: true}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n, res.Action)
	}
	// Output:
	// 10 XDP_DROP
	// 100 XDP_DROP
	// 1000 XDP_DROP
}

// The buffer of one result serves the next run, so no run allocates.
func ExampleXDP_out() {
	prog := dropARP()
	defer prog.Close()

	out := make([]byte, 0, 256)
	for _, packet := range [][]byte{arp, ipv4} {
		res, err := progrun.XDP{Packet: packet, Out: out}.Run(prog)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Action, len(res.Packet), res.Sight)
		out = res.Packet // as large as needed, if the program made the packet longer
	}
	// Output:
	// XDP_DROP 60 whole
	// XDP_PASS 60 whole
}

// The program sees the metadata between data_meta and data.
func ExampleXDP_metadata() {
	// Adds 1 to the first word of the metadata.
	prog := load(&ebpf.ProgramSpec{
		Type: ebpf.XDP,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 8, asm.Word), // data_meta
			asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), // data
			asm.Mov.Imm(asm.R0, int32(progrun.XDPAborted)),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, 4),
			asm.JGT.Reg(asm.R4, asm.R3, "end"),
			asm.LoadMem(asm.R5, asm.R2, 0, asm.Word),
			asm.Add.Imm(asm.R5, 1),
			asm.StoreMem(asm.R2, 0, asm.R5, asm.Word),
			asm.Mov.Imm(asm.R0, int32(progrun.XDPPass)),
			asm.Return().WithSymbol("end"),
		},
	})
	defer prog.Close()

	metadata := binary.NativeEndian.AppendUint32(nil, 41)
	res, err := progrun.XDP{Packet: arp, Metadata: metadata}.Run(prog)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Action, binary.NativeEndian.Uint32(res.Metadata), len(res.Packet))
	// Output: XDP_PASS 42 60
}

// This lists what the running kernel lacks.
func Example_features() {
	for name, have := range map[string]func() error{
		"XDP contexts":               progrun.HaveXDPContext,
		"XDP.LinearSize":             progrun.HaveXDPLinearSize,
		"XDP packets with fragments": progrun.HaveXDPMultiBuffer,
		"Live":                       progrun.HaveXDPLiveFrames,
		"TC.LinearSize":              progrun.HaveNonLinearSKB,
		"TC.ChecksumComplete":        progrun.HaveChecksumComplete,
		"RawTracepoint.CPU":          progrun.HaveRunOnCPU,
		"data of cgroup_skb":         progrun.HaveCGroupSKBData,
	} {
		if err := have(); errors.Is(err, ebpf.ErrNotSupported) {
			fmt.Println("this kernel lacks", name)
		} else if err != nil {
			log.Fatal(err) // such as EPERM
		}
	}
}

// Ask for a feature instead of deriving it from the kernel's version.
func ExampleHaveXDPLinearSize() {
	switch err := progrun.HaveXDPLinearSize(); {
	case err == nil:
		fmt.Println("this kernel takes XDP.LinearSize")
	case errors.Is(err, ebpf.ErrNotSupported):
		fmt.Println("this kernel does not")
	default:
		fmt.Println("that could not be found out:", err)
	}
}

func ExampleHaveProgramRun() {
	for _, t := range []ebpf.ProgramType{ebpf.XDP, ebpf.Kprobe} {
		err := progrun.HaveProgramRun(t)
		fmt.Println(t, err == nil, errors.Is(err, ebpf.ErrNotSupported))
	}
	// Output:
	// XDP true false
	// Kprobe false true
}

// Verdicts marshal as text, and back.
func ExampleXDPAction_UnmarshalText() {
	var action progrun.XDPAction
	if err := json.Unmarshal([]byte(`"XDP_TX"`), &action); err != nil {
		log.Fatal(err)
	}
	fmt.Println(action == progrun.XDPTX)
	// Output: true
}

func ExampleTCVerdict_GotoChain() {
	verdict := progrun.TCVerdict(0x20000003) // as a program returned it
	if chain, ok := verdict.GotoChain(); ok {
		fmt.Println(verdict, "goes on with chain", chain)
	}
	// Output: TC_ACT_GOTO_CHAIN|3 goes on with chain 3
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
