package progrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
)

// field is a field of a context or of the attr. Its value is a number in the byte order
// of the machine, or bytes.
type field struct {
	offset, size int
	value        any
}

// TestSKBFields checks that every field of SKB has a place in __sk_buff, from which it
// comes back.
func TestSKBFields(t *testing.T) {
	for i := range reflect.TypeFor[SKB]().NumField() {
		var s SKB
		switch f := reflect.ValueOf(&s).Elem().Field(i); f.Kind() {
		case reflect.Array:
			f.Index(f.Len() - 1).SetUint(7)
		case reflect.Int:
			f.SetInt(7)
		default:
			f.SetUint(7)
		}
		var b skBuff
		if b.encode(&s, 0); b == (skBuff{}) {
			t.Errorf("encode leaves out %s", reflect.TypeFor[SKB]().Field(i).Name)
		}
		if back := b.decode(); back != s {
			t.Errorf("decode returns %+v, want %+v", back, s)
		}
	}
}

// golden returns n bytes with these fields, and zeros elsewhere.
func golden(t *testing.T, n int, fields []field) []byte {
	t.Helper()
	b := make([]byte, n)
	for _, f := range fields {
		at := b[f.offset : f.offset+f.size]
		switch v := f.value.(type) {
		case string:
			if copy(at, v) != f.size || len(v) != f.size {
				t.Fatalf("%d bytes in a field of %d at %d", len(v), f.size, f.offset)
			}
		case int:
			put(at, uint64(v))
		case unsafe.Pointer:
			// A pointer has 64 bits on every machine, so that a 32-bit program agrees
			// with a 64-bit kernel.
			binary.NativeEndian.PutUint64(at, uint64(uintptr(v)))
		default:
			t.Fatalf("a field of type %T", v)
		}
	}
	return b
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: differs at byte %d:\ngot  %x\nwant %x", what, i, got, want)
			return
		}
	}
}

// TestGoldenSizes compares sizes with those of the kernel's structs on 64-bit machines.
// They are the same on any machine.
func TestGoldenSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"attr", unsafe.Sizeof(attr{}), 80},
		{"longAttr", unsafe.Sizeof(longAttr{}), 4096},
		{"__sk_buff", unsafe.Sizeof(skBuff{}), 192},
		{"xdp_md", unsafe.Sizeof(xdpMD{}), 24},
		{"bpf_flow_keys", unsafe.Sizeof(flowKeys{}), 56},
		{"bpf_sk_lookup", unsafe.Sizeof(skLookup{}), 72},
		{"nf_hook_state", unsafe.Sizeof(nfHookState{}), 48},
		{"arguments of bpf_dummy_ops", unsafe.Sizeof(dummyOps{}), 96},
		{"pointer", unsafe.Sizeof(pointer{}), 8},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}

// sink keeps variables on the heap, where nothing moves them, so that a test can
// compare their addresses.
var sink []byte

func heap(b []byte) []byte {
	sink = b
	return b
}

// TestGoldenAttr compares the attr of each request, and what its pointers point to,
// with known bytes.
func TestGoldenAttr(t *testing.T) {
	const fd = 0x01020304
	packet, out := heap(frame(64)), heap(make([]byte, 100))
	ctxIn, ctxOut := heap(make([]byte, 24)), heap(make([]byte, 192))
	ptr := func(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }
	dataIn := []field{{8, 4, 64}, {16, 8, ptr(packet)}}
	dataOut := []field{{12, 4, 100}, {24, 8, ptr(out)}}
	contextIn := []field{{40, 4, 24}, {48, 8, ptr(ctxIn)}}
	contextOut := []field{{44, 4, 192}, {56, 8, ptr(ctxOut)}}
	all := func(fields ...[]field) (joined []field) {
		for _, f := range fields {
			joined = append(joined, f...)
		}
		return joined
	}
	xdp := XDP{Packet: packet, Repeat: 1 << 30}
	skb := skbRequest{Packet: packet, Repeat: 7, ChecksumComplete: true}
	plain := skbRequest{Packet: packet}
	flow := FlowDissector{Packet: packet, Repeat: 3}
	lookup := SkLookup{Repeat: 4}
	nf := Netfilter{Packet: packet, Repeat: 5}
	args := []uint64{1, 2, 3}
	argBytes := unsafe.Pointer(unsafe.SliceData(args))
	here, there := RawTracepoint{Args: args}, RawTracepoint{Args: args, CPU: OnCPU(3)}
	first, none, empty := RawTracepoint{CPU: OnCPU(0)}, RawTracepoint{}, RawTracepoint{Args: []uint64{}}
	for _, c := range []struct {
		name string
		attr attr
		want []field
	}{
		{"XDP", xdp.attr(fd, packet, out, ctxIn, ctxOut), all(dataIn, dataOut, contextIn, contextOut, []field{{32, 4, 1 << 30}})},
		{"XDP without context or output", xdp.attr(fd, packet, nil, nil, nil), all(dataIn, []field{{32, 4, 1 << 30}})},
		{"TC", skb.attr(fd, out, ctxIn, ctxOut), all(dataIn, dataOut, contextIn, contextOut, []field{{32, 4, 7}, {64, 4, 4}})},
		{"TC without output", plain.attr(fd, nil, nil, nil), dataIn},
		{"FlowDissector", flow.attr(fd, out, ctxIn), all(dataIn, dataOut, contextIn, []field{{32, 4, 3}})},
		{"SkLookup", lookup.attr(fd, ctxIn, ctxOut), all(contextIn, contextOut, []field{{32, 4, 4}})},
		{"Netfilter", nf.attr(fd, ctxIn), all(dataIn, contextIn, []field{{32, 4, 5}})},
		{"RawTracepoint", here.attr(fd), []field{{40, 4, 24}, {48, 8, argBytes}}},
		{"RawTracepoint on CPU 3", there.attr(fd), []field{{40, 4, 24}, {48, 8, argBytes}, {64, 4, 1}, {68, 4, 3}}},
		{"RawTracepoint on CPU 0, no arguments", first.attr(fd), []field{{64, 4, 1}}},
		{"RawTracepoint of nothing", none.attr(fd), nil},
		{"RawTracepoint of no arguments", empty.attr(fd), nil},
		{"Tracing", newAttr(fd, nil, nil, nil, nil, 0, 0), nil},
		{"Syscall, StructOps", newAttr(fd, nil, nil, ctxIn, nil, 0, 0), contextIn},
	} {
		want := append(c.want, field{0, 4, fd})
		wantBytes(t, c.name, view(&c.attr), golden(t, 80, want))
		for _, p := range []struct {
			to   pointer
			n    uint32
			want []byte
		}{
			{c.attr.dataIn, c.attr.dataSizeIn, packet}, {c.attr.dataOut, c.attr.dataSizeOut, out},
			{c.attr.ctxOut, c.attr.ctxSizeOut, ctxOut},
		} {
			if p.to.ptr != nil && !bytes.Equal(unsafe.Slice((*byte)(p.to.ptr), p.n), p.want) {
				t.Errorf("%s: a pointer points to %x, want %x", c.name, unsafe.Slice((*byte)(p.to.ptr), p.n), p.want)
			}
			if (p.to.ptr == nil) != (p.n == 0) {
				t.Errorf("%s: a pointer without a size, or the reverse", c.name)
			}
		}
	}
}

// TestGoldenRaw sets every field of the attr, and bytes for fields of later kernels.
func TestGoldenRaw(t *testing.T) {
	packet, out, in, back := heap(frame(64)), heap(make([]byte, 10)), heap(make([]byte, 20)), heap(make([]byte, 30))
	raw := Raw{
		DataIn: packet, DataOut: out, CtxIn: in, CtxOut: back,
		Repeat: 0x11121314, Flags: 0x21222324, CPU: 0x31323334, BatchSize: 0x41424344,
		Tail: []byte("tail, and 14 b"),
	}
	ptr := func(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }
	short := raw.attr(9)
	a := raw.longAttr(&short)
	wantBytes(t, "Raw", view(&a), golden(t, 4096, []field{
		{0, 4, 9}, {8, 4, 64}, {12, 4, 10}, {16, 8, ptr(packet)}, {24, 8, ptr(out)}, {32, 4, 0x11121314},
		{40, 4, 20}, {44, 4, 30}, {48, 8, ptr(in)}, {56, 8, ptr(back)},
		{64, 4, 0x21222324}, {68, 4, 0x31323334}, {72, 4, 0x41424344}, {76, 14, "tail, and 14 b"},
	}))
	// Results are at the offsets to which the kernel writes them.
	copy(view(&a), golden(t, 40, []field{{4, 4, 77}, {12, 4, 88}, {36, 4, 99}}))
	copy(view(&a)[44:], golden(t, 4, []field{{0, 4, 66}}))
	if a.retval != 77 || a.dataSizeOut != 88 || a.duration != 99 || a.ctxSizeOut != 66 {
		t.Errorf("got %+v", a.attr)
	}
}

// TestGoldenXDPContext compares contexts with struct xdp_md.
func TestGoldenXDPContext(t *testing.T) {
	for _, c := range []struct {
		name string
		xdp  XDP
		want []field
	}{
		{"data_end is always set", XDP{Packet: frame(64)}, []field{{4, 4, 64}}},
		{"metadata counts", XDP{Packet: frame(64), Metadata: make([]byte, 8)}, []field{{0, 4, 8}, {4, 4, 72}}},
		{"a smaller linear part", XDP{Packet: frame(64), Metadata: make([]byte, 8), LinearSize: 20}, []field{{0, 4, 8}, {4, 4, 28}}},
		{"interface and queue", XDP{Packet: frame(64), IngressIfindex: 0x01020304, RxQueueIndex: 0x05060708},
			[]field{{4, 4, 64}, {12, 4, 0x01020304}, {16, 4, 0x05060708}}},
	} {
		ctx := c.xdp.context()
		wantBytes(t, c.name, view(&ctx), golden(t, 24, c.want))
	}
}

// TestGoldenSKBContext compares contexts with struct __sk_buff, as input and as output.
func TestGoldenSKBContext(t *testing.T) {
	full := SKB{
		Mark: 0x01010101, Priority: 0x02020202, IngressIfindex: 0x03030303, Ifindex: 0x04040404,
		CB: [5]uint32{1, 2, 3, 4, 5}, TStampNS: 0x0506070809, WireLen: 0x8000, GSOSegs: 0x7001, GSOSize: 0x6002,
		HWTStampNS: 0x0a0b0c0d0e,
	}
	want := golden(t, 192, []field{
		{8, 4, 0x01010101}, {32, 4, 0x02020202}, {36, 4, 0x03030303}, {40, 4, 0x04040404},
		{48, 4, 1}, {52, 4, 2}, {56, 4, 3}, {60, 4, 4}, {64, 4, 5},
		{152, 4, 0}, {160, 4, 0x8000}, {164, 4, 0x7001}, {176, 4, 0x6002},
	})
	binary.NativeEndian.PutUint64(want[152:], full.TStampNS)
	binary.NativeEndian.PutUint64(want[184:], full.HWTStampNS)
	var ctx skBuff
	ctx.encode(&full, 0)
	wantBytes(t, "every field", view(&ctx), want)
	if back := ctx.decode(); back != full {
		t.Errorf("came back as %+v", back)
	}
	var linear skBuff
	linear.encode(&SKB{}, 0x1234)
	wantBytes(t, "linear size", view(&linear), golden(t, 192, []field{{80, 4, 0x1234}}))
	// The kernel returns more fields than it takes. decode leaves out those that a
	// caller cannot set.
	for i := range view(&ctx) {
		view(&ctx)[i] = 0
	}
	copy(view(&ctx)[0:], golden(t, 8, []field{{0, 4, 64}, {4, 4, 3}}))
	if back := ctx.decode(); back != (SKB{}) {
		t.Errorf("len and pkt_type came back in %+v", back)
	}
}

// TestGoldenFlowKeys compares flow keys with struct bpf_flow_keys. Flags are input, all
// other fields are output.
func TestGoldenFlowKeys(t *testing.T) {
	in := flowKeys{flags: 0x01020304}
	wantBytes(t, "flags", view(&in), golden(t, 56, []field{{48, 4, 0x01020304}}))
	v4 := golden(t, 56, []field{
		{0, 2, 14}, {2, 2, 34}, {4, 2, 0x0800}, {6, 1, 1}, {7, 1, 1}, {9, 1, 17}, {10, 2, "\x08\x00"},
		{12, 2, "\x04\xd2"}, {14, 2, "\x00\x35"}, {16, 8, "\xc0\x00\x02\x01\xc6\x33\x64\x01"}, {48, 4, 5},
	})
	v6 := golden(t, 56, []field{
		{0, 2, 18}, {2, 2, 0x3a}, {4, 2, 0x86dd}, {8, 1, 1}, {9, 1, 6}, {10, 2, "\x86\xdd"},
		{12, 2, "\x00\x50"}, {14, 2, "\x1f\x90"}, {16, 4, "\x20\x01\x0d\xb8"}, {31, 1, 1},
		{32, 4, "\x20\x01\x0d\xb8"}, {47, 1, 2}, {52, 4, "\x00\x0a\xbc\xde"},
	})
	other := golden(t, 56, []field{{0, 2, 14}, {2, 2, 14}, {10, 2, "\x88\xb5"}})
	for _, c := range []struct {
		name string
		in   []byte
		want FlowKeys
	}{
		{"IPv4", v4, FlowKeys{
			NHOff: 14, THOff: 34, AddrProto: 0x0800, IsFrag: true, IsFirstFrag: true, IPProto: 17, NProto: 0x0800,
			Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.1"), SPort: 1234, DPort: 53,
			Flags: FlowParse1stFrag | FlowStopAtEncap,
		}},
		{"IPv6", v6, FlowKeys{
			NHOff: 18, THOff: 58, AddrProto: 0x86dd, IsEncap: true, IPProto: 6, NProto: 0x86dd,
			Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2"), SPort: 80, DPort: 8080,
			FlowLabel: 0xabcde,
		}},
		{"neither", other, FlowKeys{NHOff: 14, THOff: 14, NProto: 0x88b5}},
	} {
		var k flowKeys
		copy(view(&k), c.in)
		var got FlowKeys
		if k.decode(&got); got != c.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

// TestGoldenSkLookup compares contexts with struct bpf_sk_lookup. The remote port is in
// network byte order, and the local port is not.
func TestGoldenSkLookup(t *testing.T) {
	for _, c := range []struct {
		name string
		req  SkLookup
		want []field
	}{
		{"IPv4", SkLookup{Protocol: 6, Local: addrPort("192.0.2.1:80"), Remote: addrPort("198.51.100.2:1234")}, []field{
			{8, 4, 2}, {12, 4, 6}, {16, 4, "\xc6\x33\x64\x02"}, {36, 2, "\x04\xd2"}, {40, 4, "\xc0\x00\x02\x01"}, {60, 4, 80}}},
		{"IPv6", SkLookup{Protocol: 17, Local: addrPort("[2001:db8::1]:53"), Remote: addrPort("[2001:db8::2]:1234")}, []field{
			{8, 4, 10}, {12, 4, 17}, {20, 4, "\x20\x01\x0d\xb8"}, {35, 1, 2}, {36, 2, "\x04\xd2"}, {44, 4, "\x20\x01\x0d\xb8"}, {59, 1, 1}, {60, 4, 53}}},
		{"no remote", SkLookup{Local: addrPort("192.0.2.1:65535")}, []field{{8, 4, 2}, {40, 4, "\xc0\x00\x02\x01"}, {60, 4, 65535}}},
		{"no local", SkLookup{Remote: addrPort("192.0.2.1:80")}, []field{{8, 4, 2}, {16, 4, "\xc0\x00\x02\x01"}, {36, 2, "\x00\x50"}}},
		{"no local, IPv6", SkLookup{Remote: addrPort("[::1]:80")}, []field{{8, 4, 10}, {35, 1, 1}, {36, 2, "\x00\x50"}}},
		{"IPv4 in IPv6 stays IPv6", SkLookup{Local: addrPort("[::ffff:192.0.2.1]:80")}, []field{
			{8, 4, 10}, {54, 6, "\xff\xff\xc0\x00\x02\x01"}, {60, 4, 80}}},
	} {
		ctx := c.req.context()
		wantBytes(t, c.name, view(&ctx), golden(t, 72, c.want))
	}
	var out skLookup
	copy(view(&out), golden(t, 8, []field{{0, 8, 0x01020304}}))
	if out.cookie != 0x01020304 {
		t.Errorf("cookie %#x", out.cookie)
	}
}

// TestGoldenNetfilter compares contexts with struct nf_hook_state, and checks which
// family a packet has.
func TestGoldenNetfilter(t *testing.T) {
	v4, v6 := udp4(somewhere, 53), udp6(53)
	for _, c := range []struct {
		name string
		req  Netfilter
		want []field
	}{
		{"family of an IPv4 packet", Netfilter{Packet: v4}, []field{{0, 1, 0}, {1, 1, 2}}},
		{"family of an IPv6 packet", Netfilter{Packet: v6, Hook: NFForward}, []field{{0, 1, 2}, {1, 1, 10}}},
		{"family of a bare IPv4 packet", Netfilter{Packet: v4[14:], Hook: NFLocalOut}, []field{{0, 1, 3}, {1, 1, 2}}},
		{"family of a bare IPv6 packet", Netfilter{Packet: v6[14:], Hook: NFLocalOut}, []field{{0, 1, 3}, {1, 1, 10}}},
		{"family of choice", Netfilter{Packet: v4, Family: NFIPv6, Hook: NFPostRouting}, []field{{0, 1, 4}, {1, 1, 10}}},
	} {
		ctx := nfHookState{hook: uint8(c.req.Hook), pf: uint8(c.req.family())}
		wantBytes(t, c.name, view(&ctx), golden(t, 48, c.want))
	}
}

// TestGoldenDummyOps compares the arguments of bpf_dummy_ops: a pointer, and then
// numbers.
func TestGoldenDummyOps(t *testing.T) {
	state := new(int32)
	ctx := dummyOps{state: pointer{ptr: unsafe.Pointer(state)}, args: [11]uint64{1, 2, 3, 4}}
	wantBytes(t, "test_2", view(&ctx)[:40], golden(t, 40, []field{
		{0, 8, unsafe.Pointer(state)}, {8, 8, 1}, {16, 8, 2}, {24, 8, 3}, {32, 8, 4}}))
	wantBytes(t, "NULL", view(&dummyOps{})[:8], make([]byte, 8))
}

// kernelTypes returns the running kernel's description of its types.
func kernelTypes(t *testing.T) *btf.Spec {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, btf.ErrNotFound) || err != nil && lacks(err) {
		t.Skipf("this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// member is a field of one of the kernel's structs. Offset and size are in bytes.
type member struct{ offset, size int }

// members collects the fields of a struct, and those of its anonymous structs and
// unions.
func members(t *testing.T, all map[string]member, in []btf.Member, base int) {
	t.Helper()
	for _, m := range in {
		if m.BitfieldSize != 0 {
			continue
		}
		at := base + int(m.Offset.Bytes())
		if m.Name == "" {
			switch u := btf.UnderlyingType(m.Type).(type) {
			case *btf.Struct:
				members(t, all, u.Members, at)
			case *btf.Union:
				members(t, all, u.Members, at)
			}
			continue
		}
		n, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		all[m.Name] = member{at, n}
	}
}

// TestKernelLayouts compares our structs with those of the running kernel, field by
// field. It leaves out fields that this kernel does not have.
func TestKernelLayouts(t *testing.T) {
	spec := kernelTypes(t)
	var (
		s skBuff
		x xdpMD
		f flowKeys
		l skLookup
		n nfHookState
		a attr
	)
	at := func(offset uintptr, size uintptr) member { return member{int(offset), int(size)} }
	for _, c := range []struct {
		name string
		size int
		// since is a field which the kernels have that our struct follows.
		since  string
		fields map[string]member
	}{
		{"__sk_buff", 192, "", map[string]member{
			"len": at(unsafe.Offsetof(s.len), 4), "pkt_type": at(unsafe.Offsetof(s.pktType), 4),
			"mark": at(unsafe.Offsetof(s.mark), 4), "queue_mapping": at(unsafe.Offsetof(s.queueMapping), 4),
			"protocol": at(unsafe.Offsetof(s.protocol), 4), "vlan_present": at(unsafe.Offsetof(s.vlanPresent), 4),
			"vlan_tci": at(unsafe.Offsetof(s.vlanTCI), 4), "vlan_proto": at(unsafe.Offsetof(s.vlanProto), 4),
			"priority": at(unsafe.Offsetof(s.priority), 4), "ingress_ifindex": at(unsafe.Offsetof(s.ingressIfindex), 4),
			"ifindex": at(unsafe.Offsetof(s.ifindex), 4), "tc_index": at(unsafe.Offsetof(s.tcIndex), 4),
			"cb": at(unsafe.Offsetof(s.cb), unsafe.Sizeof(s.cb)), "hash": at(unsafe.Offsetof(s.hash), 4),
			"tc_classid": at(unsafe.Offsetof(s.tcClassid), 4), "data": at(unsafe.Offsetof(s.data), 4),
			"data_end": at(unsafe.Offsetof(s.dataEnd), 4), "napi_id": at(unsafe.Offsetof(s.napiID), 4),
			"family": at(unsafe.Offsetof(s.family), 4), "remote_ip4": at(unsafe.Offsetof(s.remoteIP4), 4),
			"local_ip4": at(unsafe.Offsetof(s.localIP4), 4), "remote_ip6": at(unsafe.Offsetof(s.remoteIP6), 16),
			"local_ip6": at(unsafe.Offsetof(s.localIP6), 16), "remote_port": at(unsafe.Offsetof(s.remotePort), 4),
			"local_port": at(unsafe.Offsetof(s.localPort), 4), "data_meta": at(unsafe.Offsetof(s.dataMeta), 4),
			"flow_keys": at(unsafe.Offsetof(s.flowKeys), 8), "tstamp": at(unsafe.Offsetof(s.tstamp), 8),
			"wire_len": at(unsafe.Offsetof(s.wireLen), 4), "gso_segs": at(unsafe.Offsetof(s.gsoSegs), 4),
			"sk": at(unsafe.Offsetof(s.sk), 8), "gso_size": at(unsafe.Offsetof(s.gsoSize), 4),
			"tstamp_type": at(unsafe.Offsetof(s.tstampType), 1), "hwtstamp": at(unsafe.Offsetof(s.hwtstamp), unsafe.Sizeof(s.hwtstamp)),
		}},
		{"xdp_md", 24, "", map[string]member{
			"data": at(unsafe.Offsetof(x.data), unsafe.Sizeof(x.data)), "data_end": at(unsafe.Offsetof(x.dataEnd), 4),
			"data_meta": at(unsafe.Offsetof(x.dataMeta), 4), "ingress_ifindex": at(unsafe.Offsetof(x.ingressIfindex), 4),
			"rx_queue_index": at(unsafe.Offsetof(x.rxQueueIndex), 4), "egress_ifindex": at(unsafe.Offsetof(x.egressIfindex), 4),
		}},
		{"bpf_flow_keys", 56, "", map[string]member{
			"nhoff": at(unsafe.Offsetof(f.nhoff), unsafe.Sizeof(f.nhoff)), "thoff": at(unsafe.Offsetof(f.thoff), 2),
			"addr_proto": at(unsafe.Offsetof(f.addrProto), 2), "is_frag": at(unsafe.Offsetof(f.isFrag), 1),
			"is_first_frag": at(unsafe.Offsetof(f.isFirstFrag), 1), "is_encap": at(unsafe.Offsetof(f.isEncap), 1),
			"ip_proto": at(unsafe.Offsetof(f.ipProto), 1), "n_proto": at(unsafe.Offsetof(f.nProto), unsafe.Sizeof(f.nProto)),
			"sport": at(unsafe.Offsetof(f.sport), 2), "dport": at(unsafe.Offsetof(f.dport), 2),
			"ipv4_src": at(unsafe.Offsetof(f.addrs), 4), "ipv4_dst": at(unsafe.Offsetof(f.addrs)+4, 4),
			"ipv6_src": at(unsafe.Offsetof(f.addrs), 16), "ipv6_dst": at(unsafe.Offsetof(f.addrs)+16, 16),
			"flags": at(unsafe.Offsetof(f.flags), 4), "flow_label": at(unsafe.Offsetof(f.flowLabel), unsafe.Sizeof(f.flowLabel)),
		}},
		{"bpf_sk_lookup", 72, "ingress_ifindex", map[string]member{
			"cookie": at(unsafe.Offsetof(l.cookie), 8), "family": at(unsafe.Offsetof(l.family), 4),
			"protocol": at(unsafe.Offsetof(l.protocol), 4), "remote_ip4": at(unsafe.Offsetof(l.remoteIP4), unsafe.Sizeof(l.remoteIP4)),
			"remote_ip6":  at(unsafe.Offsetof(l.remoteIP6), unsafe.Sizeof(l.remoteIP6)),
			"remote_port": at(unsafe.Offsetof(l.remotePort), unsafe.Sizeof(l.remotePort)),
			"local_ip4":   at(unsafe.Offsetof(l.localIP4), unsafe.Sizeof(l.localIP4)),
			"local_ip6":   at(unsafe.Offsetof(l.localIP6), unsafe.Sizeof(l.localIP6)),
			"local_port":  at(unsafe.Offsetof(l.localPort), 4), "ingress_ifindex": at(unsafe.Offsetof(l.ingressIfindex), 4),
		}},
		{"nf_hook_state", 48, "", map[string]member{
			"hook": at(unsafe.Offsetof(n.hook), unsafe.Sizeof(n.hook)), "pf": at(unsafe.Offsetof(n.pf), unsafe.Sizeof(n.pf)),
			"in": at(unsafe.Offsetof(n.in), 8), "out": at(unsafe.Offsetof(n.out), 8), "sk": at(unsafe.Offsetof(n.sk), 8),
			"net": at(unsafe.Offsetof(n.net), 8), "okfn": at(unsafe.Offsetof(n.okfn), 8),
		}},
		{"bpf_attr.test", 80, "", map[string]member{
			"prog_fd": at(unsafe.Offsetof(a.progFD), 4), "retval": at(unsafe.Offsetof(a.retval), 4),
			"data_size_in": at(unsafe.Offsetof(a.dataSizeIn), 4), "data_size_out": at(unsafe.Offsetof(a.dataSizeOut), 4),
			"data_in": at(unsafe.Offsetof(a.dataIn), unsafe.Sizeof(a.dataIn)), "data_out": at(unsafe.Offsetof(a.dataOut), 8),
			"repeat": at(unsafe.Offsetof(a.repeat), 4), "duration": at(unsafe.Offsetof(a.duration), 4),
			"ctx_size_in": at(unsafe.Offsetof(a.ctxSizeIn), 4), "ctx_size_out": at(unsafe.Offsetof(a.ctxSizeOut), 4),
			"ctx_in": at(unsafe.Offsetof(a.ctxIn), 8), "ctx_out": at(unsafe.Offsetof(a.ctxOut), 8),
			"flags": at(unsafe.Offsetof(a.flags), 4), "cpu": at(unsafe.Offsetof(a.cpu), 4),
			"batch_size": at(unsafe.Offsetof(a.batchSize), 4),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "nf_hook_state" {
				var ctx *btf.Struct
				if spec.TypeByName("bpf_nf_ctx", &ctx) != nil {
					t.Skip("this kernel has no netfilter programs (Linux 6.4), and an older layout")
				}
			}
			in, size := kernelStruct(t, spec, c.name)
			kernel := map[string]member{}
			members(t, kernel, in, 0)
			if _, ok := kernel[c.since]; c.since != "" && !ok {
				t.Skipf("this kernel has no field %s, and an older layout", c.since)
			}
			missing := 0
			for name, ours := range c.fields {
				theirs, ok := kernel[name]
				if !ok {
					t.Logf("this kernel has no field %s", name)
					missing++
					continue
				}
				if ours != theirs {
					t.Errorf("%s: %d bytes at %d, the kernel has %d bytes at %d", name, ours.size, ours.offset, theirs.size, theirs.offset)
				}
			}
			if missing == 0 && size != c.size {
				t.Errorf("%d bytes, the kernel has %d", c.size, size)
			}
		})
	}
}

// kernelStruct returns the members and the size of a struct of the kernel, or of the
// part of union bpf_attr for BPF_PROG_RUN.
func kernelStruct(t *testing.T, spec *btf.Spec, name string) ([]btf.Member, int) {
	t.Helper()
	if name == "bpf_attr.test" {
		var u *btf.Union
		if err := spec.TypeByName("bpf_attr", &u); err != nil {
			t.Fatal(err)
		}
		for _, m := range u.Members {
			if s, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok && m.Name == "test" {
				return s.Members, int(s.Size)
			}
		}
		t.Fatal("union bpf_attr has no struct test")
	}
	var s *btf.Struct
	if err := spec.TypeByName(name, &s); err != nil {
		t.Fatal(err)
	}
	return s.Members, int(s.Size)
}

// TestKernelDummyOps checks two assumptions of StructOps against the kernel: the state
// is one int, and each function has the known number of arguments.
func TestKernelDummyOps(t *testing.T) {
	spec := kernelTypes(t)
	var state, ops *btf.Struct
	if err := errors.Join(spec.TypeByName("bpf_dummy_ops_state", &state), spec.TypeByName("bpf_dummy_ops", &ops)); err != nil {
		t.Skipf("this kernel has no bpf_dummy_ops: %v", err)
	}
	if state.Size != uint32(unsafe.Sizeof(*StructOps{}.State)) {
		t.Errorf("the state has %d bytes", state.Size)
	}
	want := map[string]int{"test_1": 1, "test_2": 5, "test_sleepable": 1}
	for _, m := range ops.Members {
		p, ok := btf.UnderlyingType(m.Type).(*btf.Pointer)
		if !ok {
			continue
		}
		if f, ok := p.Target.(*btf.FuncProto); ok && len(f.Params) != want[m.Name] {
			t.Errorf("%s has %d arguments, want %d", m.Name, len(f.Params), want[m.Name])
		}
	}
}

// TestGoldenPointer checks that a pointer has the same 64 bits as the number.
func TestGoldenPointer(t *testing.T) {
	b := heap(make([]byte, 1))
	p := newAttr(0, b, nil, nil, nil, 0, 0).dataIn
	want := binary.NativeEndian.AppendUint64(nil, uint64(uintptr(unsafe.Pointer(&b[0]))))
	if !bytes.Equal(view(&p), want) {
		t.Errorf("got %x, want %x", view(&p), want)
	}
	if null := newAttr(0, nil, nil, nil, nil, 0, 0).dataIn; null != (pointer{}) || fmt.Sprintf("%x", view(&null)) != "0000000000000000" {
		t.Errorf("no bytes: %x", view(&null))
	}
}
