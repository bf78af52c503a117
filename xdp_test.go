package progrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// traffic returns the frames of testdata/traffic.pcap, a classic little-endian capture.
func traffic(t testing.TB) [][]byte {
	t.Helper()
	file, err := os.ReadFile("testdata/traffic.pcap")
	if err != nil {
		t.Fatal(err)
	}
	if len(file) < 24 || binary.LittleEndian.Uint32(file) != 0xa1b2c3d4 {
		t.Fatal("traffic.pcap is no little-endian pcap file")
	}
	var frames [][]byte
	for rest := file[24:]; len(rest) > 0; {
		n := 16 + int(binary.LittleEndian.Uint32(rest[8:]))
		frames = append(frames, rest[16:n:n])
		rest = rest[n:]
	}
	return frames
}

// TestXDPFilter runs the filter on a packet for each of its rules.
func TestXDPFilter(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	for _, c := range []struct {
		name   string
		packet []byte
		want   XDPAction
	}{
		{"neither IPv4 nor IPv6", frame(64), XDPPass},
		{"UDP to DNS", udp4(somewhere, 53), XDPPass},
		{"UDP to discard", udp4(somewhere, 9), XDPDrop},
		{"UDP to echo", udp4(somewhere, 7), XDPTX},
		{"UDP to discard, IPv6", udp6(9), XDPDrop},
		{"UDP to echo, IPv6", udp6(7), XDPTX},
		{"cut short", udp4(somewhere, 53)[:30], XDPAborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := sum(t, o, "verdicts", uint32(c.want))
			res, err := XDP{Packet: c.packet}.Run(o.Program)
			if err != nil {
				t.Fatal(err)
			}
			if res.Action != c.want {
				t.Errorf("got %s, want %s", res.Action, c.want)
			}
			if c.want != XDPTX && !bytes.Equal(res.Packet, c.packet) {
				t.Errorf("the packet came out as %x", res.Packet)
			}
			if len(res.Metadata) != 0 {
				t.Errorf("got metadata: %x", res.Metadata)
			}
			if n := sum(t, o, "verdicts", uint32(c.want)) - before; n != 1 {
				t.Errorf("the program counted %d times %s", n, c.want)
			}
		})
	}
}

// TestXDPFilterTraffic runs the filter on a capture. It compares the verdicts with the
// contents of each frame, and with the program's own count.
func TestXDPFilterTraffic(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	notPassed := map[int]XDPAction{
		15: XDPDrop, 17: XDPDrop, // telnet, discard
		16: XDPTX, 24: XDPTX, // echo, and in two VLAN tags
		30: XDPDrop, 32: XDPDrop, 31: XDPTX, // the same over IPv6
		40: XDPTX,                                                      // the first fragment of a packet for echo
		38: XDPDrop,                                                    // the first fragment of a packet for discard
		42: XDPAborted, 43: XDPAborted, 44: XDPAborted, 45: XDPAborted, // cut short in different headers
	}
	stripped := map[int]bool{19: true, 20: true, 21: true, 23: true} // VLAN 100
	const vxlan = 18

	frames := traffic(t)
	if len(frames) != 46 {
		t.Fatalf("%d frames", len(frames))
	}
	want := map[XDPAction]uint64{}
	for i, packet := range frames {
		action, ok := notPassed[i]
		if !ok {
			action = XDPPass
		}
		want[action]++
		in := bytes.Clone(packet)
		res, err := XDP{Packet: in}.Run(o.Program)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if res.Action != action {
			t.Errorf("frame %d: got %s, want %s", i, res.Action, action)
		}
		if !bytes.Equal(in, packet) {
			t.Errorf("frame %d: the input was written to", i)
		}
		if action == XDPTX {
			continue
		}
		out := packet
		switch {
		case i == vxlan: // the TTL is one less, the checksum one more
			out = bytes.Clone(packet)
			out[22]--
			out[24]++
		case stripped[i]:
			out = append(bytes.Clone(packet[:12]), packet[16:]...)
		}
		if !bytes.Equal(res.Packet, out) {
			t.Errorf("frame %d came out as\n%x, want\n%x", i, res.Packet, out)
		}
	}
	for action, n := range want {
		if got := sum(t, o, "verdicts", uint32(action)); got != n {
			t.Errorf("the program counted %d times %s, want %d", got, action, n)
		}
	}
}

// TestXDPEcho runs a program that swaps addresses and ports in the packet.
func TestXDPEcho(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	in := udp4(somewhere, 7, []byte("hello")...)
	res, err := XDP{Packet: in}.Run(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(in)
	copy(want[0:6], in[6:12])
	copy(want[6:12], in[0:6])
	copy(want[26:30], in[30:34])
	copy(want[30:34], in[26:30])
	copy(want[34:36], in[36:38])
	copy(want[36:38], in[34:36])
	if res.Action != XDPTX || !bytes.Equal(res.Packet, want) {
		t.Errorf("%s, came out as\n%x, want\n%x", res.Action, res.Packet, want)
	}
}

// TestXDPVerdict checks that any number that a program returns comes back.
func TestXDPVerdict(t *testing.T) {
	o := load(t, "xdp", "xdp_verdict")
	for _, want := range []XDPAction{XDPAborted, XDPDrop, XDPPass, XDPTX, XDPRedirect, 5, 77, math.MaxUint32} {
		set(t, o, "verdict", 0, uint32(want))
		for _, noOutput := range []bool{false, true} {
			res, err := XDP{Packet: frame(64), NoOutput: noOutput}.Run(o.Program)
			if err != nil || res.Action != want {
				t.Errorf("got %s, %v, want %s", res.Action, err, want)
			}
		}
	}
}

// TestXDPRedirect checks that a verdict of a redirect takes no effect.
func TestXDPRedirect(t *testing.T) {
	o := load(t, "xdp", "xdp_redirect")
	set(t, o, "target", 0, uint32(1))
	res, err := XDP{Packet: frame(64)}.Run(o.Program)
	if err != nil || res.Action != XDPRedirect {
		t.Errorf("got %s, %v", res.Action, err)
	}
}

func TestXDPMetadata(t *testing.T) {
	need(t, HaveXDPContext())
	o := load(t, "xdp", "xdp_meta")
	most := int(largestMetadata(uint32(o.FD())))
	if most < 32 {
		t.Fatalf("metadata can be at most %d bytes", most)
	}
	for _, n := range []int{4, 8, 32, most} {
		for _, capacity := range []int{0, 64 + n, 1 << 14} {
			metadata := make([]byte, n)
			for i := range metadata {
				metadata[i] = byte(0x80 + i)
			}
			want := bytes.Clone(metadata)
			binary.NativeEndian.PutUint32(want, binary.NativeEndian.Uint32(want)+1)
			packet := frame(64)
			res, err := XDP{Packet: packet, Metadata: metadata, Out: make([]byte, 0, capacity)}.Run(o.Program)
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if !bytes.Equal(res.Metadata, want) || !bytes.Equal(res.Packet, packet) {
				t.Errorf("%d bytes: metadata %x, packet %x", n, res.Metadata, res.Packet)
			}
			if cap(res.Metadata) != n {
				t.Errorf("appending to %d bytes of metadata would write to the packet", n)
			}
			if metadata[0] != 0x80 {
				t.Error("the request's metadata was written to")
			}
			if res.LinearSize != 64 {
				t.Errorf("linear size %d, want 64", res.LinearSize)
			}
		}
	}
}

// TestXDPMetadataOfProgram checks that metadata that the program made is separate from
// the packet.
func TestXDPMetadataOfProgram(t *testing.T) {
	o := load(t, "xdp", "xdp_meta")
	made := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 0x11111111), 0x22222222)
	res, err := XDP{Packet: frame(64)}.Run(o.Program)
	if err != nil || res.Action != XDPPass {
		t.Fatalf("%s, %v", res.Action, err)
	}
	if lacks(HaveXDPContext()) { // such kernels return only the packet
		if !bytes.Equal(res.Packet, frame(64)) || len(res.Metadata) != 0 {
			t.Errorf("metadata %x, packet %x", res.Metadata, res.Packet)
		}
		return
	}
	if !bytes.Equal(res.Metadata, made) || !bytes.Equal(res.Packet, frame(64)) || res.LinearSize != 64 {
		t.Errorf("metadata %x, packet %x, linear size %d", res.Metadata, res.Packet, res.LinearSize)
	}
}

// TestXDPResize runs programs that make the packet longer or shorter.
func TestXDPResize(t *testing.T) {
	for _, c := range []struct {
		program string
		delta   int32
		in      []byte
		want    []byte
	}{
		{"xdp_grow_head", 0, frame(64), append(bytes.Repeat([]byte{0xab}, 16), frame(64)...)},
		{"xdp_grow_head", 0, frame(14), append(bytes.Repeat([]byte{0xab}, 16), frame(14)...)},
		{"xdp_shrink_head", 0, frame(64), frame(64)[2:]},
		{"xdp_grow_tail", 100, frame(64), append(frame(64), make([]byte, 100)...)},
		{"xdp_grow_tail", -20, frame(64), frame(44)},
		{"xdp_grow_tail", -50, frame(64), frame(14)},
	} {
		for _, capacity := range []int{0, len(c.in), 1 << 14} {
			o := load(t, "xdp", c.program)
			set(t, o, "delta", 0, c.delta)
			res, err := XDP{Packet: c.in, Out: make([]byte, 0, capacity)}.Run(o.Program)
			if err != nil {
				t.Fatal(err)
			}
			if res.Action != XDPPass || !bytes.Equal(res.Packet, c.want) {
				t.Errorf("%s %d: %s, %x, want %x", c.program, c.delta, res.Action, res.Packet, c.want)
			}
		}
	}
}

// pages returns a packet whose bytes show where they belong.
func pages(n int) []byte {
	b := frame(n)
	for i := ethHLen; i < n; i++ {
		b[i] = byte(i) ^ byte(i>>8)
	}
	return b
}

// TestXDPLargePackets runs programs with and without support for fragments on packets
// that have them.
func TestXDPLargePackets(t *testing.T) {
	need(t, HaveXDPMultiBuffer())
	most := xdpLinear + defaultFrags*pageSize
	programs := map[string]*object{
		"xdp_pass": load(t, "xdp", "xdp_pass"), "xdp_frags_pass": load(t, "xdp_frags", "xdp_frags_pass"),
	}
	for name, o := range programs {
		for _, n := range []int{xdpLinear, xdpLinear + 1, pageSize, 9000, 2*pageSize + 1000, most} {
			for _, capacity := range []int{0, n, n + 2*pageSize} {
				in := pages(n)
				res, err := XDP{Packet: in, Out: make([]byte, 0, capacity)}.Run(o.Program)
				if err != nil {
					t.Fatalf("%s: %d bytes: %v", name, n, err)
				}
				if res.Action != XDPPass || !bytes.Equal(res.Packet, in) {
					t.Errorf("%s: %d bytes: %s, came out as other %d bytes", name, n, res.Action, len(res.Packet))
				}
				if want := min(n, xdpLinear); res.LinearSize != want {
					t.Errorf("%s: %d bytes: linear size %d, want %d", name, n, res.LinearSize, want)
				}
				if res, err = (XDP{Packet: in, NoOutput: true}).Run(o.Program); err != nil || res.Action != XDPPass {
					t.Errorf("%s: %d bytes, no output: %s, %v", name, n, res.Action, err)
				}
			}
		}
	}
}

// TestXDPLargePacketMetadata checks that a packet with fragments comes back whole if it
// has metadata, which may take a part of the linear part.
func TestXDPLargePacketMetadata(t *testing.T) {
	need(t, HaveXDPMultiBuffer())
	o := load(t, "xdp", "xdp_meta")
	for _, n := range []int{64, xdpLinear - 4, xdpLinear, xdpLinear + 1, 9000, xdpLinear + 16*pageSize + 1} {
		in := pages(n)
		res, err := XDP{Packet: in, Metadata: []byte{1, 1, 1, 1, 2, 2, 2, 2}}.Run(o.Program)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if want := binary.NativeEndian.AppendUint32(nil, 0x01010102); !bytes.Equal(res.Metadata, append(want, 2, 2, 2, 2)) {
			t.Errorf("%d bytes: metadata %x", n, res.Metadata)
		}
		if !bytes.Equal(res.Packet, in) {
			t.Errorf("%d bytes: came out as other %d bytes", n, len(res.Packet))
		}
	}
}

// TestXDPLargePacketsGrow changes the length of packets in their last fragment, which
// can grow to the end of its page.
func TestXDPLargePacketsGrow(t *testing.T) {
	need(t, HaveXDPMultiBuffer())
	o := load(t, "xdp_frags", "xdp_frags_tail")
	several := xdpLinear + pageSize + 1000
	for _, c := range []struct{ n, delta int }{
		{xdpLinear + 1, 10}, {xdpLinear + 1, pageSize - 1}, {several, pageSize - 1000}, {several, -100},
		{several, -pageSize - 1500}, {xdpLinear + defaultFrags*pageSize, -1},
	} {
		set(t, o, "delta", 0, int32(c.delta))
		in := pages(c.n)
		want := in[:min(c.n, c.n+c.delta)]
		want = append(want[:len(want):len(want)], make([]byte, max(0, c.delta))...)
		// The buffers are large enough for the packet as it was, but not as it is.
		for _, capacity := range []int{0, c.n, c.n + 300, len(want) - 1, len(want), len(want) + 1, c.n + 2*pageSize} {
			res, err := XDP{Packet: in, Out: make([]byte, 0, capacity)}.Run(o.Program)
			if err != nil || res.Action != XDPPass {
				t.Errorf("%+d to %d bytes, Out of %d: %s, %v", c.delta, c.n, capacity, res.Action, err)
				continue
			}
			if !bytes.Equal(res.Packet, want) {
				t.Errorf("%+d to %d bytes, Out of %d: got other %d bytes", c.delta, c.n, capacity, len(res.Packet))
			}
		}
	}
}

func TestXDPLinearSize(t *testing.T) {
	need(t, HaveXDPLinearSize())
	o := load(t, "xdp_frags", "xdp_frags_len")
	large := xdpLinear + pageSize + 1000
	for _, c := range []struct {
		packet, metadata, linear, want int
	}{
		{64, 0, 0, 64}, {64, 0, 14, 14}, {64, 0, 64, 64}, {64, 4, 14, 14}, {64, 8, 0, 64},
		{large, 0, 100, 100}, {large, 4, 100, 100}, {large, 0, large, xdpLinear}, {large, 0, 0, xdpLinear},
	} {
		in := pages(c.packet)
		res, err := XDP{Packet: in, Metadata: make([]byte, c.metadata), LinearSize: c.linear}.Run(o.Program)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if !bytes.Equal(res.Packet, in) || len(res.Metadata) != c.metadata {
			t.Errorf("%+v: packet or metadata differ", c)
		}
		seen := int(get[uint32](t, o, "seen", 1))
		if n := get[uint32](t, o, "seen", 0); int(n) != c.packet {
			t.Errorf("%+v: the program saw %d bytes", c, n)
		}
		if seen != c.want || res.LinearSize != c.want {
			t.Errorf("%+v: the program saw %d linear bytes, the result has %d", c, seen, res.LinearSize)
		}
	}
}

// TestXDPLinearSizeLacking checks the error of a kernel without this feature.
func TestXDPLinearSizeLacking(t *testing.T) {
	needPrivilege(t)
	if !lacks(HaveXDPLinearSize()) {
		t.Skip("this kernel has it")
	}
	o := load(t, "xdp", "xdp_ctx")
	_, err := XDP{Packet: frame(64), LinearSize: 14}.Run(o.Program)
	wantError(t, err, "progrun: XDP.", ebpf.ErrNotSupported, RanNo)
	wantError(t, err, "this kernel ", unix.EINVAL, RanNo)
	if n := runs(t, o); n != 0 {
		t.Errorf("ran %d times", n)
	}
}

// TestXDPOut checks that a buffer that is large enough receives the result from its
// start, that nothing is written beyond the result's length, and that a buffer that is
// too small stays as it is.
func TestXDPOut(t *testing.T) {
	for program, want := range map[string][]byte{
		"xdp_pass":        frame(64),
		"xdp_grow_head":   append(bytes.Repeat([]byte{0xab}, 16), frame(64)...),
		"xdp_shrink_head": frame(64)[2:],
	} {
		o := load(t, "xdp", program)
		checkOut(t, program, want, func(out []byte) ([]byte, error) {
			res, err := XDP{Packet: frame(64), Out: out}.Run(o.Program)
			return res.Packet, err
		})
	}
}

// checkOut runs with output buffers of many lengths and capacities, in the middle of a
// larger memory.
func checkOut(t *testing.T, program string, want []byte, run func(out []byte) ([]byte, error)) {
	t.Helper()
	const guard = 0xee
	n := len(want)
	straight := 64 + 4*pageSize // surely enough for the kernel to write to directly
	for _, capacity := range []int{0, 1, n - 1, n, n + 1, 100, pageSize - 1, pageSize, 64 + xdpHeadroom + pageSize - 1, 64 + xdpHeadroom + pageSize, straight - 1, straight, straight + 1} {
		for _, length := range []int{0, min(10, capacity)} {
			t.Run(fmt.Sprintf("%s/%d of %d bytes", program, length, capacity), func(t *testing.T) {
				buf := bytes.Repeat([]byte{guard}, straight+100)
				packet, err := run(buf[:length:capacity])
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(packet, want) {
					t.Fatalf("got  %x\nwant %x", packet, want)
				}
				used := 0
				if &packet[0] == &buf[0] {
					used = n
				}
				if (used > 0) != (capacity >= n) {
					t.Errorf("%d bytes lie in Out, which has room for %d of %d", used, capacity, n)
				}
				for i, b := range buf[used:] {
					if b != guard {
						t.Fatalf("byte %d of Out's memory was written to", used+i)
					}
				}
			})
		}
	}
}

// TestXDPNoOut checks that each result has memory of its own if there is no Out.
func TestXDPNoOut(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	first, err := XDP{Packet: frame(64)}.Run(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (XDP{Packet: bytes.Repeat([]byte{1}, 64)}).Run(o.Program); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Packet, frame(64)) {
		t.Errorf("a later run changed the result of the first: %x", first.Packet)
	}
}

// TestXDPNoOutput checks that NoOutput returns the action only, and leaves Out as it
// is.
func TestXDPNoOutput(t *testing.T) {
	o := load(t, "xdp", "xdp_ctx")
	out := []byte{1, 2, 3}
	res, err := XDP{Packet: frame(64), NoOutput: true, Out: out[:0]}.Run(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	if res.Action != XDPPass || res.Packet != nil || res.Metadata != nil || res.LinearSize != 0 {
		t.Errorf("got %+v", res)
	}
	if !bytes.Equal(out, []byte{1, 2, 3}) {
		t.Errorf("Out was written to: %v", out)
	}
	if n := runs(t, o); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// TestXDPRepeat checks that the kernel does not reset the packet between runs.
func TestXDPRepeat(t *testing.T) {
	o := load(t, "xdp", "xdp_shrink_head")
	for _, c := range []struct{ repeat, want int }{{0, 62}, {1, 62}, {2, 60}, {10, 44}} {
		res, err := XDP{Packet: frame(64), Repeat: c.repeat}.Run(o.Program)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(res.Packet, frame(64)[64-c.want:]) {
			t.Errorf("repeat %d: %d bytes, want %d", c.repeat, len(res.Packet), c.want)
		}
	}
	ctx := load(t, "xdp", "xdp_ctx")
	res, err := XDP{Packet: frame(64), Repeat: 1000}.Run(ctx.Program)
	if err != nil || res.PerRun <= 0 {
		t.Errorf("the mean time of a run is %v, %v", res.PerRun, err)
	}
	if n := runs(t, ctx); n != 1000 {
		t.Errorf("ran %d times, want 1000", n)
	}
}

// TestXDPIngress checks that the program sees the interface and the queue of the
// request.
func TestXDPIngress(t *testing.T) {
	need(t, HaveXDPContext())
	o := load(t, "xdp", "xdp_ctx")
	for _, ifindex := range []int{0, 1} {
		var err error
		inNetNS(t, func() { // loopback is its only interface, number 1
			_, err = XDP{Packet: frame(100), IngressIfindex: ifindex}.Run(o.Program)
		})
		if err != nil {
			t.Fatal(err)
		}
		if in, queue, n := get[uint32](t, o, "seen", 0), get[uint32](t, o, "seen", 1), get[uint32](t, o, "seen", 2); in != 1 || queue != 0 || n != 100 {
			t.Errorf("the program saw interface %d, queue %d, %d bytes", in, queue, n)
		}
	}
}

// TestXDPRefusals checks that a bad request runs nothing, and that the error says why.
// A kernel without XDP contexts refuses all requests that need one.
func TestXDPRefusals(t *testing.T) {
	const tooMany = 1 << 32
	for _, c := range []struct {
		name string
		xdp  XDP
		text string
		is   error
		ctx  bool // only a kernel with contexts says so
	}{
		{"no packet", XDP{}, "XDP.Packet: 0 bytes: a packet begins with a 14-byte Ethernet header: invalid argument", unix.EINVAL, false},
		{"13 bytes", XDP{Packet: frame(13)}, "XDP.Packet: 13 bytes: a packet begins with a 14-byte Ethernet header: invalid argument", unix.EINVAL, false},
		{"1 byte and metadata", XDP{Packet: frame(1), Metadata: make([]byte, 16)}, "XDP.Packet: 1 byte: ", unix.EINVAL, false},
		{"larger than any kernel takes", XDP{Packet: make([]byte, maxPacket+1)}, "no kernel takes more than " + size(maxPacket) + ": cannot allocate memory", unix.ENOMEM, false},
		{"larger with metadata", XDP{Packet: make([]byte, maxPacket), Metadata: make([]byte, 4)}, "no kernel takes more than ", unix.ENOMEM, false},
		{"metadata of 3 bytes", XDP{Packet: frame(64), Metadata: make([]byte, 3)}, "XDP.Metadata: 3 bytes: metadata must be a multiple of 4 bytes, at most %d here: invalid argument", unix.EINVAL, true},
		{"metadata of 5 bytes", XDP{Packet: frame(64), Metadata: make([]byte, 5)}, "XDP.Metadata: 5 bytes: metadata must be a multiple of 4 bytes, at most %d here: invalid argument", unix.EINVAL, true},
		{"metadata of 300 bytes", XDP{Packet: frame(64), Metadata: make([]byte, 300)}, "XDP.Metadata: 300 bytes: metadata must be a multiple of 4 bytes, at most %d here: invalid argument", unix.EINVAL, true},
		{"queue without interface", XDP{Packet: frame(64), RxQueueIndex: 1}, "XDP.RxQueueIndex: 1: a receive queue needs an interface: invalid argument", unix.EINVAL, true},
		{"queue beyond the interface's", XDP{Packet: frame(64), IngressIfindex: 1, RxQueueIndex: 1}, "XDP.RxQueueIndex: 1: the interface has no such receive queue: invalid argument", unix.EINVAL, true},
		{"largest queue", XDP{Packet: frame(64), IngressIfindex: 1, RxQueueIndex: math.MaxInt32}, "XDP.RxQueueIndex: 2147483647: the interface has no such receive queue: invalid argument", unix.EINVAL, true},
		{"no such interface", XDP{Packet: frame(64), IngressIfindex: 4242}, "XDP.IngressIfindex: 4242: no such interface in this thread's network namespace: no such device", unix.ENODEV, true},
		{"largest interface", XDP{Packet: frame(64), IngressIfindex: math.MaxInt32}, "XDP.IngressIfindex: 2147483647: no such interface", unix.ENODEV, true},
		{"negative repeat", XDP{Packet: frame(64), Repeat: -1}, "XDP.Repeat: -1: it cannot be negative: invalid argument", unix.EINVAL, false},
		{"negative queue", XDP{Packet: frame(64), RxQueueIndex: -1}, "XDP.RxQueueIndex: -1: it cannot be negative: invalid argument", unix.EINVAL, false},
		{"negative interface", XDP{Packet: frame(64), IngressIfindex: -1}, "XDP.IngressIfindex: -1: it cannot be negative: invalid argument", unix.EINVAL, false},
		{"negative linear size", XDP{Packet: frame(64), LinearSize: -1}, "XDP.LinearSize: -1: must be between 0 and the packet's 64 bytes: invalid argument", unix.EINVAL, false},
		{"linear size beyond the packet", XDP{Packet: frame(64), LinearSize: 65}, "XDP.LinearSize: 65: must be between 0 and the packet's 64 bytes: invalid argument", unix.EINVAL, false},
		{"over-large linear size", XDP{Packet: frame(64), LinearSize: math.MaxInt}, "must be between 0 and the packet's 64 bytes", unix.EINVAL, false},
		{"over-large repeat", XDP{Packet: frame(64), Repeat: overLarge(tooMany)}, "XDP.Repeat: 4294967296: it can be at most 4294967295: invalid argument", unix.EINVAL, false},
		{"over-large queue", XDP{Packet: frame(64), RxQueueIndex: overLarge(tooMany)}, "XDP.RxQueueIndex: 4294967296: it can be at most 4294967295: invalid argument", unix.EINVAL, false},
		{"over-large interface of 32 bits", XDP{Packet: frame(64), IngressIfindex: overLarge(1 << 31)}, "XDP.IngressIfindex: 2147483648: no such interface in this thread's network namespace: no such device", unix.ENODEV, true},
		{"over-large interface", XDP{Packet: frame(64), IngressIfindex: overLarge(tooMany)}, "XDP.IngressIfindex: 4294967296: no such interface in this thread's network namespace: no such device", unix.ENODEV, false},
		{"metadata far too large", XDP{Packet: frame(64), Metadata: make([]byte, 200_000)}, "XDP.Metadata: 200000 bytes: no kernel takes more than 252 bytes of metadata: invalid argument", unix.EINVAL, false},
		{"too many fragments with a repeat", XDP{Packet: make([]byte, 18*os.Getpagesize()), Repeat: 2}, "more fragments would end a hold on the program", unix.ENOMEM, false},
		{"too many fragments with an interface", XDP{Packet: make([]byte, 18*os.Getpagesize()), IngressIfindex: 1}, "more fragments would leak a reference", unix.ENOMEM, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.name, "over-large") && c.xdp.Repeat+c.xdp.RxQueueIndex+c.xdp.IngressIfindex+c.xdp.LinearSize == 0 {
				t.Skip("an int of 32 bits cannot be that large")
			}
			o := load(t, "xdp", "xdp_ctx")
			text, is := c.text, c.is
			if c.ctx && lacks(HaveXDPContext()) {
				text, is = "this kernel takes no context of XDP programs (Linux 5.15)", ebpf.ErrNotSupported
			} else if strings.Contains(text, "%d") {
				text = fmt.Sprintf(text, largestMetadata(uint32(o.FD())))
			}
			var err error
			inNetNS(t, func() { _, err = c.xdp.Run(o.Program) })
			wantError(t, err, text, is, RanNo)
			if n := runs(t, o); n != 0 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}

// overLarge returns n as an int, or 0 if an int cannot hold it.
func overLarge(n int64) int {
	if int64(int(n)) != n {
		return 0
	}
	return int(n)
}

// TestXDPSmallPackets runs on the smallest packets.
func TestXDPSmallPackets(t *testing.T) {
	o := load(t, "xdp", "xdp_ctx")
	for _, n := range []int{14, 15} {
		res, err := XDP{Packet: frame(n)}.Run(o.Program)
		if err != nil || !bytes.Equal(res.Packet, frame(n)) {
			t.Errorf("%d bytes: %x, %v", n, res.Packet, err)
		}
		if seen := get[uint32](t, o, "seen", 2); int(seen) != n {
			t.Errorf("%d bytes: the program saw %d", n, seen)
		}
	}
	if n := runs(t, o); n != 2 {
		t.Errorf("ran %d times, want 2", n)
	}
}

// TestXDPTooLarge checks that the error names the kernel's limit, which only the kernel
// knows.
func TestXDPTooLarge(t *testing.T) {
	o := load(t, "xdp", "xdp_ctx")
	if lacks(HaveXDPMultiBuffer()) {
		for _, n := range []int{pageSize, 2*pageSize + 1000} {
			_, err := XDP{Packet: frame(n)}.Run(o.Program)
			wantError(t, err, fmt.Sprintf("XDP.Packet: %d bytes: this kernel runs XDP programs on packets of at most one page (more since Linux 5.18)", n), ebpf.ErrNotSupported, RanNo)
		}
	} else {
		n := xdpLinear + defaultFrags*pageSize + 1
		_, err := XDP{Packet: frame(n)}.Run(o.Program)
		wantError(t, err, fmt.Sprintf("XDP.Packet: %d bytes: the packet needs more fragments than the kernel has (17 unless the kernel was built with more), at most %d bytes with 17: cannot allocate memory", n, n-1), unix.ENOMEM, RanNo)
	}
	if n := runs(t, o); n != 0 {
		t.Errorf("ran %d times", n)
	}
}

// TestXDPMetadataLimit checks that the limit in errors is the kernel's.
func TestXDPMetadataLimit(t *testing.T) {
	need(t, HaveXDPContext())
	o := load(t, "xdp", "xdp_ctx")
	most := int(largestMetadata(uint32(o.FD())))
	if _, err := (XDP{Packet: frame(64), Metadata: make([]byte, most)}).Run(o.Program); err != nil {
		t.Errorf("metadata of %d bytes: %v", most, err)
	}
	_, err := XDP{Packet: frame(64), Metadata: make([]byte, most+4)}.Run(o.Program)
	wantError(t, err, fmt.Sprintf("XDP.Metadata: %d bytes: metadata must be a multiple of 4 bytes, at most %d here", most+4, most), unix.EINVAL, RanNo)
	if n := runs(t, o); n != 1 {
		t.Errorf("ran %d times, want 1", n)
	}
}

// TestXDPDevmapProgram runs a program for a devmap, which the kernel refuses whatever
// the request.
func TestXDPDevmapProgram(t *testing.T) {
	needPrivilege(t)
	for _, attach := range []ebpf.AttachType{ebpf.AttachXDPDevMap, ebpf.AttachXDPCPUMap} {
		t.Run(attach.String(), func(t *testing.T) {
			prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: ebpf.XDP, AttachType: attach, License: "MIT",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(XDPPass)), asm.Return()},
			})
			if errors.Is(err, unix.EINVAL) {
				skipOnThisKernel(t, "programs of "+attach.String(), err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer prog.Close()
			_, err = XDP{Packet: frame(64)}.Run(prog)
			text := "the program is for a devmap or a cpumap, or bound to a device: the kernel does not run such programs"
			if lacks(HaveXDPContext()) { // such kernels do not tell whether the program is to blame
				text = "the kernel does not say why: the program may be for a devmap or a cpumap, which it does not run"
			}
			wantError(t, err, "progrun: XDP: "+text+": invalid argument", unix.EINVAL, RanNo)
		})
	}
}
