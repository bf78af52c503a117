package main

import (
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

const (
	packetSize = 64
	// ample is an output buffer into which the kernel can write directly,
	// whatever a program did to the packet.
	ample = 32 << 10
	// scratchSize is the size of the buffer that progrun lends to requests without
	// one: 46 pages, the headroom of XDP, and a page.
	scratchSize = 47*4096 + 256
)

// runCase is one way to run a program once.
type runCase struct {
	name    string
	progrun func() error
	floor   job
	cilium  func() error
	plain   func() error // cilium/ebpf without the context that progrun returns
	fresh   bool         // whether the output is allocated
}

// byPlain is cilium/ebpf asked for the packet alone.
const byPlain = "cilium-packet-only"

// calls returns the points of one run of a 64-byte packet.
func (b *bench) calls() ([]point, error) {
	var cases []runCase
	for _, f := range []func() ([]runCase, error){
		b.xdpCases, b.tcCases, b.socketFilterCases, b.skLookupCases,
		b.flowDissectorCases, b.syscallCases, b.rawTracepointCases, b.rawCases,
	} {
		more, err := f()
		if err != nil {
			return nil, err
		}
		cases = append(cases, more...)
	}
	var points []point
	for _, c := range cases {
		points = append(points, b.callPoint(c))
	}
	return points, nil
}

// callPoint returns the point of a case, with its floors and peers. Targets are
// ratios to the floors, since what a peer adds to the system call varies with the
// machine.
func (b *bench) callPoint(c runCase) point {
	p := point{name: c.name, contenders: []contender{each(byProgrun, c.progrun), goFloor(c.floor)}}
	p.contenders = append(p.contenders, b.c.cFloor(c.floor)...)
	p.contenders = append(p.contenders, each(byCilium, c.cilium))
	if c.plain != nil {
		p.contenders = append(p.contenders, each(byPlain, c.plain))
	}
	most := 1.10
	if c.fresh {
		most, p.allocs = 1.25, 1
	}
	p.claims = []claim{
		{label: "of the Go floor", of: byProgrun, over: byGo, sense: atMost, target: most},
		{label: "of the C floor", of: byProgrun, over: byC},
		{label: "times as fast as Run", of: byCilium, over: byProgrun},
		{label: "times as fast as Run, packet only", of: byPlain, over: byProgrun},
	}
	return p
}

// runs returns a case's function for cilium/ebpf's Run. Run cuts DataOut to what the
// kernel wrote, so the function restores it before each run.
func runs(prog *ebpf.Program, opts ebpf.RunOptions) func() error {
	out := opts.DataOut
	return func() error {
		opts.DataOut = out
		_, err := prog.Run(&opts)
		return err
	}
}

func (b *bench) xdpCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	ctx := &xdpMD{DataEnd: packetSize}
	metadata := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	withMetadata := append(append([]byte(nil), metadata...), packet...)
	full := &xdpMD{Data: uint32(len(metadata)), DataEnd: uint32(len(withMetadata)), IngressIfindex: 1}
	both := func(data []byte, ctx *xdpMD) func() error {
		return runs(prog, ebpf.RunOptions{Data: data, DataOut: make([]byte, ample), Context: ctx, ContextOut: new(xdpMD)})
	}
	plain := runs(prog, ebpf.RunOptions{Data: packet, DataOut: make([]byte, ample)})
	output := func(room int) job {
		return job{prog: prog, packet: packet, out: room, ctx: bytesOf(ctx), ctxOut: 24}
	}
	verdict, reused, snug, fresh, contexts := progrun.XDP{Packet: packet, NoOutput: true},
		progrun.XDP{Packet: packet, Out: make([]byte, 0, ample)},
		progrun.XDP{Packet: packet, Out: make([]byte, 0, packetSize)},
		progrun.XDP{Packet: packet},
		progrun.XDP{Packet: packet, Metadata: metadata, IngressIfindex: 1, Out: make([]byte, 0, ample)}
	return []runCase{
		{name: "XDP, verdict only", floor: job{prog: prog, packet: packet},
			progrun: func() error { _, err := verdict.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Data: packet})},
		{name: "XDP, reused Out", floor: output(ample), cilium: both(packet, ctx), plain: plain,
			progrun: func() error { _, err := reused.Run(prog); return err }},
		{name: "XDP, reused Out of 64 bytes", floor: output(scratchSize), cilium: both(packet, ctx), plain: plain,
			progrun: func() error { _, err := snug.Run(prog); return err }},
		{name: "XDP, Out nil", floor: output(scratchSize), cilium: both(packet, ctx), plain: plain, fresh: true,
			progrun: func() error { _, err := fresh.Run(prog); return err }},
		{name: "XDP, contexts in and out", cilium: both(withMetadata, full),
			floor:   job{prog: prog, packet: withMetadata, out: ample, ctx: bytesOf(full), ctxOut: 24},
			progrun: func() error { _, err := contexts.Run(prog); return err }},
	}, nil
}

// skbRequests has the ways to run a program of the skb family.
type skbRequests struct{ verdict, reused, snug, fresh, contexts func() error }

func (b *bench) tcCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.SchedCLS, 0))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	run := func(q progrun.TC) func() error {
		return func() error { _, err := q.Run(prog); return err }
	}
	return skbCases("TC", prog, packet, skbRequests{
		verdict:  run(progrun.TC{Packet: packet, NoOutput: true}),
		reused:   run(progrun.TC{Packet: packet, Out: make([]byte, 0, ample)}),
		snug:     run(progrun.TC{Packet: packet, Out: make([]byte, 0, packetSize)}),
		fresh:    run(progrun.TC{Packet: packet}),
		contexts: run(progrun.TC{Packet: packet, Context: skbInput, Out: make([]byte, 0, ample)}),
	}), nil
}

func (b *bench) socketFilterCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.SocketFilter, -1))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	run := func(q progrun.SocketFilter) func() error {
		return func() error { _, err := q.Run(prog); return err }
	}
	return skbCases("SocketFilter", prog, packet, skbRequests{
		verdict:  run(progrun.SocketFilter{Packet: packet, NoOutput: true}),
		reused:   run(progrun.SocketFilter{Packet: packet, Out: make([]byte, 0, ample)}),
		snug:     run(progrun.SocketFilter{Packet: packet, Out: make([]byte, 0, packetSize)}),
		fresh:    run(progrun.SocketFilter{Packet: packet}),
		contexts: run(progrun.SocketFilter{Packet: packet, Context: skbInput, Out: make([]byte, 0, ample)}),
	}), nil
}

// skbInput is the context that goes in, in cases with contexts.
var skbInput = progrun.SKB{Mark: 7, Priority: 5, CB: [5]uint32{1, 2, 3, 4, 5}, TStampNS: 1000, WireLen: 100}

func skbCases(name string, prog *ebpf.Program, packet []byte, q skbRequests) []runCase {
	ctx := &skBuff{Mark: 7, Priority: 5, CB: skbInput.CB, TStamp: 1000, WireLen: 100}
	size := len(bytesOf(ctx))
	room := make([]byte, ample)
	output := runs(prog, ebpf.RunOptions{Data: packet, DataOut: room, ContextOut: new(skBuff)})
	plain := runs(prog, ebpf.RunOptions{Data: packet, DataOut: room})
	return []runCase{
		{name: name + ", verdict only", progrun: q.verdict, floor: job{prog: prog, packet: packet},
			cilium: runs(prog, ebpf.RunOptions{Data: packet})},
		{name: name + ", reused Out", progrun: q.reused, cilium: output, plain: plain,
			floor: job{prog: prog, packet: packet, out: ample, ctxOut: size}},
		{name: name + ", reused Out of 64 bytes", progrun: q.snug, cilium: output, plain: plain,
			floor: job{prog: prog, packet: packet, out: scratchSize, ctxOut: size}},
		{name: name + ", Out nil", progrun: q.fresh, cilium: output, plain: plain, fresh: true,
			floor: job{prog: prog, packet: packet, out: scratchSize, ctxOut: size}},
		{name: name + ", contexts in and out", progrun: q.contexts,
			floor:  job{prog: prog, packet: packet, out: ample, ctx: bytesOf(ctx), ctxOut: size},
			cilium: runs(prog, ebpf.RunOptions{Data: packet, DataOut: room, Context: ctx, ContextOut: new(skBuff)})},
	}
}

func (b *bench) skLookupCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.SkLookup, 1))
	if err != nil {
		return nil, err
	}
	q := progrun.SkLookup{
		Protocol: unix.IPPROTO_TCP,
		Local:    netip.MustParseAddrPort("192.0.2.1:80"), Remote: netip.MustParseAddrPort("192.0.2.2:4000"),
	}
	ctx := &skLookup{
		Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, LocalIP4: [4]byte{192, 0, 2, 1}, LocalPort: 80,
		RemoteIP4: [4]byte{192, 0, 2, 2}, RemotePort: [2]byte{4000 >> 8, 4000 & 0xff},
	}
	return []runCase{{
		name:    "SkLookup, contexts in and out",
		progrun: func() error { _, err := q.Run(prog); return err },
		floor:   job{prog: prog, ctx: bytesOf(ctx), ctxOut: len(bytesOf(ctx))},
		cilium:  runs(prog, ebpf.RunOptions{Context: ctx, ContextOut: new(skLookup)}),
	}}, nil
}

func (b *bench) flowDissectorCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.FlowDissector, 0))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	ctx := &flowKeys{Flags: uint32(progrun.FlowStopAtEncap)}
	size := len(bytesOf(ctx))
	keys, flags := progrun.FlowDissector{Packet: packet}, progrun.FlowDissector{Packet: packet, Flags: progrun.FlowStopAtEncap}
	return []runCase{
		{name: "FlowDissector, keys out", floor: job{prog: prog, packet: packet, out: size},
			progrun: func() error { _, err := keys.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Data: packet, DataOut: make([]byte, size)})},
		{name: "FlowDissector, flags in, keys out",
			floor:   job{prog: prog, packet: packet, out: size, ctx: bytesOf(ctx)},
			progrun: func() error { _, err := flags.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Data: packet, DataOut: make([]byte, size), Context: ctx})},
	}, nil
}

func (b *bench) syscallCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.Syscall, 0))
	if err != nil {
		return nil, err
	}
	ctx := new([8]uint64)
	none, some := progrun.Syscall{}, progrun.Syscall{Context: ctx}
	return []runCase{
		{name: "Syscall, no context", floor: job{prog: prog},
			progrun: func() error { _, err := none.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{})},
		{name: "Syscall, 64 bytes in and out", floor: job{prog: prog, ctx: bytesOf(ctx)},
			progrun: func() error { _, err := some.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Context: ctx, ContextOut: new([8]uint64)})},
	}, nil
}

func (b *bench) rawTracepointCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.RawTracepoint, 0))
	if err != nil {
		return nil, err
	}
	args := []uint64{1, 2}
	none, some := progrun.RawTracepoint{}, progrun.RawTracepoint{Args: args}
	return []runCase{
		{name: "RawTracepoint, no arguments", floor: job{prog: prog},
			progrun: func() error { _, err := none.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{})},
		{name: "RawTracepoint, 2 arguments", floor: job{prog: prog, ctx: bytesOf(args)},
			progrun: func() error { _, err := some.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Context: args})},
	}, nil
}

func (b *bench) rawCases() ([]runCase, error) {
	prog, err := b.load(returns(ebpf.SchedCLS, 0))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	verdict, output := progrun.Raw{DataIn: packet}, progrun.Raw{DataIn: packet, DataOut: make([]byte, ample)}
	return []runCase{
		{name: "Raw, verdict only", floor: job{prog: prog, packet: packet},
			progrun: func() error { _, err := verdict.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Data: packet})},
		{name: "Raw, with output", floor: job{prog: prog, packet: packet, out: ample},
			progrun: func() error { _, err := output.Run(prog); return err },
			cilium:  runs(prog, ebpf.RunOptions{Data: packet, DataOut: make([]byte, ample)})},
	}, nil
}
