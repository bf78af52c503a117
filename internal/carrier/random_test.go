package carrier_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/progrun/progrun/internal/carrier"
)

// A script describes a program, with an operation for each four bytes. All that the
// program sees goes into its verdict.
type script []byte

func (s script) program(t testing.TB, frags bool) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	counter, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual MIT/GPL", Instructions: s.instructions(counter)}
	if frags {
		spec.Flags = 1 << 5 // BPF_F_XDP_HAS_FRAGS
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return p, counter
}

const (
	rCtx = asm.R6
	rSum = asm.R7

	operations = 20
)

// still are operations with which a program cannot look beyond its packet, so that the
// headroom is not cleared for it.
var still = []byte{7, 8, 9, 10, 11, 13, 14, 15, 16, 17}

func (s script) instructions(counter *ebpf.Map) asm.Instructions {
	all := asm.Instructions{
		asm.Mov.Reg(rCtx, asm.R1),
		asm.Mov.Imm(rSum, 0),
		asm.StoreMem(asm.RFP, -8, rSum, asm.DWord),
		asm.StoreMem(asm.RFP, -16, rSum, asm.DWord),
	}
	for i := 0; len(s) >= 4; i, s = i+1, s[4:] {
		next := fmt.Sprint("next ", i)
		all = append(all, operation(s[0], int32(int16(uint16(s[1])|uint16(s[2])<<8)), s[3], next, counter)...)
		all = append(all, asm.Mov.Imm(asm.R0, 0).WithSymbol(next))
	}
	return append(all, asm.Mov.Reg32(asm.R0, rSum), asm.Return())
}

// sum adds R0 to the sum.
func sum() asm.Instructions {
	return asm.Instructions{asm.Mul.Imm32(rSum, 31), asm.Add.Reg32(rSum, asm.R0)}
}

// operation returns the instructions of one operation, with a number and a byte to use.
func operation(op byte, n int32, b byte, next string, counter *ebpf.Map) asm.Instructions {
	call := func(f asm.BuiltinFunc, args ...asm.Instruction) asm.Instructions {
		all := append(asm.Instructions{asm.Mov.Reg(asm.R1, rCtx)}, args...)
		return append(append(all, f.Call()), sum()...)
	}
	// within makes R2 point to n bytes of the packet, or of the metadata.
	within := func(from, to int16, off, n int32) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R2, rCtx, from, asm.Word),
			asm.LoadMem(asm.R3, rCtx, to, asm.Word),
			asm.Add.Imm(asm.R2, off),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, n),
			asm.JGT.Reg(asm.R4, asm.R3, next),
		}
	}
	stack := asm.Instructions{asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 8)}
	seen := append(asm.Instructions{asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord)}, sum()...)
	switch op % operations {
	case 0, 1:
		return call(asm.FnXdpAdjustHead, asm.Mov.Imm(asm.R2, n%280))
	case 2:
		return call(asm.FnXdpAdjustHead, asm.Mov.Imm(asm.R2, n%20))
	case 3:
		return call(asm.FnXdpAdjustTail, asm.Mov.Imm(asm.R2, n%4096))
	case 4:
		return call(asm.FnXdpAdjustTail, asm.Mov.Imm(asm.R2, n%64))
	case 5:
		return call(asm.FnXdpAdjustMeta, asm.Mov.Imm(asm.R2, n%64*4))
	case 6:
		return call(asm.FnXdpAdjustMeta, asm.Mov.Imm(asm.R2, n%40))
	case 7:
		return append(within(data, end, n&0xff, 8), asm.Mov.Imm(asm.R0, int32(b)), asm.StoreMem(asm.R2, 0, asm.R0, asm.DWord))
	case 8:
		return append(append(within(data, end, n&0xff, 8), asm.LoadMem(asm.R0, asm.R2, 0, asm.DWord)), sum()...)
	case 9:
		return append(within(meta, data, n&0x1c, 4), asm.Mov.Imm(asm.R0, int32(b)), asm.StoreMem(asm.R2, 0, asm.R0, asm.Word))
	case 10:
		return append(append(within(meta, data, n&0x1c, 4), asm.LoadMem(asm.R0, asm.R2, 0, asm.Word)), sum()...)
	case 11:
		return append(call(asm.FnXdpLoadBytes, append(asm.Instructions{asm.Mov.Imm(asm.R2, n&0xfff)}, stack...)...), seen...)
	case 12:
		return call(asm.FnXdpStoreBytes, append(asm.Instructions{
			asm.Mov.Imm(asm.R0, int32(b)), asm.StoreMem(asm.RFP, -8, asm.R0, asm.Byte), asm.Mov.Imm(asm.R2, n&0xfff),
		}, stack...)...)
	case 13:
		return append(call(asm.FnXdpGetBuffLen), append(asm.Instructions{
			asm.LoadMem(asm.R0, rCtx, end, asm.Word), asm.LoadMem(asm.R1, rCtx, data, asm.Word),
			asm.LoadMem(asm.R2, rCtx, meta, asm.Word), asm.Sub.Reg(asm.R0, asm.R1), asm.Sub.Reg(asm.R1, asm.R2),
			asm.Mul.Imm(asm.R1, 7), asm.Add.Reg(asm.R0, asm.R1),
		}, sum()...)...)
	case 15:
		return append(asm.Instructions{asm.Mov.Imm(asm.R1, n), asm.Mov.Imm(asm.R2, int32(b&1)), asm.FnRedirect.Call()}, sum()...)
	case 16:
		return append(field(ingress), field(queue)...)
	case 17:
		return atEnd(asm.FnXdpLoadBytes, n%20)
	case 18: // leaves something in front of the packet
		by := n & 0xff
		return join(adjust(asm.FnXdpAdjustHead, -by), within(data, end, 0, 8),
			asm.Instructions{asm.Mov.Imm(asm.R0, int32(b)), asm.StoreMem(asm.R2, 0, asm.R0, asm.DWord)}, adjust(asm.FnXdpAdjustHead, by))
	case 19: // and behind it
		by := n & 0xff
		return join(adjust(asm.FnXdpAdjustTail, by), atEnd(asm.FnXdpStoreBytes, 8), adjust(asm.FnXdpAdjustTail, -by))
	default:
		return append(asm.Instructions{
			asm.LoadMapPtr(asm.R1, counter.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, next),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.Mov.Reg(asm.R0, asm.R1),
		}, sum()...)
	}
}

// carried returns how many packets a test carries: PROGRUN_CARRIED, or a small number.
func carried() int {
	if n, err := strconv.Atoi(os.Getenv("PROGRUN_CARRIED")); err == nil {
		return n
	}
	return 20000
}

// TestRandom runs random programs on random packets. Half of the programs are still,
// and have carriers that never run others.
func TestRandom(t *testing.T) {
	needCarriers(t)
	const packets = 200
	type kind struct{ frags, still bool }
	r := rand.New(rand.NewPCG(1, uint64(carried())))
	carriers := make(map[kind]*carrier.Carrier)
	for _, k := range []kind{{}, {frags: true}, {still: true}, {true, true}} {
		p, _ := script{}.program(t, k.frags)
		carriers[k] = carry(t, p, carrier.Options{Chunks: 1, Packets: 300, Output: true})
		p.Close()
	}
	most := mostMetadata(t)
	for n := 0; n < carried(); n += packets {
		k := kind{r.IntN(2) == 1, r.IntN(2) == 1}
		s := make(script, 4*(1+r.IntN(16)))
		for i := range s {
			s[i] = byte(r.Uint32())
			if k.still && i%4 == 0 {
				s[i] = still[int(s[i])%len(still)]
			}
		}
		var inputs []input
		for range packets {
			inputs = append(inputs, randomInput(r, most))
		}
		if !compareScript(t, s, k.frags, carriers[k], inputs) {
			t.Fatalf("script %x, %+v", s, k)
		}
	}
}

func compareScript(t testing.TB, s script, frags bool, c *carrier.Carrier, inputs []input) bool {
	single, counter := s.program(t, frags)
	defer counter.Close()
	defer single.Close()
	target, counter2 := s.program(t, frags)
	defer counter2.Close()
	defer target.Close()
	if err := c.Exchange(target); err != nil {
		t.Fatal(err)
	}
	return compare(t, single, c, inputs)
}

func randomInput(r *rand.Rand, mostMetadata int) input {
	n := 14 + r.IntN(100)
	switch r.IntN(4) {
	case 0:
		n = 14 + r.IntN(3507)
	case 1:
		n = 14 + r.IntN(600)
	}
	m := 4 * max(0, r.IntN(18)-9)
	if r.IntN(16) == 0 {
		m = 4 * r.IntN(mostMetadata/4+1)
	}
	in := input{packet: make([]byte, n), metadata: make([]byte, m)}
	for i := range in.packet {
		in.packet[i] = byte(r.Uint32())
	}
	for i := range in.metadata {
		in.metadata[i] = byte(r.Uint32())
	}
	return in
}
