package carrier_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/internal/carrier"
)

// FuzzCarry compares carried runs with single runs of one program on one packet. It
// runs the packet three times, so that the later runs meet what the earlier ones have
// left.
func FuzzCarry(f *testing.F) {
	needCarriers(f)
	carriers := make(map[bool]*carrier.Carrier)
	f.Add([]byte{0, 0xf0, 0xff, 0, 8, 0, 0, 0}, false, make([]byte, 64), []byte{})
	f.Add([]byte{5, 0xfe, 0xff, 0, 9, 0, 0, 7, 5, 2, 0, 0, 0, 0xe0, 0xff, 0, 8, 0, 0, 0}, true, make([]byte, 1500), []byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, ops []byte, frags bool, packet, metadata []byte) {
		if len(packet) < 14 || len(packet) > 3520 || len(metadata) > 32 || len(metadata)%4 != 0 || len(ops) > 4*64 {
			t.Skip()
		}
		in := input{packet: packet, metadata: metadata}
		if carriers[frags] == nil {
			p, _ := script{}.program(t, frags)
			carriers[frags] = carryForGood(t, p)
			p.Close()
		}
		if !compareScript(t, ops, frags, carriers[frags], []input{in, in, in}) {
			t.Fail()
		}
	})
}

// carryForGood makes a carrier that lives as long as the process.
func carryForGood(t testing.TB, target *ebpf.Program) *carrier.Carrier {
	c := makeCarrier(t, target, carrier.Options{Chunks: 1, Packets: 300, Output: true})
	if _, err := progrun.NewHold(c.Program()); err != nil {
		t.Fatal(err)
	}
	return c
}
