package progrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// skbFamily has each request of the family, for tests of all of them.
var skbFamily = []struct {
	request, file, program string
	run                    func(*ebpf.Program, skbRequest) ([]byte, SKB, error)
}{
	{"TC", "tc", "tc_mark", func(p *ebpf.Program, r skbRequest) ([]byte, SKB, error) {
		res, err := TC(r).Run(p)
		return res.Packet, res.Context, err
	}},
	{"SocketFilter", "socket_filter", "socket_filter", func(p *ebpf.Program, r skbRequest) ([]byte, SKB, error) {
		res, err := SocketFilter(r).Run(p)
		return res.Packet, res.Context, err
	}},
	{"CGroupSKB", "cgroup_skb", "cgroup_ingress", func(p *ebpf.Program, r skbRequest) ([]byte, SKB, error) {
		res, err := CGroupSKB(r).Run(p)
		return res.Packet, res.Context, err
	}},
	{"LWT", "lwt", "lwt_in", func(p *ebpf.Program, r skbRequest) ([]byte, SKB, error) {
		res, err := LWT{Packet: r.Packet, Context: r.Context, ChecksumComplete: r.ChecksumComplete,
			Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput}.Run(p)
		return res.Packet, res.Context, err
	}},
}

func TestTCContext(t *testing.T) {
	for _, c := range []struct {
		name    string
		in, out SKB
		verdict TCVerdict
	}{
		{"none", SKB{}, SKB{Ifindex: 1}, TCActOK},
		{"mark 7: all that the program changes", SKB{Mark: 7, Priority: 1, CB: [5]uint32{1, 2, 3, 4, 5}, TStampNS: 5000},
			SKB{Mark: 8, Priority: 99, CB: [5]uint32{2, 3, 4, 5, 6}, TStampNS: 6000, Ifindex: 1}, TCActShot},
		{"mark 9: left to others", SKB{Mark: 9}, SKB{Mark: 9, Ifindex: 1}, TCActUnspec},
		{"loopback by its number", SKB{Ifindex: 1}, SKB{Ifindex: 1}, TCActOK},
		{"what the program leaves alone", SKB{Priority: math.MaxUint32, CB: [5]uint32{4: math.MaxUint32}, WireLen: 1500, GSOSegs: 3, GSOSize: 500},
			SKB{Priority: math.MaxUint32, CB: [5]uint32{4: math.MaxUint32}, WireLen: 1500, GSOSegs: 3, GSOSize: 500, Ifindex: 1}, TCActOK},
		{"the greatest numbers", SKB{Mark: math.MaxUint32, WireLen: 65536, GSOSegs: 65535, GSOSize: 65535},
			SKB{Mark: math.MaxUint32, WireLen: 65536, GSOSegs: 65535, GSOSize: 65535, Ifindex: 1}, TCActOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, "tc", "tc_mark")
			res, err := TC{Packet: frame(64), Context: c.in}.Run(o.Program)
			if err != nil {
				t.Fatal(err)
			}
			if res.Verdict != c.verdict || res.Context != c.out {
				t.Errorf("got  %s %+v\nwant %s %+v", res.Verdict, res.Context, c.verdict, c.out)
			}
			if !bytes.Equal(res.Packet, frame(64)) {
				t.Errorf("the packet came out as %x", res.Packet)
			}
			if n := runs(t, o); n != 1 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}

// TestSKBYoungerFields sets the fields that Linux 5.10 does not have.
func TestSKBYoungerFields(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	for _, in := range []SKB{{IngressIfindex: 77}, {IngressIfindex: math.MaxInt32}, {IngressIfindex: overLarge(math.MaxUint32)}, {HWTStampNS: 1 << 40}} {
		res, err := TC{Packet: frame(64), Context: in}.Run(o.Program)
		if errors.Is(err, unix.EINVAL) && lacks(HaveXDPContext()) { // the next newer feature that can be probed
			skipOnThisKernel(t, "TC with all fields of a context", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		in.Ifindex = 1
		if res.Context != in {
			t.Errorf("got  %+v\nwant %+v", res.Context, in)
		}
	}
}

// TestSKBHWTStampLacking checks the error of a kernel whose context ends before
// HWTStampNS.
func TestSKBHWTStampLacking(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	_, err := TC{Packet: frame(64), Context: SKB{HWTStampNS: 1 << 40}}.Run(o.Program)
	if err == nil {
		t.Skip("this kernel has it")
	}
	wantError(t, err, "progrun: TC.Context.HWTStampNS: 1099511627776: this kernel's context ends before this field (Linux 5.16): not supported", ebpf.ErrNotSupported, RanNo)
	wantError(t, err, "", unix.E2BIG, RanNo)
}

// TestTCFields checks what the program sees of a context.
func TestTCFields(t *testing.T) {
	o := load(t, "tc", "tc_fields")
	ctx := SKB{Priority: 3, Mark: 4, WireLen: 1000, GSOSegs: 2, GSOSize: 500}
	if !lacks(HaveXDPContext()) { // Linux 5.10 has no IngressIfindex either
		ctx.IngressIfindex = 55
	}
	if _, err := (TC{Packet: frame(64), Context: ctx}).Run(o.Program); err != nil {
		t.Fatal(err)
	}
	protocol := uint32(binary.NativeEndian.Uint16([]byte{0x88, 0xb5}))
	for i, want := range []struct {
		field string
		value uint32
	}{
		{"len", 64}, {"ifindex", 1}, {"ingress_ifindex", uint32(ctx.IngressIfindex)}, {"priority", 3}, {"mark", 4},
		{"wire_len", 1000}, {"gso_segs", 2}, {"gso_size", 500}, {"pkt_type", unix.PACKET_HOST}, {"protocol", protocol},
	} {
		if got := get[uint32](t, o, "seen", uint32(i)); got != want.value {
			t.Errorf("the program saw %s %d, want %d", want.field, got, want.value)
		}
	}
}

// TestTCPacketType checks that the packet type follows from the destination address and
// the address of the interface, which is zero for loopback.
func TestTCPacketType(t *testing.T) {
	o := load(t, "tc", "tc_fields")
	for first, want := range map[byte]uint32{0: unix.PACKET_HOST, 1: unix.PACKET_MULTICAST, 2: unix.PACKET_OTHERHOST} {
		packet := frame(64)
		packet[0] = first
		if _, err := (TC{Packet: packet}).Run(o.Program); err != nil {
			t.Fatal(err)
		}
		if got := get[uint32](t, o, "seen", 8); got != want {
			t.Errorf("to %x: pkt_type %d, want %d", packet[:6], got, want)
		}
	}
}

// TestTCRewrite runs a program that rewrites addresses and checksums on a capture, and
// checks the checksums of the output.
func TestTCRewrite(t *testing.T) {
	o := load(t, "tc", "tc_rewrite")
	rewritten := 0
	for i, packet := range traffic(t) {
		if binary.BigEndian.Uint16(packet[12:]) == ethPIP && len(packet) < 34 {
			continue // some kernels refuse it
		}
		if binary.BigEndian.Uint16(packet[12:]) == ethPIPv6 && len(packet) < 54 {
			continue
		}
		in := bytes.Clone(packet)
		res, err := TC{Packet: in}.Run(o.Program)
		if err != nil {
			t.Errorf("frame %d: %v", i, err)
			continue
		}
		if !bytes.Equal(in, packet) {
			t.Errorf("frame %d: the input was written to", i)
		}
		if binary.BigEndian.Uint16(packet[12:]) != ethPIP {
			if res.Verdict != TCActPipe || !bytes.Equal(res.Packet, packet) {
				t.Errorf("frame %d: %s, came out as %x", i, res.Verdict, res.Packet)
			}
			continue
		}
		if res.Verdict == TCActShot && len(packet) < 54 {
			continue // cut short before its transport checksum
		}
		if res.Verdict != TCActOK || len(res.Packet) != len(packet) {
			t.Errorf("frame %d: %s, %d bytes", i, res.Verdict, len(res.Packet))
			continue
		}
		out := bytes.Clone(res.Packet)
		ihl := int(out[14]&15) * 4
		if !bytes.Equal(out[30:34], []byte{192, 0, 2, 99}) || checksum(out[14:14+ihl]) != 0 {
			t.Errorf("frame %d: IPv4 header %x with a sum of %#x", i, out[14:14+ihl], checksum(out[14:14+ihl]))
		}
		if sum := transportSum(packet); sum == 0 && transportSum(out) != 0 {
			t.Errorf("frame %d: the sum of the transport protocol is off by %#x", i, transportSum(out))
		}
		rewritten++
	}
	if rewritten < 20 {
		t.Errorf("only %d frames were rewritten", rewritten)
	}
}

// transportSum returns 0 for an IPv4 packet whose TCP or UDP checksum is right, and 1
// for a packet without one.
func transportSum(b []byte) uint16 {
	ihl, total := int(b[14]&15)*4, int(binary.BigEndian.Uint16(b[16:]))
	proto := b[23]
	whole := binary.BigEndian.Uint16(b[20:])&0x3fff == 0
	if !whole || len(b) < 14+total || proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP {
		return 1
	}
	n := total - ihl
	pseudo := append(bytes.Clone(b[26:34]), 0, proto, byte(n>>8), byte(n))
	pseudo = append(pseudo, b[14+ihl:14+total]...)
	if n%2 != 0 {
		pseudo = append(pseudo, 0)
	}
	return checksum(pseudo)
}

// TestTCTail grows a packet as far as the kernel allows, and shrinks it.
func TestTCTail(t *testing.T) {
	o := load(t, "tc", "tc_tail")
	grown := 4*pageSize - tailroom // SKB_MAX_ALLOC
	for _, c := range []struct {
		delta, want int
		verdict     TCVerdict
	}{
		{grown - 64, grown, TCActOK}, {1, 65, TCActOK}, {0, 64, TCActOK}, {-20, 44, TCActOK}, {-64, 64, TCActShot},
	} {
		for _, capacity := range []int{0, 64, c.want - 1, c.want, 8 * pageSize} {
			set(t, o, "delta", 0, int32(c.delta))
			res, err := TC{Packet: frame(64), Out: make([]byte, 0, capacity)}.Run(o.Program)
			if err != nil {
				t.Fatal(err)
			}
			want := append(frame(64), make([]byte, max(0, c.want-64))...)[:c.want]
			if res.Verdict != c.verdict || !bytes.Equal(res.Packet, want) {
				t.Errorf("%+d: %s, %d bytes %x", c.delta, res.Verdict, len(res.Packet), res.Packet[:min(100, len(res.Packet))])
			}
		}
	}
}

func TestTCVerdict(t *testing.T) {
	for file, program := range map[string]string{"SchedCLS": "tc_verdict", "SchedACT": "act_verdict"} {
		o := load(t, "tc", program)
		for _, want := range []TCVerdict{TCActUnspec, TCActOK, TCActShot, TCActRedirect, TCActTrap, 77, math.MinInt32, tcActGotoChain | 5} {
			set(t, o, "verdict", 0, uint32(want))
			for _, noOutput := range []bool{false, true} {
				res, err := TC{Packet: frame(64), NoOutput: noOutput}.Run(o.Program)
				if err != nil || res.Verdict != want {
					t.Errorf("%s: got %s, %v, want %s", file, res.Verdict, err, want)
				}
			}
		}
	}
}

func TestTCChecksumComplete(t *testing.T) {
	packet := udp4(somewhere, 53, []byte("payload")...)
	good, bad := load(t, "tc", "tc_rewrite"), load(t, "tc", "tc_store_csum_bad")
	if err := HaveChecksumComplete(); lacks(err) {
		_, err := TC{Packet: packet, ChecksumComplete: true}.Run(good.Program)
		wantError(t, err, "progrun: TC.ChecksumComplete: true: this kernel does not check checksums (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.11)", ebpf.ErrNotSupported, RanNo)
		wantError(t, err, "", unix.EINVAL, RanNo)
		return
	}
	res, err := TC{Packet: packet, ChecksumComplete: true}.Run(good.Program)
	if err != nil || res.Verdict != TCActOK || !bytes.Equal(res.Packet[30:34], []byte{192, 0, 2, 99}) {
		t.Errorf("a program that keeps the checksum: %s, %x, %v", res.Verdict, res.Packet, err)
	}
	if _, err := (TC{Packet: packet}).Run(bad.Program); err != nil {
		t.Errorf("unchecked: %v", err)
	}
	_, err = TC{Packet: packet, ChecksumComplete: true}.Run(bad.Program)
	wantError(t, err, "progrun: TC.ChecksumComplete: true: after the run the checksum no longer matches the packet, or a helper has discarded it: bad message", unix.EBADMSG, RanYes)
}

// skbLinear returns how much of an skb can be linear: a page without NET_SKB_PAD,
// NET_IP_ALIGN and the tailroom.
var skbLinear = func() int {
	headroom := 64
	switch runtime.GOARCH {
	case "s390x":
		headroom = 32 + 2
	case "ppc64", "ppc64le":
		headroom = 128
	}
	return pageSize - headroom - tailroom
}()

// TestTCLinearSize runs on skbs that are not linear.
func TestTCLinearSize(t *testing.T) {
	need(t, HaveNonLinearSKB())
	o := load(t, "tc", "tc_linear")
	large := skbLinear + pageSize + 1000
	for _, c := range []struct{ n, linear, want int }{
		{64, 14, 14}, {64, 20, 20}, {64, 64, 64}, {64, 0, 64}, {64, 1, 14},
		{skbLinear, 0, skbLinear}, {skbLinear + 1, 0, skbLinear}, {large, 0, skbLinear}, {large, 100, 100},
		{large, large, skbLinear}, {skbLinear + defaultFrags*pageSize, 0, skbLinear},
	} {
		for _, capacity := range []int{0, c.n, c.n + 8*pageSize} {
			in := pages(c.n)
			res, err := TC{Packet: in, LinearSize: c.linear, Out: make([]byte, 0, capacity)}.Run(o.Program)
			if err != nil {
				t.Errorf("%+v: %v", c, err)
				continue
			}
			if !bytes.Equal(res.Packet, in) {
				t.Errorf("%+v: came out as other %d bytes", c, len(res.Packet))
			}
			if n := get[uint32](t, o, "seen", 0); int(n) != c.want {
				t.Errorf("%+v: the program saw %d linear bytes", c, n)
			}
			if n := get[uint32](t, o, "seen", 1); int(n) != c.n {
				t.Errorf("%+v: the program saw %d bytes", c, n)
			}
		}
	}
}

// TestSKBLinearSizeLacking checks the error of a kernel that has only linear skbs.
func TestSKBLinearSizeLacking(t *testing.T) {
	needPrivilege(t)
	if !lacks(HaveNonLinearSKB()) {
		t.Skip("this kernel has it")
	}
	for _, c := range skbFamily[:3] {
		o := load(t, c.file, c.program)
		_, _, err := c.run(o.Program, skbRequest{Packet: frame(64), LinearSize: 20})
		wantError(t, err, "progrun: "+c.request+".LinearSize: 20: this kernel runs programs on linear skbs only (others since Linux 6.19)", ebpf.ErrNotSupported, RanNo)
		wantError(t, err, "", unix.EINVAL, RanNo)
		if n := runs(t, o); n != 0 {
			t.Errorf("%s ran %d times", c.program, n)
		}
	}
}

func TestSocketFilter(t *testing.T) {
	o := load(t, "socket_filter", "socket_filter")
	for _, c := range []struct {
		name   string
		packet []byte
		want   SocketFilterVerdict
	}{
		{"DNS over IPv4: all of it", udp4(somewhere, 53, 1, 2, 3), math.MaxUint32},
		{"other UDP: the headers", udp4(somewhere, 54, 1, 2, 3), 42},
		{"UDP over IPv6: the headers", udp6(53, 1, 2, 3), 42},
		{"neither", frame(64), SocketFilterDrop},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := SocketFilter{Packet: c.packet, Context: SKB{Mark: 5}}.Run(o.Program)
			if err != nil || res.Verdict != c.want {
				t.Fatalf("got %s, %v, want %s", res.Verdict, err, c.want)
			}
			if want := (SKB{Mark: 5, Ifindex: 1}); res.Context != want {
				t.Errorf("context %+v, want %+v", res.Context, want)
			}
			if want := withoutEthernet(c.packet); !bytes.Equal(res.Packet, want) {
				t.Errorf("came out as\n%x, want\n%x", res.Packet, want)
			}
		})
	}
}

// withoutEthernet returns the packet as it comes out of programs that do not see its
// Ethernet header.
func withoutEthernet(packet []byte) []byte {
	return append(make([]byte, ethHLen), packet[ethHLen:]...)
}

// cgroupSKBReadsPackets reports whether cgroup_skb programs have direct access to a
// packet under BPF_PROG_RUN. They do since Linux 6.14.
func cgroupSKBReadsPackets(t *testing.T) bool {
	t.Helper()
	needPrivilege(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress, License: "MIT",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 76, asm.Word), // data
			asm.LoadMem(asm.R3, asm.R1, 80, asm.Word), // data_end
			asm.Add.Imm(asm.R2, 1),
			asm.Mov.Imm(asm.R0, 1),
			asm.JLE.Reg(asm.R2, asm.R3, "end"),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return().WithSymbol("end"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	res, err := CGroupSKB{Packet: frame(64)}.Run(prog)
	if err != nil {
		t.Fatal(err)
	}
	return res.Verdict == CGroupSKBAllow
}

// TestCGroupSKB runs filters that read the packet directly. Before Linux 6.14 they find
// it empty, and so refuse all packets.
func TestCGroupSKB(t *testing.T) {
	congested := udp4(somewhere, 53)
	congested[15] |= 3
	reads := cgroupSKBReadsPackets(t)
	if !reads && !lacks(HaveNonLinearSKB()) {
		t.Error("this kernel has skbs that are not linear (6.19), but no direct access (6.14)")
	}
	for _, c := range []struct {
		program string
		packet  []byte
		want    CGroupSKBVerdict
	}{
		{"cgroup_ingress", udp4(somewhere, 53), CGroupSKBAllow},
		{"cgroup_ingress", udp6(53), CGroupSKBDrop},
		{"cgroup_ingress", frame(64), CGroupSKBDrop},
		{"cgroup_egress", udp4(somewhere, 53), CGroupSKBAllow},
		{"cgroup_egress", congested, CGroupSKBAllowCN},
		{"cgroup_egress", frame(64), CGroupSKBDrop},
	} {
		o := load(t, "cgroup_skb", c.program)
		if !reads {
			c.want = CGroupSKBDrop
		}
		res, err := CGroupSKB{Packet: c.packet, Context: SKB{Priority: 5}}.Run(o.Program)
		if err != nil || res.Verdict != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.program, res.Verdict, err, c.want)
		}
		if want := withoutEthernet(c.packet); !bytes.Equal(res.Packet, want) {
			t.Errorf("%s: came out as\n%x, want\n%x", c.program, res.Packet, want)
		}
		if res.Context.Priority != 5 {
			t.Errorf("%s: context %+v", c.program, res.Context)
		}
	}
}

// TestCGroupSKBVerdict checks the four verdicts of egress programs.
func TestCGroupSKBVerdict(t *testing.T) {
	needPrivilege(t)
	for want := range CGroupSKBVerdict(4) {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "MIT",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(want)), asm.Return()},
		})
		if err != nil {
			t.Fatal(err)
		}
		res, err := CGroupSKB{Packet: frame(64), NoOutput: true}.Run(prog)
		if err != nil || res.Verdict != want {
			t.Errorf("got %s, %v, want %s", res.Verdict, err, want)
		}
		prog.Close()
	}
}

func TestLWT(t *testing.T) {
	ipv4, ipv6 := udp4(somewhere, 53, 1, 2), udp6(53, 1, 2)
	for _, c := range []struct {
		program string
		packet  []byte
		want    LWTVerdict
	}{
		{"lwt_in", ipv4, LWTOK}, {"lwt_in", ipv6, LWTDrop},
		{"lwt_out", ipv4, LWTOK}, {"lwt_out", ipv6, LWTDrop},
	} {
		o := load(t, "lwt", c.program)
		res, err := LWT{Packet: c.packet, Context: SKB{Mark: 3}}.Run(o.Program)
		if err != nil || res.Verdict != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.program, res.Verdict, err, c.want)
		}
		if !bytes.Equal(res.Packet, withoutEthernet(c.packet)) || res.Context.Mark != 3 {
			t.Errorf("%s: came out as %x, %+v", c.program, res.Packet, res.Context)
		}
		if n := runs(t, o); n != 1 {
			t.Errorf("%s ran %d times", c.program, n)
		}
	}
}

// TestLWTPush puts a packet into another one.
func TestLWTPush(t *testing.T) {
	o := load(t, "lwt", "lwt_in_push")
	in := udp4(somewhere, 53, 1, 2, 3)
	for _, capacity := range []int{0, len(in), len(in) + 20, 1 << 15} {
		res, err := LWT{Packet: in, Out: make([]byte, 0, capacity)}.Run(o.Program)
		if err != nil || res.Verdict != LWTReroute {
			t.Fatalf("%s, %v", res.Verdict, err)
		}
		if len(res.Packet) != len(in)+20 {
			t.Fatalf("%d bytes, want %d", len(res.Packet), len(in)+20)
		}
		outer := res.Packet[14:34]
		if !bytes.Equal(res.Packet[:14], make([]byte, 14)) || outer[0] != 0x45 || outer[9] != unix.IPPROTO_IPIP || checksum(outer) != 0 {
			t.Errorf("before the packet: %x", res.Packet[:34])
		}
		if !bytes.Equal(res.Packet[34:], in[14:]) {
			t.Errorf("inside: %x, want %x", res.Packet[34:], in[14:])
		}
	}
}

// TestLWTXmit adds an Ethernet header to a packet, after the header of zeros that these
// programs do not see.
func TestLWTXmit(t *testing.T) {
	o := load(t, "lwt", "lwt_xmit_head")
	in := udp4(somewhere, 53, 1, 2, 3)
	res, err := LWT{Packet: in}.Run(o.Program)
	if errors.Is(err, unix.EOPNOTSUPP) {
		skipOnThisKernel(t, "lwt_xmit", err)
	}
	if err != nil || res.Verdict != LWTRedirect {
		t.Fatalf("%s, %v", res.Verdict, err)
	}
	header := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}
	if want := append(append(make([]byte, 14), header...), in[14:]...); !bytes.Equal(res.Packet, want) {
		t.Errorf("came out as\n%x, want\n%x", res.Packet, want)
	}
}

// TestSKBOut checks how output buffers are used. See TestXDPOut.
func TestSKBOut(t *testing.T) {
	for _, c := range skbFamily {
		o := load(t, c.file, c.program)
		want := frame(64)
		if c.request != "TC" {
			want = withoutEthernet(want)
		}
		checkOut(t, c.request, want, func(out []byte) ([]byte, error) {
			packet, _, err := c.run(o.Program, skbRequest{Packet: frame(64), Out: out})
			return packet, err
		})
	}
	for delta, want := range map[int32][]byte{40: append(frame(64), make([]byte, 40)...), -20: frame(44)} {
		o := load(t, "tc", "tc_tail")
		set(t, o, "delta", 0, delta)
		checkOut(t, fmt.Sprintf("TC%+d", delta), want, func(out []byte) ([]byte, error) {
			res, err := TC{Packet: frame(64), Out: out}.Run(o.Program)
			return res.Packet, err
		})
	}
}

// TestSKBNoOutput checks that NoOutput returns the verdict only, and leaves Out as it
// is.
func TestSKBNoOutput(t *testing.T) {
	for _, c := range skbFamily {
		o := load(t, c.file, c.program)
		out := []byte{1, 2, 3}
		packet, ctx, err := c.run(o.Program, skbRequest{Packet: frame(64), Context: SKB{Mark: 7}, NoOutput: true, Out: out[:0]})
		if err != nil {
			t.Fatal(err)
		}
		if packet != nil || ctx != (SKB{}) || !bytes.Equal(out, []byte{1, 2, 3}) {
			t.Errorf("%s: %x, %+v, Out %v", c.request, packet, ctx, out)
		}
		if n := runs(t, o); n != 1 {
			t.Errorf("%s: ran %d times", c.request, n)
		}
	}
}

// TestSKBRepeat checks that the kernel does not reset packet and context between runs.
func TestSKBRepeat(t *testing.T) {
	mark := load(t, "tc", "tc_mark")
	res, err := TC{Packet: frame(64), Context: SKB{Mark: 7}, Repeat: 3}.Run(mark.Program)
	if err != nil {
		t.Fatal(err)
	}
	if res.Verdict != TCActOK || res.Context.Mark != 8 || res.Context.CB[0] != 1 {
		t.Errorf("got %s %+v", res.Verdict, res.Context)
	}
	tail := load(t, "tc", "tc_tail")
	set(t, tail, "delta", 0, int32(10))
	for repeat, want := range map[int]int{0: 74, 1: 74, 2: 84, 5: 114} {
		res, err := TC{Packet: frame(64), Repeat: repeat}.Run(tail.Program)
		if err != nil || len(res.Packet) != want {
			t.Errorf("repeat %d: %d bytes, %v, want %d", repeat, len(res.Packet), err, want)
		}
	}
	for _, c := range skbFamily {
		o := load(t, c.file, c.program)
		if _, _, err := c.run(o.Program, skbRequest{Packet: frame(64), Repeat: 100}); err != nil {
			t.Fatal(err)
		}
		if n := runs(t, o); n != 100 {
			t.Errorf("%s: ran %d times, want 100", c.request, n)
		}
	}
	if res, err := (TC{Packet: frame(64), Repeat: 1000}).Run(mark.Program); err != nil || res.PerRun <= 0 {
		t.Errorf("the mean time of a run is %v, %v", res.PerRun, err)
	}
}

// TestSKBSmallPackets runs on the smallest packets.
func TestSKBSmallPackets(t *testing.T) {
	for _, c := range skbFamily {
		o := load(t, c.file, c.program)
		for _, n := range []int{14, 15} {
			before := runs(t, o)
			packet, _, err := c.run(o.Program, skbRequest{Packet: frame(n)})
			if err != nil && n == 14 && c.request != "TC" {
				// Kernels with fd1894224407 but without 114039b34201 refuse it.
				wantError(t, err, c.request+".Packet: 14 bytes: some kernels want at least one byte after the Ethernet header", unix.EINVAL, RanNo)
				continue
			}
			if err != nil || len(packet) != n {
				t.Errorf("%s: %d bytes: %x, %v", c.request, n, packet, err)
			}
			if runs(t, o) != before+1 {
				t.Errorf("%s: %d bytes: did not run once", c.request, n)
			}
		}
	}
}

// TestSKBTooLarge checks that the error names the kernel's limit, which only the kernel
// knows.
func TestSKBTooLarge(t *testing.T) {
	needPrivilege(t)
	most, errno := skbLinear, unix.EINVAL
	rule := fmt.Sprintf("the packet is too large: at most %d bytes here: invalid argument", most)
	ran := RanNo
	if !lacks(HaveNonLinearSKB()) {
		most, errno, ran = skbLinear+defaultFrags*pageSize, unix.ENOMEM, RanMaybe
		rule = fmt.Sprintf("the packet needs more fragments than the kernel has (17 unless the kernel was built with more), at most %d bytes here: cannot allocate memory", most)
	}
	for _, c := range skbFamily {
		o := load(t, c.file, c.program)
		packet, _, err := c.run(o.Program, skbRequest{Packet: pages(most)})
		if err != nil || len(packet) != most || !bytes.Equal(packet[14:], pages(most)[14:]) {
			t.Errorf("%s: %d bytes: %d bytes, %v", c.request, most, len(packet), err)
		}
		_, _, err = c.run(o.Program, skbRequest{Packet: frame(most + 1)})
		wantError(t, err, fmt.Sprintf("progrun: %s.Packet: %d bytes: %s", c.request, most+1, rule), errno, ran)
		_, _, err = c.run(o.Program, skbRequest{Packet: frame(maxPacket + 1)})
		wantError(t, err, c.request+".Packet: "+size(maxPacket+1)+": no kernel takes more than ", unix.ENOMEM, RanNo)
		if n := runs(t, o); n != 1 {
			t.Errorf("%s: ran %d times, want 1", c.request, n)
		}
	}
}

// TestSKBShortHeaders runs on packets that are too short for the headers that their
// EtherType announces. Recent kernels refuse these; older ones read past the packet.
func TestSKBShortHeaders(t *testing.T) {
	for _, c := range skbFamily {
		o := load(t, c.file, c.program)
		for _, p := range []struct {
			packet []byte
			text   string
		}{
			{udp4(somewhere, 53)[:33], "33 bytes: the packet is too short for the 20-byte IPv4 header that its EtherType announces: invalid argument"},
			{udp6(53)[:53], "53 bytes: the packet is too short for the 40-byte IPv6 header that its EtherType announces: invalid argument"},
		} {
			_, _, err := c.run(o.Program, skbRequest{Packet: p.packet})
			if err == nil {
				skipOnThisKernel(t, "a check of IP headers", errors.New("the kernel has no such check"))
			}
			wantError(t, err, c.request+".Packet: "+p.text, unix.EINVAL, RanNo)
		}
		if n := runs(t, o); n != 0 {
			t.Errorf("%s: ran %d times", c.request, n)
		}
	}
}

// TestSKBRefusals checks for the whole family that a bad request runs nothing, and that
// the error says why.
func TestSKBRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		skb  skbRequest
		text string
		is   error
	}{
		{"no packet", skbRequest{}, "Packet: 0 bytes: a packet begins with a 14-byte Ethernet header: invalid argument", unix.EINVAL},
		{"13 bytes", skbRequest{Packet: frame(13)}, "Packet: 13 bytes: a packet begins with a 14-byte Ethernet header: invalid argument", unix.EINVAL},
		{"wire length below the packet's", skbRequest{Packet: frame(64), Context: SKB{WireLen: 49}}, "Context.WireLen: 49: it must be at least the packet's length, %d bytes: invalid argument", unix.EINVAL},
		{"interface that does not exist", skbRequest{Packet: frame(64), Context: SKB{Ifindex: 4242}}, "Context.Ifindex: 4242: no such interface in this thread's network namespace: no such device", unix.ENODEV},
		{"negative wire length", skbRequest{Packet: frame(64), Context: SKB{WireLen: -1}}, "Context.WireLen: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large wire length", skbRequest{Packet: frame(64), Context: SKB{WireLen: 65537}}, "Context.WireLen: 65537: it can be at most 65536: invalid argument", unix.EINVAL},
		{"negative segments", skbRequest{Packet: frame(64), Context: SKB{GSOSegs: -1}}, "Context.GSOSegs: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large segments", skbRequest{Packet: frame(64), Context: SKB{GSOSegs: 65536}}, "Context.GSOSegs: 65536: it can be at most 65535: invalid argument", unix.EINVAL},
		{"negative segment size", skbRequest{Packet: frame(64), Context: SKB{GSOSize: -1}}, "Context.GSOSize: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large segment size", skbRequest{Packet: frame(64), Context: SKB{GSOSize: 65536}}, "Context.GSOSize: 65536: it can be at most 65535: invalid argument", unix.EINVAL},
		{"negative interface", skbRequest{Packet: frame(64), Context: SKB{Ifindex: -1}}, "Context.Ifindex: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"largest interface", skbRequest{Packet: frame(64), Context: SKB{Ifindex: overLarge(math.MaxUint32)}}, "Context.Ifindex: 4294967295: no such interface in this thread's network namespace: no such device", unix.ENODEV},
		{"over-large interface", skbRequest{Packet: frame(64), Context: SKB{Ifindex: overLarge(1 << 32)}}, "Context.Ifindex: 4294967296: no such interface in this thread's network namespace: no such device", unix.ENODEV},
		{"negative ingress interface", skbRequest{Packet: frame(64), Context: SKB{IngressIfindex: -1}}, "Context.IngressIfindex: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large ingress interface", skbRequest{Packet: frame(64), Context: SKB{IngressIfindex: overLarge(1 << 32)}}, "Context.IngressIfindex: 4294967296: it can be at most 4294967295: invalid argument", unix.EINVAL},
		{"negative repeat", skbRequest{Packet: frame(64), Repeat: -1}, "Repeat: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large repeat", skbRequest{Packet: frame(64), Repeat: overLarge(1 << 32)}, "Repeat: 4294967296: it can be at most 4294967295: invalid argument", unix.EINVAL},
		{"negative linear size", skbRequest{Packet: frame(64), LinearSize: -1}, "LinearSize: -1: must be between 0 and the packet's 64 bytes: invalid argument", unix.EINVAL},
		{"linear size beyond the packet", skbRequest{Packet: frame(64), LinearSize: 65}, "LinearSize: 65: must be between 0 and the packet's 64 bytes: invalid argument", unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range skbFamily {
				r, text := c.skb, c.text
				if (c.is == unix.EINVAL || c.is == unix.ENODEV) && len(r.Packet) == 64 && r.Context == (SKB{}) && r.Repeat == 0 && (r.LinearSize == 0 || f.request == "LWT") {
					continue // an int of 32 bits is too small, or LWT has no such field
				}
				if c.name == "wire length below the packet's" {
					seen := 50
					if f.request == "TC" {
						seen = 64
					}
					text = fmt.Sprintf(text, seen)
				}
				o := load(t, f.file, f.program)
				var err error
				inNetNS(t, func() { _, _, err = f.run(o.Program, r) })
				wantError(t, err, "progrun: "+f.request+"."+text, c.is, RanNo)
				if n := runs(t, o); n != 0 {
					t.Errorf("%s: ran %d times", f.request, n)
				}
			}
		})
	}
}

// TestTCChain runs again on the packet and the context of a result, after the program
// made the packet longer, and after it made it shorter.
func TestTCChain(t *testing.T) {
	o := load(t, "tc", "tc_tail")
	next := TC{Packet: frame(64), Context: SKB{Mark: 7}}
	for _, step := range []struct{ delta, want int }{{20, 84}, {40, 124}, {-30, 94}} {
		set(t, o, "delta", 0, int32(step.delta))
		res, err := next.Run(o.Program)
		if err != nil || res.Verdict != TCActOK || len(res.Packet) != step.want || res.Context.Mark != 7 {
			t.Fatalf("%d bytes more: %+v, %v", step.delta, res, err)
		}
		next = TC{Packet: res.Packet, Context: res.Context}
	}
	// A length that the caller set stays as it is.
	next.Context.WireLen = 94
	set(t, o, "delta", 0, int32(20))
	res, err := next.Run(o.Program)
	if err != nil || res.Context.WireLen != 94 {
		t.Fatalf("%+v, %v", res, err)
	}
	_, err = TC{Packet: res.Packet, Context: res.Context}.Run(o.Program)
	wantError(t, err, "TC.Context.WireLen: 94: it must be at least the packet's length", unix.EINVAL, RanNo)
}
