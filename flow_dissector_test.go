package progrun

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// handedBack returns the verdict as this kernel returns it. Before Linux 6.1 that is
// only whether it was BPF_OK.
func handedBack(v FlowDissectorVerdict) FlowDissectorVerdict {
	if v != FlowDissectorOK && lacks(flowVerdicts.result()) {
		return FlowDissectorNotOK
	}
	return v
}

// tagged returns a frame with a VLAN tag.
func tagged(b []byte, vlan byte) []byte {
	return append(append(append([]byte{}, b[:12]...), 0x81, 0, 0, vlan), b[12:]...)
}

// fragment returns an IPv4 frame as a fragment.
func fragment(b []byte, more bool, offset byte) []byte {
	if more {
		b[20] |= 0x20
	}
	b[21] = offset
	return b
}

// fragment6 returns an IPv6 frame with a fragment header.
func fragment6(b []byte, more bool, offset byte) []byte {
	h := []byte{b[20], 0, 0, offset << 3, 0, 0, 0, 1}
	if more {
		h[3] |= 1
	}
	b[20] = unix.IPPROTO_FRAGMENT
	return append(append(append([]byte{}, b[:54]...), h...), b[54:]...)
}

func TestFlowDissectorKeys(t *testing.T) {
	v4 := FlowKeys{
		NHOff: 14, THOff: 34, AddrProto: ethPIP, IPProto: unix.IPPROTO_UDP, NProto: ethPIP,
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.1"), SPort: 1234, DPort: 53,
	}
	v6 := FlowKeys{
		NHOff: 14, THOff: 54, AddrProto: ethPIPv6, IPProto: unix.IPPROTO_UDP, NProto: ethPIPv6,
		Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2"), SPort: 1234, DPort: 53,
		FlowLabel: 0xabcde,
	}
	with := func(k FlowKeys, change func(*FlowKeys)) FlowKeys { change(&k); return k }
	for _, c := range []struct {
		name    string
		packet  []byte
		flags   FlowDissectorFlags
		want    FlowKeys
		verdict FlowDissectorVerdict
	}{
		{"IPv4", udp4(somewhere, 53), 0, v4, FlowDissectorOK},
		{"IPv6", udp6(53), 0, v6, FlowDissectorOK},
		{"IPv4 in a VLAN", tagged(udp4(somewhere, 53), 100), 0,
			with(v4, func(k *FlowKeys) { k.NHOff, k.THOff = 18, 38 }), FlowDissectorOK},
		{"IPv6 in a VLAN", tagged(udp6(53), 100), 0,
			with(v6, func(k *FlowKeys) { k.NHOff, k.THOff = 18, 58 }), FlowDissectorOK},
		{"first fragment: no ports", fragment(udp4(somewhere, 53), true, 0), 0,
			with(v4, func(k *FlowKeys) { k.IsFrag, k.IsFirstFrag, k.SPort, k.DPort = true, true, 0, 0 }), FlowDissectorOK},
		{"first fragment: ports on request", fragment(udp4(somewhere, 53), true, 0), FlowParse1stFrag,
			with(v4, func(k *FlowKeys) { k.IsFrag, k.IsFirstFrag, k.Flags = true, true, FlowParse1stFrag }), FlowDissectorOK},
		{"later fragment", fragment(udp4(somewhere, 53), false, 5), FlowParse1stFrag,
			with(v4, func(k *FlowKeys) { k.IsFrag, k.SPort, k.DPort, k.Flags = true, 0, 0, FlowParse1stFrag }), FlowDissectorOK},
		{"first fragment of IPv6", fragment6(udp6(53), true, 0), FlowParse1stFrag,
			with(v6, func(k *FlowKeys) { k.THOff, k.IsFrag, k.IsFirstFrag, k.Flags = 62, true, true, FlowParse1stFrag }), FlowDissectorOK},
		{"later fragment of IPv6", fragment6(udp6(53), false, 5), 0,
			with(v6, func(k *FlowKeys) { k.THOff, k.IsFrag, k.SPort, k.DPort = 62, true, 0, 0 }), FlowDissectorOK},
		{"stop at the flow label", udp6(53), FlowStopAtFlowLabel,
			with(v6, func(k *FlowKeys) { k.SPort, k.DPort, k.Flags = 0, 0, FlowStopAtFlowLabel }), FlowDissectorOK},
		{"flags that the program does not know", udp4(somewhere, 53), 0xffff0000,
			with(v4, func(k *FlowKeys) { k.Flags = 0xffff0000 }), FlowDissectorOK},
		{"neither IPv4 nor IPv6", frame(64), 0, FlowKeys{NHOff: 14, THOff: 14, NProto: 0x88b5}, FlowDissectorDrop},
		{"cut short", udp4(somewhere, 53)[:33], 0, FlowKeys{NHOff: 14, THOff: 14, NProto: ethPIP}, FlowDissectorDrop},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, "flow_dissector", "flow_dissect")
			res, err := FlowDissector{Packet: c.packet, Flags: c.flags}.Run(o.Program)
			if err != nil {
				t.Fatal(err)
			}
			if want := handedBack(c.verdict); res.Verdict != want {
				t.Errorf("got %s, want %s", res.Verdict, want)
			}
			if res.Keys != c.want {
				t.Errorf("got  %+v\nwant %+v", res.Keys, c.want)
			}
			if n := runs(t, o); n != 1 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}

func TestFlowDissectorContinue(t *testing.T) {
	o := load(t, "flow_dissector", "flow_continue")
	res, err := FlowDissector{Packet: udp4(somewhere, 53)}.Run(o.Program)
	if want := handedBack(FlowDissectorContinue); err != nil || res.Verdict != want {
		t.Errorf("got %s, %v, want %s", res.Verdict, err, want)
	}
}

// TestFlowDissectorVerdict runs programs that return various numbers. Older kernels
// return 0 and 1 with another meaning.
func TestFlowDissectorVerdict(t *testing.T) {
	needPrivilege(t)
	for _, v := range []FlowDissectorVerdict{FlowDissectorOK, 1, FlowDissectorDrop, 7, 128, FlowDissectorContinue} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.FlowDissector, AttachType: ebpf.AttachFlowDissector, License: "MIT",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(v)), asm.Return()},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer prog.Close()
		res, err := FlowDissector{Packet: frame(64)}.Run(prog)
		if want := handedBack(v); err != nil || res.Verdict != want {
			t.Errorf("returned %d: got %s, %v, want %s", v, res.Verdict, err, want)
		}
	}
}

// TestFlowDissectorOffsets checks that the kernel moves offsets outside of the packet
// into it.
func TestFlowDissectorOffsets(t *testing.T) {
	needPrivilege(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.FlowDissector, AttachType: ebpf.AttachFlowDissector, License: "MIT",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 144, asm.DWord), // flow_keys
			asm.StoreImm(asm.R2, 0, 1, asm.Half),        // nhoff
			asm.StoreImm(asm.R2, 2, 9999, asm.Half),     // thoff
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	res, err := FlowDissector{Packet: frame(64)}.Run(prog)
	if err != nil || res.Keys.NHOff != 14 || res.Keys.THOff != 64 {
		t.Errorf("got %+v, %v", res.Keys, err)
	}
}

func TestFlowDissectorRepeat(t *testing.T) {
	o := load(t, "flow_dissector", "flow_dissect")
	res, err := FlowDissector{Packet: udp4(somewhere, 53), Repeat: 1000}.Run(o.Program)
	if err != nil || res.PerRun <= 0 || res.Verdict != FlowDissectorOK || res.Keys.DPort != 53 {
		t.Errorf("got %+v, %v", res, err)
	}
	if n := runs(t, o); n != 1000 {
		t.Errorf("ran %d times, want 1000", n)
	}
}

// TestFlowDissectorSizes runs on the smallest and the largest packets.
func TestFlowDissectorSizes(t *testing.T) {
	o := load(t, "flow_dissector", "flow_dissect")
	for i, n := range []int{14, 15, 64, os.Getpagesize()} {
		res, err := FlowDissector{Packet: frame(n)}.Run(o.Program)
		if err != nil || res.Keys.NProto != 0x88b5 {
			t.Errorf("%d bytes: %+v, %v", n, res, err)
		}
		if got := runs(t, o); got != uint64(i+1) {
			t.Errorf("%d bytes: did not run once", n)
		}
	}
}

func TestFlowDissectorRefusals(t *testing.T) {
	page := os.Getpagesize()
	for _, c := range []struct {
		name string
		req  FlowDissector
		text string
	}{
		{"no packet", FlowDissector{}, "Packet: 0 bytes: a packet begins with a 14-byte Ethernet header"},
		{"13 bytes", FlowDissector{Packet: frame(13)}, "Packet: 13 bytes: a packet begins with a 14-byte Ethernet header"},
		{"over a page", FlowDissector{Packet: frame(page + 1)},
			fmt.Sprintf("Packet: %d bytes: the packet is too large: a flow dissector runs on at most one page, %d bytes here", page+1, page)},
		{"far over a page", FlowDissector{Packet: frame(maxPacket + 1)}, fmt.Sprintf("Packet: %d bytes: at most one page", maxPacket+1)},
		{"negative repeat", FlowDissector{Packet: frame(64), Repeat: -1}, "Repeat: -1: it cannot be negative"},
		{"over-large repeat", FlowDissector{Packet: frame(64), Repeat: overLarge(1 << 32)}, "Repeat: 4294967296: it can be at most 4294967295"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "over-large repeat" && c.req.Repeat == 0 {
				t.Skip("an int of 32 bits cannot be that large")
			}
			o := load(t, "flow_dissector", "flow_dissect")
			_, err := c.req.Run(o.Program)
			wantError(t, err, "progrun: FlowDissector."+c.text+": invalid argument", unix.EINVAL, RanNo)
			if n := runs(t, o); n != 0 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}
