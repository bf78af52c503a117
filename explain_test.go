package progrun

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// shot is an attr for the kernel. Unlike Raw, it can have sizes without pointers, and
// pointers without sizes.
type shot struct {
	dataIn, dataOut, ctxIn, ctxOut                     []byte
	dataSizeIn, dataSizeOut, ctxSizeIn, ctxSizeOut     uint32
	nullDataIn, nullDataOut, nullCtxIn, nullCtxOut     bool
	repeat, duration, flags, cpu, batchSize, tailBytes uint32
}

func (s *shot) attr(fd uint32) longAttr {
	ptr := func(b []byte, null bool) pointer {
		if null {
			return pointer{}
		}
		return pointer{ptr: unsafe.Pointer(unsafe.SliceData(b))}
	}
	a := longAttr{attr: attr{
		progFD: fd, dataSizeIn: s.dataSizeIn, dataSizeOut: s.dataSizeOut,
		dataIn: ptr(s.dataIn, s.nullDataIn), dataOut: ptr(s.dataOut, s.nullDataOut),
		repeat: s.repeat, duration: s.duration, ctxSizeIn: s.ctxSizeIn, ctxSizeOut: s.ctxSizeOut,
		ctxIn: ptr(s.ctxIn, s.nullCtxIn), ctxOut: ptr(s.ctxOut, s.nullCtxOut),
		flags: s.flags, cpu: s.cpu, batchSize: s.batchSize,
	}}
	binary.NativeEndian.PutUint32(a.tail[:], s.tailBytes)
	return a
}

// fire makes the call, and explains its failure.
func (s *shot) fire(prog *ebpf.Program) error {
	a := s.attr(uint32(prog.FD()))
	before := newCall("Raw", rawNames, prog, &a.attr)
	errno := a.run()
	runtime.KeepAlive(s)
	if errno == 0 {
		return nil
	}
	before.left.retval, before.left.dataSizeOut = a.retval, a.dataSizeOut
	before.left.duration, before.duration = a.duration-s.duration, s.duration
	before.tail = s.tailBytes != 0
	if !s.nullCtxIn {
		copy(before.ctx[:], s.ctxIn[:min(len(s.ctxIn), int(s.ctxSizeIn))])
	}
	if !s.nullDataIn {
		copy(before.head[:], s.dataIn[:min(len(s.dataIn), int(s.dataSizeIn))])
	}
	return explain(errno, before)
}

// target is a program type to test: a legal shot, and how to vary it.
type target struct {
	file, program string
	legal         func() shot
	ctx           []ctxField // of the context
}

// ctxField is a field of a context, with values to try.
type ctxField struct {
	name      string
	off, size int
	values    []uint64
}

// legalShot returns a shot with a packet, which is legal for types that take it. ctx is
// the size of the type's context.
func legalShot(packet []byte, ctx int) shot {
	s := shot{dataIn: packet, dataSizeIn: uint32(len(packet)), nullDataOut: true, nullCtxIn: true, nullCtxOut: true}
	s.dataOut, s.ctxOut = make([]byte, roomy), make([]byte, 8192)
	s.ctxIn = make([]byte, max(ctx, pageSize+1))
	return s
}

func withCtx(s shot, size int) shot {
	s.nullCtxIn, s.ctxSizeIn = false, uint32(size)
	return s
}

var skbFields = []ctxField{
	{"mark", 8, 4, []uint64{7}}, {"priority", 32, 4, []uint64{9}}, {"ingress_ifindex", 36, 4, []uint64{3, 99}},
	{"ifindex", 40, 4, []uint64{1, 2, 77, 1 << 31}}, {"cb", 48, 4, []uint64{5}}, {"hash", 68, 4, []uint64{1}},
	{"data", 76, 4, []uint64{1}}, {"data_end", 80, 4, []uint64{14, 20, 64, 5000}}, {"data_meta", 140, 4, []uint64{4}},
	{"tstamp", 152, 8, []uint64{1 << 40}}, {"wire_len", 160, 4, []uint64{1, 50, 64, 65536, 65537}},
	{"gso_segs", 164, 4, []uint64{1, 65535, 65536}}, {"gso_size", 176, 4, []uint64{70000}},
	{"tstamp_type", 180, 1, []uint64{1}}, {"hwtstamp", 184, 8, []uint64{5}}, {"len", 0, 4, []uint64{64}},
}

func skbTarget(file, program string) target {
	return target{file, program, func() shot { return legalShot(frame(64), 192) }, skbFields}
}

var targets = []target{
	skbTarget("tc", "tc_verdict"), skbTarget("tc", "act_verdict"), skbTarget("socket_filter", "socket_filter"),
	skbTarget("cgroup_skb", "cgroup_ingress"), skbTarget("lwt", "lwt_in"), skbTarget("lwt", "lwt_out"),
	skbTarget("lwt", "lwt_xmit_head"), skbTarget("lwt", "lwt_seg6local"),
	{"xdp", "xdp_drop", func() shot { return legalShot(frame(64), 24) }, []ctxField{
		{"data", 0, 4, []uint64{4, 5, 32, 36, 216, 220, 252, 256, 300}}, {"data_end", 4, 4, []uint64{0, 3, 14, 64, 68, 100, 1 << 31}},
		{"data_meta", 8, 4, []uint64{1}}, {"ingress_ifindex", 12, 4, []uint64{1, 77, 1 << 31}},
		{"rx_queue_index", 16, 4, []uint64{1, 1 << 31}}, {"egress_ifindex", 20, 4, []uint64{1}},
	}},
	{"flow_dissector", "flow_dissect", func() shot { return legalShot(udp4(somewhere, 53), 56) }, []ctxField{
		{"nhoff", 0, 2, []uint64{14}}, {"flags", 48, 4, []uint64{1, 0xffffffff}}, {"flow_label", 52, 4, []uint64{1}},
	}},
	{"sk_lookup", "sk_lookup", func() shot {
		s := legalShot(nil, 72)
		s.nullDataIn = true
		s = withCtx(s, 72)
		s.ctxIn[8] = afInet
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			s.ctxIn[8], s.ctxIn[11] = 0, afInet
		}
		return s
	}, []ctxField{
		{"cookie", 0, 8, []uint64{1, 1 << 40}}, {"family", 8, 4, []uint64{0, 1, 2, 10, 0x10002}}, {"protocol", 12, 4, []uint64{6, 17, 70000}},
		{"remote_port", 36, 4, []uint64{80, 0x10000}}, {"local_port", 60, 4, []uint64{7777, 65535, 65536, 1 << 31}},
		{"ingress_ifindex", 64, 4, []uint64{1}}, {"end", 68, 4, []uint64{1}},
	}},
	{"netfilter", "netfilter_hook", func() shot {
		s := withCtx(legalShot(udp4(somewhere, 53), 48), 48)
		s.ctxIn[1] = afInet
		return s
	}, []ctxField{
		{"hook", 0, 1, []uint64{0, 1, 3, 200}}, {"pf", 1, 1, []uint64{0, 2, 7, 10}}, {"padding", 2, 1, []uint64{1}},
		{"in", 8, 8, []uint64{1}}, {"okfn", 40, 8, []uint64{1 << 40}},
	}},
	{"raw_tracepoint", "raw_tp", func() shot {
		s := legalShot(nil, 96)
		s.nullDataIn = true
		return withCtx(s, 16)
	}, nil},
	{"syscall", "syscall_add", func() shot {
		s := legalShot(nil, 32)
		s.nullDataIn = true
		return withCtx(s, 32)
	}, nil},
	{"struct_ops", "test_1", func() shot {
		s := legalShot(nil, 8)
		s.nullDataIn = true
		return withCtx(s, 8)
	}, nil},
}

// entropy makes choices, from the bytes of a fuzzer or from a random generator.
type entropy struct {
	bytes []byte
	rand  *rand.Rand
}

func (e *entropy) n(most int) int {
	if e.rand != nil {
		return e.rand.IntN(most)
	}
	if len(e.bytes) == 0 {
		return 0
	}
	b := int(e.bytes[0])
	e.bytes = e.bytes[1:]
	return b % most
}

func pick[T any](e *entropy, of ...T) T { return of[e.n(len(of))] }

// edges are sizes of packets near the limits: of live frames, of linear parts, of a
// page, and of the most fragments.
var edges = []int{
	xdpLinear - 152, xdpLinear - 151, xdpLinear - 112, xdpLinear - 111, xdpLinear, xdpLinear + 1,
	skbLinear, skbLinear + 1, pageSize, pageSize + 1,
	xdpLinear + defaultFrags*pageSize, xdpLinear + defaultFrags*pageSize + 1,
	skbLinear + defaultFrags*pageSize, skbLinear + defaultFrags*pageSize + 1,
}

// roomy is a size that is enough for the output of any packet.
var roomy = 30 * pageSize

// vary changes a few parts of a legal shot.
func (t *target) vary(e *entropy) shot {
	s := t.legal()
	page := uint32(pageSize)
	for range 1 + e.n(3) {
		switch e.n(16) {
		case 0:
			s.flags = pick(e, uint32(1), 2, 4, 8, 6, 1<<20, 1<<31)
		case 1:
			s.cpu = pick(e, uint32(1), 77, ^uint32(0))
		case 2:
			s.batchSize = pick(e, uint32(1), 64, 256, 257, 1<<31)
		case 3:
			s.repeat = pick(e, uint32(1), 2, 3)
		case 4:
			s.duration = 1
		case 5:
			s.tailBytes = 1
		case 6: // other sizes of data
			n := pick(e, append([]int{0, 1, 13, 14, 15, 19, 20, 33, 34, 40, 54, 100, 1500, 2*pageSize + 808, 22 * pageSize}, edges...)...)
			old := s.dataIn
			s.dataIn, s.dataSizeIn, s.nullDataIn = make([]byte, n), uint32(n), n == 0
			copy(s.dataIn, old)
		case 7:
			s.nullDataIn = !s.nullDataIn
		case 8: // another protocol
			if len(s.dataIn) >= 14 && !s.nullDataIn {
				s.dataIn = append([]byte(nil), s.dataIn...)
				binary.BigEndian.PutUint16(s.dataIn[12:], pick[uint16](e, ethPIP, ethPIPv6, 0x88b5, 0x8100, 0x0010))
			}
		case 9: // room for an output
			s.nullDataOut = pick(e, false, false, true)
			s.dataSizeOut = pick(e, uint32(0), 1, 10, 55, 56, 63, 64, 1000, 5000, uint32(roomy))
			if s.dataSizeOut == 0 {
				s.nullDataOut = true // otherwise the kernel would write without a limit
			}
		case 10: // a context
			s.nullCtxIn, s.ctxSizeIn = false, pick(e, uint32(3), 8, 12, 16, 24, 48, 56, 72, 88, 96, 104, 192, 200, page, page+1)
			if e.n(4) == 0 {
				s.nullCtxIn = true
			}
		case 11: // no context
			s.nullCtxIn, s.ctxSizeIn = true, pick(e, uint32(0), 0, 8)
		case 12: // room for the context after the run
			s.nullCtxOut, s.ctxSizeOut = false, pick(e, uint32(0), 1, 8, 24, 71, 72, 192, 8000)
			if e.n(4) == 0 {
				s.nullCtxOut = true
			}
		case 13: // bytes beyond the end of the context
			if s.ctxSizeIn > 0 {
				s.ctxIn[s.ctxSizeIn-1] = 1
			}
		default: // a field of the context
			if len(t.ctx) == 0 {
				continue
			}
			f := t.ctx[e.n(len(t.ctx))]
			if s.ctxSizeIn == 0 {
				s = withCtx(s, t.size())
				t.settle(&s)
			}
			put(s.ctxIn[f.off:f.off+f.size], pick(e, f.values...))
		}
	}
	if s.flags&testXDPLiveFrames != 0 && t.file == "xdp" {
		s.repeat = min(s.repeat, 3)
	}
	return s
}

// size returns the size of the target's context.
func (t *target) size() int {
	last := t.ctx[len(t.ctx)-1]
	return (last.off + last.size + 7) / 8 * 8
}

// settle sets the fields that every context must have.
func (t *target) settle(s *shot) {
	if t.file == "xdp" {
		put(s.ctxIn[4:8], uint64(s.dataSizeIn))
	}
}

func put(b []byte, v uint64) {
	switch len(b) {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(v))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(v))
	case 8:
		binary.NativeEndian.PutUint64(b, v)
	}
}

// mend makes the field that an explanation names legal, and no other.
func (t *target) mend(s *shot, field string) {
	legal := t.legal()
	switch field {
	case "DataIn":
		s.dataIn, s.dataSizeIn, s.nullDataIn = legal.dataIn, legal.dataSizeIn, legal.nullDataIn
		if t.file == "xdp" && s.ctxSizeIn > 0 && !s.nullCtxIn { // metadata and linear size count from the start of the data
			meta := binary.NativeEndian.Uint32(s.ctxIn)
			if meta <= 4096 {
				s.dataIn = make([]byte, meta+64)
				s.dataSizeIn, s.nullDataIn = meta+64, false
			}
			put(s.ctxIn[4:8], uint64(s.dataSizeIn))
		}
		if t.file == "netfilter" && s.ctxSizeIn >= 2 && s.ctxIn[1] == afInet6 {
			s.dataIn = udp6(53)
			s.dataSizeIn = uint32(len(s.dataIn))
		}
	case "DataOut":
		s.dataSizeOut, s.nullDataOut = uint32(roomy), false
		if strings.Contains("sk_lookup raw_tracepoint syscall", t.file) || s.flags&testXDPLiveFrames != 0 {
			s.dataSizeOut, s.nullDataOut = 0, true
		}
	case "CtxIn":
		s.ctxIn, s.ctxSizeIn, s.nullCtxIn = legal.ctxIn, legal.ctxSizeIn, legal.nullCtxIn
		if t.file == "xdp" && lacks(HaveXDPContext()) {
			s.ctxSizeOut, s.nullCtxOut = 0, true
		} else if t.file == "xdp" && s.ctxSizeOut > 0 {
			*s = withCtx(*s, 24)
			t.settle(s)
		}
	case "CtxOut":
		s.ctxSizeOut, s.nullCtxOut = 8000, false
		if strings.Contains("raw_tracepoint syscall", t.file) || s.flags&testXDPLiveFrames != 0 || s.nullCtxIn {
			s.ctxSizeOut, s.nullCtxOut = 0, true
		}
	case "Flags":
		s.flags = 0
	case "CPU":
		s.cpu = 0
		if s.flags == testRunOnCPU {
			s.cpu = 0
		}
	case "BatchSize":
		s.batchSize = 0
	case "Repeat":
		s.repeat = 0
	case "duration":
		s.duration = 0
	case "Tail":
		s.tailBytes = 0
	default:
		t.mendContext(s, strings.TrimPrefix(field, "CtxIn."))
	}
}

func (t *target) mendContext(s *shot, name string) {
	for _, f := range t.ctx {
		if f.name != name {
			continue
		}
		var legal uint64
		switch {
		case t.file == "xdp" && name == "data_end":
			legal = uint64(s.dataSizeIn)
		case t.file == "sk_lookup" && name == "family":
			legal = afInet
		case t.file == "netfilter" && name == "pf":
			legal = afInet
			if len(s.dataIn) >= 14 && binary.BigEndian.Uint16(s.dataIn[12:]) == ethPIPv6 {
				legal = afInet6
			}
		}
		s.nullCtxIn = false
		s.ctxSizeIn = max(s.ctxSizeIn, uint32(f.off+f.size))
		put(s.ctxIn[f.off:f.off+f.size], legal)
	}
}

// tally counts the outcomes of the shots at a target.
type tally struct{ tried, refused, explained, wrong, unexplained int }

func (c *tally) add(d tally) {
	c.tried += d.tried
	c.refused += d.refused
	c.explained += d.explained
	c.wrong += d.wrong
	c.unexplained += d.unexplained
}

// judge fires a shot. If the kernel refuses it, there must be an explanation, and it
// must be true: when the named field is mended, the kernel takes the request, or
// refuses it for another field.
func (t *target) judge(tb testing.TB, prog *ebpf.Program, s shot) tally {
	describe := func() string { return strings.ReplaceAll(fmt.Sprintf("%+v", s.terse()), " 0 0 0 0 0 0 0 0", " ..") }
	fired := s // a copy for the log, since a program writes to its context
	fired.ctxIn = append([]byte(nil), s.ctxIn...)
	err := fired.fire(prog)
	if err == nil {
		return tally{tried: 1}
	}
	var e *Error
	if !errors.As(err, &e) || e.Rule == "" || e.Err == nil {
		tb.Errorf("%s %s: %v is not explained", t.program, describe(), err)
		return tally{tried: 1, refused: 1, wrong: 1}
	}
	if errors.Is(err, enotsupp) {
		return tally{tried: 1, refused: 1, explained: 1}
	}
	if e.Field == "" {
		tb.Logf("%s %s: unexplained: %v", t.program, describe(), err)
		return tally{tried: 1, refused: 1, unexplained: 1}
	}
	mended := s
	mended.ctxIn = append([]byte(nil), s.ctxIn...)
	t.mend(&mended, e.Field)
	after := mended.fire(prog)
	var e2 *Error
	if after != nil && (!errors.As(after, &e2) || e2.Field == e.Field && e2.Rule == e.Rule) {
		tb.Errorf("%s %s:\n\t%v\n\tbut with that mended: %+v\n\t%v", t.program, describe(), err, mended.terse(), after)
		return tally{tried: 1, refused: 1, explained: 1, wrong: 1}
	}
	return tally{tried: 1, refused: 1, explained: 1}
}

// terse returns a shot without its buffers, for the log.
func (s shot) terse() shot {
	s.dataIn, s.dataOut, s.ctxOut = s.dataIn[:min(len(s.dataIn), 14)], nil, nil
	s.ctxIn = s.ctxIn[:min(len(s.ctxIn), int(s.ctxSizeIn), 200)]
	return s
}

var shots = flag.Int("shots", 2000, "how many requests TestDifferential makes of each program, or a tenth of it with -short")

func shotsOfEach() int {
	if testing.Short() {
		return *shots / 10
	}
	return *shots
}

// TestDifferential tests the explanations against the kernel, in a network namespace.
// Nothing may keep a reference to its interface afterwards.
func TestDifferential(t *testing.T) {
	wantQuietKernel(t)
	for _, target := range targets {
		t.Run(target.program, func(t *testing.T) {
			o := load(t, target.file, target.program)
			if target.file == "xdp" && HaveXDPLiveFrames() == nil {
				h, err := NewHold(o.Program)
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
			}
			var all tally
			inNetNS(t, func() { all = target.judgeMany(t, o.Program, shotsOfEach()) })
			t.Logf("%d tried, %d refused, %d explained, %d wrongly, %d unexplained", all.tried, all.refused, all.explained, all.wrong, all.unexplained)
			if all.refused == 0 || all.refused == all.tried && !errors.Is(HaveProgramRun(o.Type()), ebpf.ErrNotSupported) {
				t.Errorf("%d of %d refused: that tests nothing", all.refused, all.tried)
			}
			if all.unexplained*100 > all.refused {
				t.Errorf("%d of %d refusals are unexplained", all.unexplained, all.refused)
			}
		})
	}
}

// TestEveryContextByte sets each byte of a context, one at a time. If the kernel
// refuses it, the explanation must name the byte or its field.
func TestEveryContextByte(t *testing.T) {
	for _, target := range targets {
		if len(target.ctx) == 0 {
			continue
		}
		t.Run(target.program, func(t *testing.T) {
			o := load(t, target.file, target.program)
			if err := HaveProgramRun(o.Type()); lacks(err) {
				skipOnThisKernel(t, target.program, err)
			}
			size := int(kindOf(o.Type()).ctxSize)
			refused := 0
			for at := range size {
				s := withCtx(target.legal(), size)
				s.ctxIn = make([]byte, 8192)
				copy(s.ctxIn, target.legal().ctxIn)
				target.settle(&s)
				s.ctxIn[at] |= 0x80
				c := target.judge(t, o.Program, s)
				refused += c.refused
				if c.unexplained > 0 {
					t.Errorf("byte %d: unexplained", at)
				}
			}
			if refused == 0 {
				t.Error("the kernel refused none")
			}
		})
	}
}

// judgeMany fires shots in the namespace of the calling thread. It adds the interface
// 77, a veth, and deletes it.
func (t *target) judgeMany(tb testing.TB, prog *ebpf.Program, shots int) (all tally) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = "seventyseven", 77
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}
	if err := netlink.LinkAdd(veth); err != nil {
		tb.Errorf("add a veth: %v", err)
		return all
	}
	up(tb, "seventyseven")
	e := &entropy{rand: rand.New(rand.NewPCG(1, 2))}
	for range shots {
		all.add(t.judge(tb, prog, t.vary(e)))
		if all.wrong > 10 || all.unexplained*100 > shots {
			tb.Error("too many")
			break
		}
	}
	begin := time.Now()
	if err := netlink.LinkDel(veth); err != nil {
		tb.Errorf("delete the veth: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		tb.Errorf("it took %v to delete an interface: something held on to it", took)
	}
	return all
}

// wantQuietKernel checks that the kernel logs no complaint during a test, and leaks no
// memory.
func wantQuietKernel(t *testing.T) {
	t.Helper()
	needPrivilege(t)
	log, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Seek(log, 0, unix.SEEK_END)
	}
	if err != nil {
		t.Fatalf("read the kernel's log: %v", err)
	}
	before := kernelMemory(t)
	t.Cleanup(func() {
		defer unix.Close(log)
		record := make([]byte, 8192)
		for {
			n, err := unix.Read(log, record)
			if err != nil {
				break // EAGAIN at the end
			}
			if complains(string(record[:n])) {
				t.Errorf("the kernel says %s", record[:n])
			}
		}
		const slack = 64 << 10 // others use the machine too
		if after := kernelMemory(t); after > before+slack {
			t.Errorf("the kernel used %d KiB before and %d KiB after", before, after)
		}
	})
}

// complains reports whether a record of the kernel's log is a complaint.
func complains(record string) bool {
	for _, bad := range []string{"WARNING:", "BUG:", "kernel BUG at", "Oops", "unregister_netdevice", "stalled pool"} {
		if strings.Contains(record, bad) {
			return true
		}
	}
	return false
}

// TestComplaints checks complains with records of kernels in trouble.
func TestComplaints(t *testing.T) {
	for record, want := range map[string]bool{
		"4,1234,5678,-;------------[ cut here ]------------":                                 false,
		"2,1235,5678,-;kernel BUG at net/core/skbuff.c:2812!":                                true,
		"4,1236,5678,-;WARNING: CPU: 1 PID: 77 at net/bpf/test_run.c:100":                    true,
		"1,1237,5678,-;BUG: kernel NULL pointer dereference, address: 0000000000000000":      true,
		"4,1238,5678,-;Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI":                    true,
		"0,1239,5678,-;unregister_netdevice: waiting for lo to become free. Usage count = 2": true,
		"6,1240,5678,-;bridge: filtering via arp/ip/ip6tables is no longer available":        false,
	} {
		if complains(record) != want {
			t.Errorf("%s: %v", record, !want)
		}
	}
}

// kernelMemory returns how much memory the kernel cannot reclaim, in KiB.
func kernelMemory(t *testing.T) int {
	t.Helper()
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "SUnreclaim: %d kB", &kib); n == 1 {
			return kib
		}
	}
	t.Fatal("/proc/meminfo has no SUnreclaim")
	return 0
}

// typed is a type of request to try, legal or made from choices. An illegal request may
// break several rules at once.
type typed struct {
	file, program string
	legal         func() any
	vary          func(e *entropy) any
}

var (
	someSizes   = append([]int{0, 1, 13, 14, 15, 33, 34, 64, 64, 64, 100, 1500, 2*pageSize + 808, 20 * pageSize, maxPacket + 1}, edges...)
	someNumbers = []int{0, 0, 0, 0, 1, 2, 14, 63, 64, 65, 65535, 65536, 65537, 70_000, -1, -1 << 31, 1<<31 - 1}
	someRepeats = []int{0, 1, 2, 3, -1}
)

// somePacket returns a packet of one of many sizes and protocols.
func somePacket(e *entropy) []byte {
	packet := make([]byte, someSizes[e.n(len(someSizes))])
	if len(packet) >= ethHLen {
		binary.BigEndian.PutUint16(packet[12:], pick[uint16](e, 0x88b5, 0x88b5, ethPIP, ethPIPv6))
	}
	return packet
}

func someSKB(e *entropy) (s SKB) {
	number := func() int { return pick(e, 0, 0, pick(e, someNumbers...)) }
	s.Mark, s.Priority = uint32(e.n(3)), uint32(e.n(3))
	s.IngressIfindex, s.Ifindex, s.WireLen, s.GSOSegs, s.GSOSize = number(), number(), number(), number(), number()
	return s
}

func someSKBRequest(e *entropy) skbRequest {
	return skbRequest{Packet: somePacket(e), Context: someSKB(e), ChecksumComplete: e.n(4) == 0,
		LinearSize: pick(e, 0, 0, 0, pick(e, someNumbers...)), Repeat: pick(e, someRepeats...), NoOutput: e.n(2) == 0}
}

var typedTargets = []typed{
	{"xdp", "xdp_pass", func() any { return XDP{Packet: frame(64)} }, func(e *entropy) any {
		return XDP{Packet: somePacket(e), Metadata: make([]byte, pick(e, 0, 0, 0, 3, 4, 5, 32, 36, 216, 220, 300)),
			IngressIfindex: pick(e, 0, 0, 1, 77, 99, -1, 1<<31-1), RxQueueIndex: pick(e, 0, 0, 0, 1, 99, -1),
			LinearSize: pick(e, 0, 0, pick(e, someNumbers...)), Repeat: pick(e, 0, 0, 0, 0, 1, -1), NoOutput: e.n(2) == 0}
	}},
	{"tc", "tc_verdict", func() any { return TC{Packet: frame(64)} }, func(e *entropy) any { return TC(someSKBRequest(e)) }},
	{"socket_filter", "socket_filter", func() any { return SocketFilter{Packet: frame(64)} }, func(e *entropy) any { return SocketFilter(someSKBRequest(e)) }},
	{"cgroup_skb", "cgroup_egress", func() any { return CGroupSKB{Packet: frame(64)} }, func(e *entropy) any { return CGroupSKB(someSKBRequest(e)) }},
	{"lwt", "lwt_out", func() any { return LWT{Packet: frame(64)} }, func(e *entropy) any {
		r := someSKBRequest(e)
		return LWT{r.Packet, r.Context, r.ChecksumComplete, r.Repeat, r.Out, r.NoOutput}
	}},
	{"flow_dissector", "flow_dissect", func() any { return FlowDissector{Packet: frame(64)} }, func(e *entropy) any {
		return FlowDissector{Packet: somePacket(e), Flags: pick[FlowDissectorFlags](e, 0, 1, 1<<31), Repeat: pick(e, someRepeats...)}
	}},
	{"sk_lookup", "sk_lookup", func() any { return SkLookup{Local: addrPort("192.0.2.1:1")} }, func(e *entropy) any {
		address := func() netip.AddrPort {
			return pick(e, netip.AddrPort{}, addrPort("192.0.2.1:80"), addrPort("[2001:db8::1]:65535"), addrPort("[fe80::1%lo]:1"))
		}
		return SkLookup{Protocol: pick(e, someNumbers...), Local: address(), Remote: address(), Repeat: pick(e, someRepeats...)}
	}},
	{"netfilter", "netfilter_hook", func() any { return Netfilter{Packet: udp4(somewhere, 1)} }, func(e *entropy) any {
		return Netfilter{Packet: pick(e, somePacket(e), udp4(somewhere, 1), udp6(1)), Hook: NFHook(e.n(7)),
			Family: pick(e, NFFamily(0), NFIPv4, NFIPv6, NFFamily(7)), Repeat: pick(e, someRepeats...)}
	}},
	{"raw_tracepoint", "raw_tp", func() any { return RawTracepoint{Args: make([]uint64, 2)} }, func(e *entropy) any {
		return RawTracepoint{Args: make([]uint64, e.n(14)), CPU: pick(e, CPU{}, OnCPU(0), OnCPU(1), OnCPU(4000), OnCPU(-1), OnCPU(1<<31-1))}
	}},
	{"syscall", "syscall_add", func() any { return Syscall{Context: new(addContext)} }, func(e *entropy) any {
		return Syscall{Context: pick[any](e, nil, new(addContext), new(uint64), new([65535]byte), new([65536]byte), new(bool), new(int), new(struct{}), addContext{})}
	}},
	{"struct_ops", "test_1", func() any { return StructOps{State: new(int32)} }, func(e *entropy) any {
		return StructOps{State: pick(e, nil, new(int32)), Args: make([]uint64, pick(e, 0, 0, 1, 4, 11, 12))}
	}},
}

// runAny runs a request of any type.
func runAny(req any, prog *ebpf.Program) error {
	out := reflect.ValueOf(req).MethodByName("Run").Call([]reflect.Value{reflect.ValueOf(prog)})
	err, _ := out[1].Interface().(error)
	return err
}

// judge runs a typed request. If it is refused, the error must name the wrong field:
// with only that field as in a legal request, it must not be refused again for the same
// reason.
func (c *typed) judge(t testing.TB, prog *ebpf.Program, req any) tally {
	err := runAny(req, prog)
	if err == nil {
		return tally{tried: 1}
	}
	var e *Error
	if !errors.As(err, &e) || e.Err == nil || e.Rule == "" {
		t.Errorf("%v is not explained", err)
		return tally{tried: 1, refused: 1, wrong: 1}
	}
	if e.Field == "" {
		t.Logf("unexplained: %v", err)
		return tally{tried: 1, refused: 1, unexplained: 1}
	}
	mended := reflect.New(reflect.TypeOf(req)).Elem()
	mended.Set(reflect.ValueOf(req))
	legal, field := reflect.ValueOf(c.legal()), mended
	for name := range strings.SplitSeq(e.Field, ".") {
		field, legal = field.FieldByName(name), legal.FieldByName(name)
	}
	field.Set(legal)
	var e2 *Error
	after := runAny(mended.Interface(), prog)
	if after != nil && (!errors.As(after, &e2) || e2.Field == e.Field && e2.Rule == e.Rule) {
		t.Errorf("%v\n\tbut with that mended: %v", err, after)
		return tally{tried: 1, refused: 1, explained: 1, wrong: 1}
	}
	return tally{tried: 1, refused: 1, explained: 1}
}

// TestDifferentialTyped is like TestDifferential, with typed requests.
func TestDifferentialTyped(t *testing.T) {
	for _, c := range typedTargets {
		t.Run(c.program, func(t *testing.T) {
			o := load(t, c.file, c.program)
			if err := HaveProgramRun(o.Type()); lacks(err) {
				skipOnThisKernel(t, c.program, err)
			}
			e := &entropy{rand: rand.New(rand.NewPCG(5, 6))}
			var all tally
			for range shotsOfEach() {
				all.add(c.judge(t, o.Program, c.vary(e)))
				if all.wrong > 10 {
					t.Fatal("too many")
				}
			}
			t.Logf("%d tried, %d refused, %d explained, %d wrongly, %d unexplained", all.tried, all.refused, all.explained, all.wrong, all.unexplained)
			if all.refused == 0 || all.refused == all.tried || all.unexplained*100 > all.refused {
				t.Errorf("%d of %d refused, %d unexplained", all.refused, all.tried, all.unexplained)
			}
		})
	}
}

// FuzzRaw is like TestDifferential, with the choices of a fuzzer.
func FuzzRaw(f *testing.F) {
	for i := range targets {
		for choice := range 16 {
			f.Add([]byte{byte(i), 0, byte(choice), 0, 1, 2, 3})
			f.Add([]byte{byte(i), 2, byte(choice), 3, 14, 2, 15, 7, 1})
		}
	}
	programs := make(map[string]*object)
	f.Fuzz(func(t *testing.T, choices []byte) {
		if len(choices) == 0 {
			return
		}
		target := targets[int(choices[0])%len(targets)]
		o := programs[target.program]
		if o == nil {
			needPrivilege(t)
			var err error
			if o, err = loadObject(target.file, target.program); err != nil {
				skipUnloadable(t, target.file, target.program, err)
			}
			programs[target.program] = o
		}
		s := target.vary(&entropy{bytes: choices[1:]})
		if target.file == "xdp" {
			s.repeat = min(s.repeat, 1)
		}
		target.judge(t, o.Program, s)
	})
	for _, o := range programs {
		o.close()
	}
}

// TestRefusedBeforeTheCall checks that the kernel refuses what the library refuses
// without asking it. The exceptions are listed here with their reasons.
func TestRefusedBeforeTheCall(t *testing.T) {
	reasons := map[string]string{
		"Context.GSOSize":        "the kernel keeps the low 16 bits",
		"Protocol":               "the kernel keeps the low 16 bits",
		"Hook":                   "the kernel runs the program for a hook that does not exist",
		"IngressIfindex":         "a negative number, or one that the kernel takes for another",
		"RxQueueIndex":           "a negative number",
		"Repeat":                 "a negative number, or one of more than 32 bits",
		"LinearSize":             "a negative number; kernels that do not know the field refuse it otherwise",
		"Context.Ifindex":        "a negative number",
		"Context.WireLen":        "a negative number",
		"Context.GSOSegs":        "a negative number",
		"Context.IngressIfindex": "any number is taken, and means nothing",
	}
	e := &entropy{rand: rand.New(rand.NewPCG(3, 4))}
	xdp, tc := load(t, "xdp", "xdp_pass"), load(t, "tc", "tc_verdict")
	numbers := []int{0, 0, 0, 1, 14, 64, 65535, 65536, 65537, -1, -1 << 31, 1<<31 - 1}
	refused := 0
	for range 5000 {
		packet := make([]byte, pick(e, 0, 1, 13, 14, 15, 64, skbLinear, pageSize-96, 20*pageSize, maxPacket+1))
		x := XDP{Packet: packet, Metadata: make([]byte, pick(e, 0, 0, 4, 5, 300)), IngressIfindex: pick(e, 0, 1, -1, 1<<31-1),
			RxQueueIndex: pick(e, 0, 0, 1, -1), LinearSize: pick(e, numbers...), Repeat: pick(e, 0, 1, -1)}
		if err := x.check(); err != nil {
			refused++
			in := x.context()
			a := x.attr(uint32(xdp.FD()), append(append([]byte(nil), x.Metadata...), packet...), nil, view(&in), nil)
			a.repeat = min(a.repeat, 3)
			wantRefusedToo(t, err, a.run(), reasons, x.IngressIfindex < 0 || x.LinearSize < 0 || x.RxQueueIndex < 0 || x.Repeat < 0)
		}
		s := skbRequest{Packet: packet, LinearSize: pick(e, numbers...), Repeat: pick(e, 0, 1, -1), Context: SKB{
			Ifindex: pick(e, 0, 1, -1, 1<<31-1), WireLen: pick(e, numbers...), GSOSegs: pick(e, numbers...), GSOSize: pick(e, numbers...)}}
		if err := s.check("TC"); err != nil {
			refused++
			var in skBuff
			in.encode(&s.Context, s.LinearSize)
			a := s.attr(uint32(tc.FD()), nil, view(&in), nil)
			a.repeat = min(a.repeat, 3)
			wantRefusedToo(t, err, a.run(), reasons, false)
		}
	}
	if refused < 1000 {
		t.Errorf("only %d requests were refused", refused)
	}
}

func wantRefusedToo(t *testing.T, err error, errno syscall.Errno, reasons map[string]string, negative bool) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	if errno == 0 && reasons[e.Field] == "" && !negative {
		t.Errorf("the kernel runs what is refused with: %v", err)
	}
}

var write = flag.Bool("write", false, "write docs/rules.md")

// TestRulesTable checks that docs/rules.md is what rulesTable returns.
func TestRulesTable(t *testing.T) {
	const file = "docs/rules.md"
	want := rulesTable()
	if *write {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the tables of rules.go say: run go test -run TestRulesTable . -write", file)
	}
}

// rulesTable returns the rules as documentation.
func rulesTable() string {
	var b strings.Builder
	b.WriteString("# What the kernel refuses\n\n" +
		"When the kernel refuses a run, progrun looks up the reason in these rules, which come from rules.go. Each table\n" +
		"has the rules of one handler of BPF_PROG_RUN, in the order of the kernel's checks. The field has the kernel's name;\n" +
		"`ctx.` stands before fields of the context. The kernel checks the rules of every program type first, then those of\n" +
		"the program's type, and last those of copying. `TestDifferential` proves the rules against the running kernel.\n")
	section := func(title string, rules []rule) {
		fmt.Fprintf(&b, "\n## %s\n\n| errno | field | rule |\n|---|---|---|\n", title)
		for _, r := range rules {
			field := r.field
			if field == "" {
				field = "–"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", errnoName(r.errno), field, r.text)
		}
	}
	section("Every program type", attrRules())
	for kinds := programKinds[:]; len(kinds) > 0; {
		var names []string
		same := func(k programKind) bool {
			return reflect.ValueOf(k.rules).Pointer() == reflect.ValueOf(kinds[0].rules).Pointer()
		}
		for _, k := range kinds {
			for t := ebpf.ProgramType(0); t < 64; t++ {
				if same(k) && k.types.has(t) && t != ebpf.LWTSeg6Local {
					names = append(names, t.String())
				}
			}
		}
		if kinds[0].rules != nil { // TestProgramKinds says which row has none
			section(strings.Join(names, ", "), kinds[0].rules())
		}
		kinds = slices.DeleteFunc(slices.Clone(kinds), same)
	}
	section("Copying data and contexts", copyRules())
	b.WriteString("\n## What crashes the kernel\n\n" +
		"No rule prevents these, and nothing can tell beforehand. Try such programs in a virtual machine.\n\n" +
		"- `ChecksumComplete`, with a program that leaves the packet ending before its network header. That affects every\n" +
		"  kernel that has the flag, up to 7.2 at least.\n" +
		"- `LWT`, with an lwt_xmit program that calls bpf_lwt_push_encap, on kernels without 972787479ee7 (Linux 7.1, and\n" +
		"  backports such as 6.1.175).\n")
	return b.String()
}

// errnoName returns the name of an errno. If there are two, it returns the kernel's.
func errnoName(errno syscall.Errno) string {
	if errno == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(errno)
}

// TestSight runs programs that can see all or a part of their packets.
func TestSight(t *testing.T) {
	need(t, HaveXDPMultiBuffer())
	linear, frags := load(t, "xdp", "xdp_pass"), load(t, "xdp_frags", "xdp_frags_pass")
	for _, c := range []struct {
		prog *object
		n    int
		want Sight
	}{{linear, 64, SightWhole}, {frags, 64, SightWhole}, {linear, 2 * pageSize, SightPart}, {frags, 2 * pageSize, SightWhole}} {
		for range 2 { // the second answer is a kept one
			if res, err := (XDP{Packet: frame(c.n)}).Run(c.prog.Program); err != nil || res.Sight != c.want {
				t.Errorf("%s on %d bytes: sight %s, %v, want %s", c.prog, c.n, res.Sight, err, c.want)
			}
		}
	}
	cgroup := load(t, "cgroup_skb", "cgroup_ingress")
	res, err := CGroupSKB{Packet: udp4(somewhere, 53)}.Run(cgroup.Program)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[CGroupSKBVerdict]Sight{CGroupSKBAllow: SightWhole, CGroupSKBDrop: SightPart}[res.Verdict]; res.Sight != want {
		t.Errorf("a program that allows what it can see says %s, sight %s", res.Verdict, res.Sight)
	}
}

// TestRawIgnored sets fields that the kernel ignores.
func TestRawIgnored(t *testing.T) {
	xdp, tp := load(t, "xdp", "xdp_pass"), load(t, "raw_tracepoint", "raw_tp_noargs")
	for _, c := range []struct {
		o    *object
		raw  Raw
		want string
	}{
		{xdp, Raw{DataIn: frame(64), CPU: 77}, "CPU"},
		{tp, Raw{Flags: 0x100}, "Flags"},
		{xdp, Raw{DataIn: frame(64)}, ""},
	} {
		if _, err := c.raw.Run(c.o.Program); err != nil {
			t.Errorf("%+v: %v", c.raw, err)
		}
		if got := strings.Join(c.raw.Ignored(c.o.Type()), ", "); got != c.want {
			t.Errorf("%+v: %q is ignored, want %q", c.raw, got, c.want)
		}
	}
}
