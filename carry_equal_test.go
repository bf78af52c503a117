package progrun

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// assemble loads an XDP program.
func assemble(t testing.TB, attach ebpf.AttachType, insns ...asm.Instructions) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: attach, License: "Dual MIT/GPL", Instructions: slices.Concat(insns...),
	})
	need(t, err)
	t.Cleanup(func() { prog.Close() })
	return prog
}

// counter is an array of one number.
func counter(t testing.TB) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	need(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// count adds one to a counter, and puts what it was into R7.
func count(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapValue(asm.R8, m.FD(), 0),
		asm.LoadMem(asm.R7, asm.R8, 0, asm.DWord),
		asm.Mov.Reg(asm.R0, asm.R7), asm.Add.Imm(asm.R0, 1), asm.StoreMem(asm.R8, 0, asm.R0, asm.DWord),
	}
}

// forgetful is a program that redirects every fourth frame, and one after another
// returns XDP_REDIRECT without having called for it, drops after having called for it,
// and returns XDP_REDIRECT without having called for it again.
func forgetful(t testing.TB, ifindex int) *ebpf.Program {
	t.Helper()
	redirect := asm.Instructions{asm.Mov.Imm(asm.R1, int32(ifindex)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call()}
	return assemble(t, ebpf.AttachXDP,
		count(counter(t)),
		asm.Instructions{
			asm.And.Imm(asm.R7, 3),
			asm.JEq.Imm(asm.R7, 0, "redirect"),
			asm.JEq.Imm(asm.R7, 2, "drop"),
			asm.Mov.Imm(asm.R0, int32(XDPRedirect)), asm.Return(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"),
		}, redirect, asm.Instructions{
			asm.Mov.Imm(asm.R0, int32(XDPDrop)), asm.Return(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("redirect"),
		}, redirect, asm.Instructions{asm.Return()})
}

// TestLiveRedirectForgotten has as many frames leave with a carrier as without one,
// whatever a program has called for before.
func TestLiveRedirectForgotten(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	frames := int64(4000)
	if emulated {
		frames = 128 // which fit in the ring of the far end
	}
	arrived := make(map[string]int64)
	for name, live := range map[string]Live{
		"plain":    {Packet: frame(64)},
		"verdicts": {Packet: frame(64), CountVerdicts: true},
		"packets":  {Packets: [][]byte{frame(64), frame(70), frame(1000)}},
	} {
		w := newWire(t, 1)
		far := w.count(t)
		live.Frames, live.PerCall, live.NetNS = frames, 64, w.a
		stats, err := live.Run(soon(t), forgetful(t, w.ifA))
		needLiveCarrier(t, err)
		want := LiveVerdicts{Drop: frames / 4, Redirect: frames * 3 / 4}
		if name == "plain" {
			want = LiveVerdicts{}
		}
		if stats.Frames != frames || stats.Verdicts != want {
			t.Errorf("%s: %+v", name, stats)
		}
		for before := int64(-1); before != liveCount(t, far); time.Sleep(50 * time.Millisecond) {
			before = liveCount(t, far)
		}
		arrived[name] = liveCount(t, far)
	}
	t.Logf("of %d frames arrived %v", frames, arrived)
	if n := arrived["plain"]; n < frames/4 || arrived["verdicts"] != n || arrived["packets"] != n {
		t.Errorf("of %d frames arrived %v", frames, arrived)
	}
}

// TestLiveRedirectCarried has every frame of a capture leave by a device map.
func TestLiveRedirectCarried(t *testing.T) {
	w := newWire(t, 1)
	far, o := w.count(t), loadLive(t, "xdp_redirect_map")
	inNS(t, w.a, func() { set(t, o, "devmap", 0, uint32(w.ifA)) })
	live := unhurried(Live{Packets: [][]byte{frame(64), frame(1000), frame(70)}, Frames: 10_000, NetNS: w.a})
	stats, err := live.Run(soon(t), o.Program)
	needLiveCarrier(t, err)
	wantExact(t, o, stats, err, 10_000)
	wantSoon(t, far, 10_000)
	if want := (LiveVerdicts{Redirect: 10_000}); stats.Verdicts != want {
		t.Errorf("%+v", stats)
	}
}

// TestLiveCPUMap has every frame reach the program of a CPU map, as it was written.
func TestLiveCPUMap(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	const frames = 3000
	for _, live := range []Live{{Packet: frame(64)}, {Packet: frame(64), CountVerdicts: true}, {Packets: capture(10)}} {
		seen := counter(t)
		onCPU := assemble(t, ebpf.AttachXDPCPUMap, count(seen), asm.Instructions{asm.Mov.Imm(asm.R0, int32(XDPDrop)), asm.Return()})
		cpus, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.CPUMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		need(t, err)
		t.Cleanup(func() { cpus.Close() })
		need(t, cpus.Put(uint32(0), struct{ Size, Program uint32 }{2 * frames, uint32(onCPU.FD())}))
		prog := assemble(t, ebpf.AttachXDP, asm.Instructions{
			asm.LoadMapPtr(asm.R1, cpus.FD()), asm.Mov.Imm(asm.R2, 0), asm.Mov.Imm(asm.R3, 0), asm.FnRedirectMap.Call(), asm.Return(),
		})
		live.Frames = frames
		stats, err := live.Run(soon(t), prog)
		needLiveCarrier(t, err)
		var n uint64
		for range 200 {
			if need(t, seen.Lookup(uint32(0), &n)); n == frames {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n != frames || stats.Frames != frames || live.carriedBy() != "" && stats.Verdicts != (LiveVerdicts{Redirect: frames}) {
			t.Errorf("%d of %d frames reached the CPU's program: %+v", n, frames, stats)
		}
	}
}

// TestBatchRedirects has verdicts of programs that redirect be those of single runs.
func TestBatchRedirects(t *testing.T) {
	full, empty := load(t, "xdp", "xdp_redirect_map"), load(t, "xdp", "xdp_redirect_map")
	set(t, full, "devmap", 0, uint32(1))
	plain := load(t, "xdp", "xdp_redirect")
	programs := map[string]*ebpf.Program{"device map": full.Program, "empty device map": empty.Program, "no such interface": plain.Program}
	alone := make(map[string]XDPAction)
	for name, prog := range programs {
		res, err := XDP{Packet: frame(64)}.Run(prog)
		need(t, err)
		alone[name] = res.Action
	}
	for name, prog := range programs {
		wantCarried(t, name, prog, func(int) XDPAction { return alone[name] })
	}
	wantCarried(t, "forgetful", forgetful(t, 1), func(n int) XDPAction {
		if n%4 == 2 {
			return XDPDrop
		}
		return XDPRedirect
	})
}

// wantCarried wants the verdicts of a batch that carries.
func wantCarried(t *testing.T, name string, prog *ebpf.Program, want func(n int) XDPAction) {
	t.Helper()
	inputs := carryFrom(1) + 10_000
	var stats BatchStats
	n := 0
	for res, err := range Batch(prog, Packets(XDP{}, withPause(1, again(frame(64), inputs))), &BatchOptions{Ahead: 600, Stats: &stats}) {
		if err != nil || res.Result.Action != want(n) || len(res.Result.Packet) != 64 {
			t.Fatalf("%s, input %d: %v, %v, want %v", name, n, res.Result.Action, err, want(n))
		}
		n++
	}
	needCarrier(t, stats)
	if n != inputs || stats.Carried == 0 && stats.CarryErr == nil {
		t.Errorf("%s: %d results, %+v", name, n, stats)
	}
}

// TestBatchInterfaces has a program that looks at its interface and queue see those of
// each request, those that are carried among others that are not.
func TestBatchInterfaces(t *testing.T) {
	need(t, HaveXDPContext())
	prog := assemble(t, ebpf.AttachXDP, asm.Instructions{
		asm.LoadMem(asm.R0, asm.R1, 12, asm.Word), asm.LoadMem(asm.R2, asm.R1, 16, asm.Word),
		asm.LSh.Imm(asm.R0, 4), asm.Add.Reg(asm.R0, asm.R2), asm.Return(),
	})
	const index = 4711
	inputs := carryFrom(2) + 10_000
	requests := func(yield func(XDP) bool) {
		for i := range inputs {
			r := XDP{Packet: frame(64), NoOutput: i%2 == 0}
			switch i % 50 {
			case 7:
				r.IngressIfindex = index
			case 8:
				r.IngressIfindex, r.RxQueueIndex = index, 1
			case 9:
				r.IngressIfindex = 1
			case 10:
				r.Metadata = []byte{1, 2, 3, 4}
			}
			if !yield(r) {
				return
			}
		}
	}
	for _, workers := range []int{1, 2} {
		inNetNS(t, func() {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Index, attrs.NumRxQueues, attrs.NumTxQueues = "a", index, 2, 2
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "b"}); err != nil {
				t.Errorf("add a veth pair: %v", err)
				return
			}
			var stats BatchStats
			n := 0
			for res, err := range Batch(prog, withPause(workers, requests), &BatchOptions{Ahead: 600, Workers: workers, Stats: &stats}) {
				r := res.Request
				if want := max(r.IngressIfindex, 1)<<4 + r.RxQueueIndex; err != nil || int(res.Result.Action) != want {
					t.Errorf("input %d: %#x, %v, want %#x", res.Input, res.Result.Action, err, want)
					return
				}
				n++
			}
			t.Logf("%d workers: %+v", workers, stats)
			if n != inputs {
				t.Errorf("%d results", n)
			}
		})
	}
}

// TestBatchWithinBatch runs a batch for inputs of another, on the same program.
func TestBatchWithinBatch(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	packet := udp4(somewhere, 7, make([]byte, 60)...)
	inputs := carryFrom(1) + 4000
	n := 0
	for outer, err := range Batch(o.Program, Packets(XDP{}, withPause(1, again(packet, inputs))), &BatchOptions{Ahead: 600}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%(inputs/3) != 0 {
			continue
		}
		before := slices.Clone(outer.Result.Packet)
		m := 0
		for inner, err := range Batch(o.Program, Packets(XDP{}, withPause(1, again(packet[:50], inputs))), &BatchOptions{Ahead: 600}) {
			m++
			if err != nil || inner.Input != m || len(inner.Result.Packet) != 50 {
				t.Fatalf("inner result %d: %+v, %v", m, inner, err)
			}
		}
		if m != inputs || !slices.Equal(outer.Result.Packet, before) {
			t.Errorf("%d inner results; the outer one is %x, was %x", m, outer.Result.Packet, before)
		}
	}
	if n != inputs {
		t.Errorf("%d results", n)
	}
}

// TestBatchesAtOnce has goroutines run batches on one program at the same time, and
// over the same iterator.
func TestBatchesAtOnce(t *testing.T) {
	o := load(t, "xdp", "xdp_count")
	set(t, o, "verdict", 0, uint32(XDPPass))
	inputs := carryFrom(1) + 6000
	batch := Batch(o.Program, Packets(XDP{}, withPause(1, numberedPackets(inputs))), &BatchOptions{Ahead: 600})
	var all sync.WaitGroup
	for g := range 3 {
		all.Go(func() {
			n := 0
			for res, err := range batch {
				if err != nil || res.Result.Action != XDPPass || binary.BigEndian.Uint32(res.Result.Packet[20:]) != uint32(n) {
					t.Errorf("goroutine %d, result %d: %+v, %v", g, n, res, err)
					return
				}
				n++
			}
			if n != inputs {
				t.Errorf("goroutine %d: %d results", g, n)
			}
		})
	}
	all.Wait()
	if ran := liveCount(t, o); ran != 3*int64(inputs) {
		t.Errorf("the program ran %d times, want %d", ran, 3*inputs)
	}
}

// TestBatchOfDevmapProgram has every input fail as in a single run: no carrier runs what
// the kernel refuses to run.
func TestBatchOfDevmapProgram(t *testing.T) {
	prog := assemble(t, ebpf.AttachXDPDevMap, nothingInsns())
	if !neverRuns(prog) {
		t.Skip("this kernel runs such programs")
	}
	var stats BatchStats
	inputs := carryFrom(1) + 7000
	n := 0
	opts := &BatchOptions{KeepGoing: true, Ahead: 600, Stats: &stats}
	for _, err := range Batch(prog, Packets(XDP{NoOutput: true}, withPause(1, again(frame(64), inputs))), opts) {
		n++
		wantError(t, err, neverRunsText, unix.EINVAL, RanNo)
	}
	if n != inputs || stats.Carried != 0 {
		t.Errorf("%d results, %+v", n, stats)
	}
	wantError(t, stats.CarryErr, "progrun: Batch: "+neverRunsText, unix.EINVAL, RanNo)
}

// TestBatchCarriedAny has requests for any type be carried, of all sizes on both sides
// of what can be.
func TestBatchCarriedAny(t *testing.T) {
	for _, workers := range []int{1, 2} {
		o := load(t, "xdp", "xdp_grow_head")
		var stats BatchStats
		requests := func(yield func(Any) bool) {
			const each = 10_000
			for i := range carryFrom(workers) + each {
				size := 10 + i%each*2*xdpLinear/each
				if !yield(Any{Packet: bytes.Repeat([]byte{byte(i)}, size), NoOutput: i%7 == 0}) {
					return
				}
			}
		}
		for res, err := range Batch(o.Program, withPause(workers, requests), &BatchOptions{KeepGoing: true, Ahead: 600, Workers: workers, Stats: &stats}) {
			alone, aloneErr := res.Request.Run(o.Program)
			got := res.Result
			if !sameError(err, aloneErr) || got.Verdict != alone.Verdict || !bytes.Equal(got.Packet, alone.Packet) || got.Sight != alone.Sight {
				t.Fatalf("input %d: %+v, %v, alone %+v, %v", res.Input, got, err, alone, aloneErr)
			}
		}
		t.Logf("%d workers: %+v", workers, stats)
	}
}
