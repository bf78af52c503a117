package carrier_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/internal/carrier"
)

// witness returns a program that records 40 bytes of each frame, spoils the frame, and
// returns the frame's last byte.
func witness(t testing.TB, frames int) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	log, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 40, MaxEntries: uint32(frames + 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := func(label string) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, log.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"),
		}
	}
	all := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R7, 0),
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
	}
	all = append(all, at("count")...)
	all = append(all,
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
	)
	all = append(all, at("log")...)
	all = append(all,
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), asm.LoadMem(asm.R3, asm.R6, 4, asm.Word),
		asm.Mov.Reg(asm.R9, asm.R3), asm.Sub.Reg(asm.R9, asm.R2), asm.StoreMem(asm.R8, 0, asm.R9, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, 16), asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.LoadMem(asm.R1, asm.R2, 0, asm.DWord), asm.StoreMem(asm.R8, 8, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R2, 8, asm.DWord), asm.StoreMem(asm.R8, 16, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R1, -1), asm.StoreMem(asm.R2, 0, asm.R1, asm.DWord), asm.StoreMem(asm.R2, 8, asm.R1, asm.DWord),
		// The metadata.
		asm.LoadMem(asm.R4, asm.R6, 8, asm.Word), asm.Mov.Reg(asm.R5, asm.R4), asm.Add.Imm(asm.R5, 8), asm.JGT.Reg(asm.R5, asm.R2, "bare"),
		asm.LoadMem(asm.R5, asm.R4, 0, asm.DWord), asm.StoreMem(asm.R8, 32, asm.R5, asm.DWord), asm.StoreMem(asm.R4, 0, asm.R1, asm.DWord),
		// The end.
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("bare"), asm.Mov.Reg(asm.R2, asm.R9), asm.Add.Imm(asm.R2, -8),
		asm.Mov.Reg(asm.R3, asm.R8), asm.Add.Imm(asm.R3, 24), asm.Mov.Imm(asm.R4, 8), asm.FnXdpLoadBytes.Call(),
		asm.LoadMem(asm.R0, asm.R8, 31, asm.Byte),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return(),
	)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual MIT/GPL", Instructions: all})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		p.Close()
		log.Close()
	})
	return p, log
}

// TestLivePackets checks that live frames are those of a capture, in order, whatever
// the program did to the pages before.
func TestLivePackets(t *testing.T) {
	needCarriers(t)
	const frames = 3000
	for _, metadata := range [][]byte{nil, []byte("metadata")} {
		var packets [][]byte
		for n := 24; n <= 3368; n += 13 {
			p := udp(max(n, 60), 9)[:n]
			p[0], p[n-1] = byte(n), []byte{0, 1, 1, 1, 77}[n%5]
			packets = append(packets, p)
		}
		target, log := witness(t, frames)
		l, err := carrier.NewLive(target, carrier.LiveOptions{Packets: packets, Metadata: metadata})
		need(t, err)
		defer l.Close()
		held, err := progrun.NewHold(l.Program())
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		slot := l.Slot(-1)
		const first = 5
		slot.Seek(first)
		for done := 0; done < frames; done += 1000 {
			if _, err := (progrun.Raw{DataIn: l.Frame(), Repeat: 1000, BatchSize: 64, Flags: 2}).Run(l.Program()); err != nil {
				t.Fatal(err)
			}
		}
		if slot.Ran() != frames {
			t.Errorf("%d frames ran, want %d", slot.Ran(), frames)
		}
		var verdicts [6]uint64
		for i := range frames {
			p := packets[(first+i)%len(packets)]
			verdicts[min(p[len(p)-1], 5)]++
			want := binary.NativeEndian.AppendUint32(nil, uint32(len(p)))
			want = append(append(append(want, 0, 0, 0, 0), p[:16]...), p[len(p)-8:]...)
			want = append(want, append(metadata, make([]byte, 8)...)[:8]...)
			got := make([]byte, 40)
			if err := log.Lookup(uint32(i+1), &got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("frame %d:\n%x, want\n%x", i, got, want)
			}
		}
		if got := slot.Verdicts(); got != verdicts {
			t.Errorf("verdicts %d, want %d", got, verdicts)
		}
	}
}

// TestLiveVerdicts counts the verdicts of frames that the carrier does not write.
func TestLiveVerdicts(t *testing.T) {
	needCarriers(t)
	target := program(t, "xdp", "xdp_drop")
	l, err := carrier.NewLive(target.Programs["xdp_drop"], carrier.LiveOptions{})
	need(t, err)
	defer l.Close()
	if _, err := (progrun.Raw{DataIn: udp(64, 9), Repeat: 5000, Flags: 2}).Run(l.Program()); err != nil {
		t.Fatal(err)
	}
	if got, want := l.Slot(-1).Verdicts(), [6]uint64{1: 5000}; got != want {
		t.Errorf("verdicts %d, want %d", got, want)
	}
}
