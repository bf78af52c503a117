package carrier_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/internal/carrier"
)

// adjust moves an end of the packet, and takes the result into the sum.
func adjust(f asm.BuiltinFunc, by int32) asm.Instructions {
	return append(asm.Instructions{asm.Mov.Reg(asm.R1, rCtx), asm.Mov.Imm(asm.R2, by), f.Call()}, sum()...)
}

// look takes n bytes of the packet into the sum, or of the metadata, and overwrites
// them.
func look(label string, from, to int16, n int32) asm.Instructions {
	all := asm.Instructions{
		asm.LoadMem(asm.R2, rCtx, from, asm.Word), asm.LoadMem(asm.R3, rCtx, to, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, n), asm.JGT.Reg(asm.R4, asm.R3, label),
		asm.Mov.Imm(asm.R5, -1),
	}
	for off := int16(0); off < int16(n); off += 4 {
		all = append(append(all, asm.LoadMem(asm.R0, asm.R2, off, asm.Word)), sum()...)
		all = append(all, asm.StoreMem(asm.R2, off, asm.R5, asm.Word))
	}
	return append(all, asm.Mov.Imm(asm.R0, 0).WithSymbol(label))
}

// atEnd loads 8 bytes that begin a distance from the packet's end, or stores them.
func atEnd(f asm.BuiltinFunc, distance int32) asm.Instructions {
	all := append(asm.Instructions{
		asm.Mov.Reg(asm.R1, rCtx), asm.FnXdpGetBuffLen.Call(),
		asm.Mov.Reg(asm.R1, rCtx), asm.Mov.Reg(asm.R2, asm.R0), asm.Sub.Imm(asm.R2, distance),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 8), f.Call(),
	}, sum()...)
	return append(append(all, asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord)), sum()...)
}

// field takes a field of the context into the sum.
func field(off int16) asm.Instructions {
	return append(asm.Instructions{asm.LoadMem(asm.R0, rCtx, off, asm.Word)}, sum()...)
}

const data, end, meta, ingress, queue = 0, 4, 8, 12, 16

// hostile are programs that look for what another packet has left.
var hostile = map[string]asm.Instructions{
	"head back, and forth": join(
		adjust(asm.FnXdpAdjustHead, -200), look("a", data, end, 200), adjust(asm.FnXdpAdjustHead, 200), look("b", data, end, 12)),
	"head to its limit": join(
		adjust(asm.FnXdpAdjustHead, -216), look("a", data, end, 216), adjust(asm.FnXdpAdjustHead, -1), adjust(asm.FnXdpAdjustHead, 216)),
	"head forth, and back further": join(
		adjust(asm.FnXdpAdjustHead, 40), look("a", data, end, 16), adjust(asm.FnXdpAdjustHead, -40), look("b", data, end, 40),
		adjust(asm.FnXdpAdjustHead, -100), look("c", data, end, 100)),
	"head and metadata": join(
		look("a", meta, data, 4), adjust(asm.FnXdpAdjustMeta, -32), look("b", meta, data, 32), adjust(asm.FnXdpAdjustHead, -64),
		look("c", meta, data, 32), look("d", data, end, 64), adjust(asm.FnXdpAdjustMeta, 32), adjust(asm.FnXdpAdjustHead, -32), look("e", data, end, 32)),
	"metadata taken and given back": join(
		adjust(asm.FnXdpAdjustMeta, -128), look("a", meta, data, 128), adjust(asm.FnXdpAdjustMeta, 128), adjust(asm.FnXdpAdjustMeta, -64), look("b", meta, data, 64)),
	"metadata becomes packet": join(
		look("a", meta, data, 32), adjust(asm.FnXdpAdjustMeta, 4), adjust(asm.FnXdpAdjustHead, -8), look("b", data, end, 8)),
	"tail cut, and grown": join(
		adjust(asm.FnXdpAdjustTail, -60), adjust(asm.FnXdpAdjustTail, 200), atEnd(asm.FnXdpLoadBytes, 8), atEnd(asm.FnXdpLoadBytes, 150),
		atEnd(asm.FnXdpLoadBytes, 208), atEnd(asm.FnXdpStoreBytes, 40)),
	"tail grown to its limit": join(
		adjust(asm.FnXdpAdjustTail, 3000), atEnd(asm.FnXdpLoadBytes, 2990), atEnd(asm.FnXdpLoadBytes, 8), adjust(asm.FnXdpAdjustTail, 500), adjust(asm.FnXdpAdjustTail, 1)),
	"nothing but a header left": join(
		adjust(asm.FnXdpAdjustTail, -3506), adjust(asm.FnXdpAdjustTail, -1), adjust(asm.FnXdpAdjustHead, 1), adjust(asm.FnXdpAdjustHead, 2000)),
	"the very ends": join(
		atEnd(asm.FnXdpLoadBytes, 8), atEnd(asm.FnXdpLoadBytes, 7), atEnd(asm.FnXdpLoadBytes, 0), atEnd(asm.FnXdpLoadBytes, -1), atEnd(asm.FnXdpLoadBytes, 15),
		atEnd(asm.FnXdpStoreBytes, 8), atEnd(asm.FnXdpStoreBytes, 7), atEnd(asm.FnXdpLoadBytes, 16)),
	"a subprogram moves the head": {asm.Mov.Reg(asm.R1, rCtx), asm.Call.Label("sub"), asm.Add.Reg32(rSum, asm.R0)},
	"the context's interface":     join(field(ingress), field(queue), look("a", meta, data, 4)),
	"the packet as it came":       join(look("a", data, end, 12), look("b", meta, data, 32)),
}

func join(parts ...asm.Instructions) asm.Instructions { return slices.Concat(parts...) }

// hostileProgram makes one of the programs, as often as it is asked for.
func hostileProgram(t testing.TB, name string, flags uint32) *ebpf.Program {
	t.Helper()
	all := join(asm.Instructions{
		asm.Mov.Reg(rCtx, asm.R1), asm.Mov.Imm(rSum, 0), asm.StoreMem(asm.RFP, -8, rSum, asm.DWord),
	}, hostile[name], asm.Instructions{asm.Mov.Reg32(asm.R0, rSum), asm.Return()})
	if name == "a subprogram moves the head" {
		sub := join(asm.Instructions{asm.Mov.Reg(rCtx, asm.R1), asm.Mov.Imm(rSum, 0)},
			adjust(asm.FnXdpAdjustHead, -48), look("a", data, end, 48), adjust(asm.FnXdpAdjustHead, 48),
			asm.Instructions{asm.Mov.Reg32(asm.R0, rSum), asm.Return()})
		sub[0] = sub[0].WithSymbol("sub")
		all = append(all, sub...)
	}
	return newProgram(t, all, flags)
}

func newProgram(t testing.TB, all asm.Instructions, flags uint32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual MIT/GPL", Instructions: all, Flags: flags,
	})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// mostMetadata returns how many bytes of metadata a run takes here, of those that lie
// within what a program can reach.
func mostMetadata(t testing.TB) int {
	t.Helper()
	p := newProgram(t, asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, 0)
	if _, err := (progrun.XDP{Packet: make([]byte, 64), Metadata: make([]byte, 216)}).Run(p); err != nil {
		return 32
	}
	return 216
}

// edges are packets of the sizes at which something ends, full and empty, with much
// metadata, little and none, in random order.
func edges(t testing.TB, seed uint64) (all []input) {
	t.Helper()
	for _, n := range []int{14, 15, 16, 21, 22, 23, 59, 60, 61, 63, 64, 65, 74, 75, 511, 512, 513, 519, 520, 521, 1500, 3303, 3304, 3305, 3519, 3520} {
		for _, m := range []int{0, 4, 32, mostMetadata(t)} {
			for _, fill := range []byte{0, 0xff, byte(n)} {
				all = append(all, input{bytes.Repeat([]byte{fill}, n), bytes.Repeat([]byte{^fill}, m)})
			}
		}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// TestHostile runs programs that look where another packet has been.
func TestHostile(t *testing.T) {
	needCarriers(t)
	for name := range hostile {
		for _, flags := range []uint32{0, 1 << 5} {
			t.Run(fmt.Sprint(name, flags), func(t *testing.T) {
				single, target := hostileProgram(t, name, flags), hostileProgram(t, name, flags)
				c := carry(t, target, carrier.Options{Chunks: 1, Packets: 100, Output: true})
				compare(t, single, c, edges(t, 1))
			})
		}
	}
}

// TestHostileAfterExchange has a program that cannot look beyond the packet be
// followed by one that does.
func TestHostileAfterExchange(t *testing.T) {
	needCarriers(t)
	const still, looks = "the packet as it came", "head to its limit"
	c := carry(t, hostileProgram(t, still, 0), carrier.Options{Chunks: 1, Packets: 100, Output: true})
	for _, name := range []string{still, looks, still, looks} {
		target := hostileProgram(t, name, 0)
		if err := c.Exchange(target); err != nil {
			t.Fatal(err)
		}
		compare(t, hostileProgram(t, name, 0), c, edges(t, 2))
	}
}

// chain makes a program that tail-calls itself so many times, by a count in the
// packet's metadata, and then another one.
func chain(t testing.TB, times int32, last *ebpf.Program) *ebpf.Program {
	t.Helper()
	programs, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { programs.Close() })
	p := newProgram(t, asm.Instructions{
		asm.Mov.Reg(rCtx, asm.R1), asm.Mov.Imm(asm.R7, 0),
		asm.LoadMem(asm.R2, rCtx, meta, asm.Word), asm.LoadMem(asm.R3, rCtx, data, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, 4), asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.LoadMem(asm.R7, asm.R2, 0, asm.Word), asm.Add.Imm(asm.R7, 1), asm.StoreMem(asm.R2, 0, asm.R7, asm.Word),
		asm.Mov.Imm(asm.R3, 0),
		asm.JLT.Imm(asm.R7, times, "call"),
		asm.Mov.Imm(asm.R3, 1),
		asm.Mov.Reg(asm.R1, rCtx).WithSymbol("call"), asm.LoadMapPtr(asm.R2, programs.FD()), asm.FnTailCall.Call(),
		asm.Mov.Reg(asm.R0, asm.R7).WithSymbol("out"), asm.Return(),
	}, 0)
	for key, to := range []*ebpf.Program{p, last} {
		if err := programs.Put(uint32(key), to); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// TestTailCalls carries programs that make tail calls, up to as many as a carried
// program can make, to one that looks beyond the packet.
func TestTailCalls(t *testing.T) {
	needCarriers(t)
	const looks = "head back, and forth"
	inputs := edges(t, 3)
	for i := range inputs { // the count begins at 0
		inputs[i].metadata = make([]byte, len(inputs[i].metadata))
	}
	for _, times := range []int32{1, 2, 31, 32} {
		single, target := chain(t, times, hostileProgram(t, looks, 0)), chain(t, times, hostileProgram(t, looks, 0))
		c := carry(t, target, carrier.Options{Chunks: 1, Packets: 100, Output: true})
		if !compare(t, single, c, inputs) {
			t.Fatalf("%d tail calls", times)
		}
	}
}

// TestLongMetadata cannot carry metadata of 220 bytes and more, which some kernels
// take in a run although programs cannot reach all of it.
func TestLongMetadata(t *testing.T) {
	needCarriers(t)
	c := carry(t, hostileProgram(t, "the packet as it came", 0), carrier.Options{Chunks: 1, Packets: 10, Output: true})
	b := c.Chunk(0)
	for _, m := range []int{4, 220, 252, 256, 8} {
		b.Add(make([]byte, m+64), m)
	}
	var carried []int
	var results carrier.Results
	for results.Len() < b.Len() {
		from := results.Len()
		ran, err := b.Run(call, &results)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ran {
			carried = append(carried, len(result(&results, from+i).Metadata))
		}
		if ran == 0 {
			b.Skip()
			results.Skip()
		}
	}
	if !slices.Equal(carried, []int{4, 8}) {
		t.Errorf("carried metadata of %d bytes", carried)
	}
}

// TestOneProgramInManyCarriers carries one program in several carriers, and in
// several chunks of each, at the same time.
func TestOneProgramInManyCarriers(t *testing.T) {
	const name = "head and metadata"
	target := hostileProgram(t, name, 0)
	inputs := edges(t, 4)
	for i := range 2 {
		c := carry(t, target, carrier.Options{Chunks: 2, Packets: 100, Output: true})
		for chunk := range 2 {
			t.Run(fmt.Sprint(i, chunk), func(t *testing.T) {
				t.Parallel()
				single := hostileProgram(t, name, 0)
				for range 3 {
					compareChunk(t, single, c.Chunk(chunk), inputs)
				}
			})
		}
	}
}
