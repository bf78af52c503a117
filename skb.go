package progrun

import (
	"bytes"
	"math"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// TC runs a sched_cls or sched_act program on a packet. The tc, tcx and netkit
// hooks all run programs of these types. The program's data begins with the
// Ethernet header. Since Linux 4.12. See bpf_prog_test_run_skb in the kernel's
// net/bpf/test_run.c.
type TC struct {
	// Packet is the frame, from its Ethernet header on. It has at least 14 bytes,
	// or 34 or 54 if its EtherType is that of IPv4 or IPv6. It has at most 3,712
	// bytes with pages of 4 KiB, or 16,000 with pages of 16 KiB (EINVAL). Since
	// Linux 6.19 it has at most 17 pages more (ENOMEM).
	Packet []byte
	// Context is the packet's __sk_buff. Its zero value means none.
	Context SKB
	// ChecksumComplete makes the kernel compute skb->csum before the run, as if
	// the interface had, and check it after the run. The run fails with EBADMSG if
	// the program changed the packet but not the checksum. Since Linux 6.11, and
	// in some stable kernels: see [HaveChecksumComplete].
	//
	// A program that leaves the packet ending before its network header crashes
	// the kernel in that check, and the run never returns. For example, it prepends
	// 70 bytes with bpf_skb_change_head and then cuts the packet to 64 bytes with
	// bpf_skb_change_tail. All kernels that have the check are affected, up to 7.2
	// at least (seen on 6.1.192, 6.12.117, 6.18.44 and 7.2.13). Run cannot detect
	// this beforehand: try such programs in a virtual machine.
	ChecksumComplete bool
	// LinearSize is how many bytes of the packet lie in the linear part of the
	// skb. 0 means as many as fit. Since Linux 6.19: see [HaveNonLinearSKB].
	LinearSize int
	// Repeat is how often the program runs. 0 means once. The package
	// documentation says what happens to the packet in between.
	Repeat int
	// Out is the buffer for the result's Packet. It grows as with append, and may
	// be nil.
	Out []byte
	// NoOutput asks for the verdict only: neither Packet nor Context is returned.
	NoOutput bool
}

// TCResult is the result of a run of [TC].
type TCResult struct {
	// Verdict is what the program returned.
	Verdict TCVerdict
	// Packet is the packet as the program left it. It lies in the request's Out if
	// that was large enough. It lacks a VLAN tag that the program pushed: the
	// kernel keeps the outermost tag beside the packet.
	Packet []byte
	// Context is the context as the program left it.
	Context SKB
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

// Run runs prog, of type [ebpf.SchedCLS] or [ebpf.SchedACT].
func (r TC) Run(prog *ebpf.Program) (res TCResult, err error) {
	var retval uint32
	retval, res.Packet, res.PerRun, err = (*skbRequest)(&r).run("TC", tcTypes, prog, &res.Context)
	res.Verdict = TCVerdict(retval)
	return res, err
}

func (r TC) room() int { return room(len(r.Packet), r.Out, r.NoOutput) }

func (TC) outIn(r *TC) *[]byte { return &r.Out }

func (r TC) keep(memory *[]byte) TC {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (TC) packetIn(r *TC) *[]byte { return &r.Packet }

func (r TC) repeated(n int, noOutput bool) TC {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r TC) timing(res TCResult) (time.Duration, bool) {
	return res.PerRun, !bytes.Equal(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

// SocketFilter runs a socket filter on a packet. Packet begins with an Ethernet
// header, but the program's data begins after it, as on a socket that is not
// AF_PACKET. The header comes back as 14 zero bytes. Since Linux 4.16. The fields
// are those of [TC].
type SocketFilter struct {
	// Packet is the frame, as in [TC].
	Packet []byte
	// Context is the packet's __sk_buff. Its zero value means none.
	Context SKB
	// ChecksumComplete makes the kernel check the packet's checksum after the run.
	// See [TC], also for a kernel bug that it can trigger.
	ChecksumComplete bool
	// LinearSize is how many bytes of the packet lie in the linear part, as in
	// [TC].
	LinearSize int
	// Repeat is how often the program runs. 0 means once.
	Repeat int
	// Out is the buffer for the result's Packet. It grows as with append, and may
	// be nil.
	Out []byte
	// NoOutput asks for the verdict only: neither Packet nor Context is returned.
	NoOutput bool
}

// SocketFilterResult is the result of a run of [SocketFilter]. See also [TCResult].
type SocketFilterResult struct {
	// Verdict is what the program returned.
	Verdict SocketFilterVerdict
	// Packet is the packet as the program left it. It is not cut to the
	// length that the program keeps.
	Packet []byte
	// Context is the context as the program left it.
	Context SKB
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

// Run runs prog, of type [ebpf.SocketFilter].
func (r SocketFilter) Run(prog *ebpf.Program) (res SocketFilterResult, err error) {
	var retval uint32
	retval, res.Packet, res.PerRun, err = (*skbRequest)(&r).run("SocketFilter", socketFilterTypes, prog, &res.Context)
	res.Verdict = SocketFilterVerdict(retval)
	return res, err
}

func (r SocketFilter) room() int { return room(len(r.Packet), r.Out, r.NoOutput) }

func (SocketFilter) outIn(r *SocketFilter) *[]byte { return &r.Out }

func (r SocketFilter) keep(memory *[]byte) SocketFilter {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (SocketFilter) packetIn(r *SocketFilter) *[]byte { return &r.Packet }

func (r SocketFilter) repeated(n int, noOutput bool) SocketFilter {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r SocketFilter) timing(res SocketFilterResult) (time.Duration, bool) {
	return res.PerRun, l3Changed(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

// CGroupSKB runs a cgroup_skb program on a packet. Packet begins with an Ethernet
// header, but the program's data begins after it. The header comes back as 14 zero
// bytes. Since Linux 4.12. The fields are those of [TC].
//
// Before Linux 6.14 (ed3e469d021c) the program's data_end equals its data under
// BPF_PROG_RUN, so every bounds check fails. A verdict from direct packet access
// then differs from the one that the hook would get. The result's Sight says so.
type CGroupSKB struct {
	// Packet is the frame, as in [TC].
	Packet []byte
	// Context is the packet's __sk_buff. Its zero value means none.
	Context SKB
	// ChecksumComplete makes the kernel check the packet's checksum after the run.
	// See [TC], also for a kernel bug that it can trigger.
	ChecksumComplete bool
	// LinearSize is how many bytes of the packet lie in the linear part, as in
	// [TC].
	LinearSize int
	// Repeat is how often the program runs. 0 means once.
	Repeat int
	// Out is the buffer for the result's Packet. It grows as with append, and may
	// be nil.
	Out []byte
	// NoOutput asks for the verdict only: neither Packet nor Context is returned.
	NoOutput bool
}

// CGroupSKBResult is the result of a run of [CGroupSKB]. See also [TCResult].
type CGroupSKBResult struct {
	// Verdict is what the program returned.
	Verdict CGroupSKBVerdict
	// Packet is the packet as the program left it.
	Packet []byte
	// Context is the context as the program left it.
	Context SKB
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
	// Sight says whether the program could access the packet directly.
	Sight Sight
}

// Run runs prog, of type [ebpf.CGroupSKB].
func (r CGroupSKB) Run(prog *ebpf.Program) (res CGroupSKBResult, err error) {
	var retval uint32
	retval, res.Packet, res.PerRun, err = (*skbRequest)(&r).run("CGroupSKB", cgroupSKBTypes, prog, &res.Context)
	res.Verdict = CGroupSKBVerdict(retval)
	if err == nil {
		res.Sight = cgroupSKBSight()
	}
	return res, err
}

func (r CGroupSKB) room() int { return room(len(r.Packet), r.Out, r.NoOutput) }

func (CGroupSKB) outIn(r *CGroupSKB) *[]byte { return &r.Out }

func (r CGroupSKB) keep(memory *[]byte) CGroupSKB {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (CGroupSKB) packetIn(r *CGroupSKB) *[]byte { return &r.Packet }

func (r CGroupSKB) repeated(n int, noOutput bool) CGroupSKB {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r CGroupSKB) timing(res CGroupSKBResult) (time.Duration, bool) {
	return res.PerRun, l3Changed(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

// LWT runs a lightweight tunnel program on a packet. Packet begins with an
// Ethernet header, but the program's data begins after it. The header comes back
// as 14 zero bytes. Since Linux 4.12. The fields are those of [TC] except
// LinearSize: LWT programs run on linear skbs only.
//
// Some old kernels, such as Debian's 5.10, run lwt_seg6local programs. On later
// kernels Run returns an error that Is [ebpf.ErrNotSupported] for them. Recent
// kernels run lwt_xmit programs only if they have IPv6 (EOPNOTSUPP).
//
// An lwt_xmit program that calls bpf_lwt_push_encap crashes kernels without
// 972787479ee7 (Linux 7.1, and backports such as 6.1.175). Run cannot detect this
// beforehand: try such programs in a virtual machine.
type LWT struct {
	// Packet is the frame, as in [TC].
	Packet []byte
	// Context is the packet's __sk_buff. Its zero value means none.
	Context SKB
	// ChecksumComplete makes the kernel check the packet's checksum after the run.
	// See [TC], also for a kernel bug that it can trigger.
	ChecksumComplete bool
	// Repeat is how often the program runs. 0 means once.
	Repeat int
	// Out is the buffer for the result's Packet. It grows as with append, and may
	// be nil.
	Out []byte
	// NoOutput asks for the verdict only: neither Packet nor Context is returned.
	NoOutput bool
}

// LWTResult is the result of a run of [LWT]. See also [TCResult].
type LWTResult struct {
	// Verdict is what the program returned.
	Verdict LWTVerdict
	// Packet is the packet as the program left it.
	Packet []byte
	// Context is the context as the program left it.
	Context SKB
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

// Run runs prog, of type [ebpf.LWTIn], [ebpf.LWTOut], [ebpf.LWTXmit] or
// [ebpf.LWTSeg6Local].
func (r LWT) Run(prog *ebpf.Program) (res LWTResult, err error) {
	q := skbRequest{
		Packet: r.Packet, Context: r.Context, ChecksumComplete: r.ChecksumComplete,
		Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput,
	}
	var retval uint32
	retval, res.Packet, res.PerRun, err = q.run("LWT", lwtTypes, prog, &res.Context)
	res.Verdict = LWTVerdict(retval)
	return res, err
}

func (r LWT) room() int { return room(len(r.Packet), r.Out, r.NoOutput) }

func (LWT) outIn(r *LWT) *[]byte { return &r.Out }

func (r LWT) keep(memory *[]byte) LWT {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (LWT) packetIn(r *LWT) *[]byte { return &r.Packet }

func (r LWT) repeated(n int, noOutput bool) LWT {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r LWT) timing(res LWTResult) (time.Duration, bool) {
	return res.PerRun, l3Changed(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

// skbRequest has the fields of the requests of the skb family, which are
// converted to it.
type skbRequest struct {
	Packet           []byte
	Context          SKB
	ChecksumComplete bool
	LinearSize       int
	Repeat           int
	Out              []byte
	NoOutput         bool
}

var skbNames = fieldNames{
	"data_size_in": "Packet", "data_size_out": "Out", "flags": "ChecksumComplete",
	"ctx_size_in": "Context", "ctx.data_end": "LinearSize", "ctx.ifindex": "Context.Ifindex",
	"ctx.ingress_ifindex": "Context.IngressIfindex", "ctx.hwtstamp": "Context.HWTStampNS",
	"ctx.wire_len": "Context.WireLen", "ctx.gso_segs": "Context.GSOSegs",
}

// run returns the parts of a result. It stores the context through a pointer,
// because copies of it would show in the time of a run.
func (r *skbRequest) run(request string, types programTypes, prog *ebpf.Program, context *SKB) (retval uint32, packet []byte, perRun time.Duration, err error) {
	fd, err := types.descriptor(request, prog)
	if err == nil {
		err = r.check(request)
	}
	if err != nil {
		return 0, nil, 0, err
	}

	var o buffer
	var ctx skBuff // input and output: the kernel reads it before it writes
	var ctxIn, ctxOut []byte
	if r.LinearSize != 0 || r.Context != (SKB{}) {
		if err := r.Context.check(request); err != nil {
			return 0, nil, 0, err
		}
		ctx.encode(&r.Context, r.LinearSize)
		ctxIn = view(&ctx)
	}
	if !r.NoOutput {
		// A helper can make the packet as large as four pages.
		o = outputFor(r.Out, len(r.Packet)+4*pageSize)
		ctxOut = view(&ctx)
	}
	a := r.attr(fd, o.buf, ctxIn, ctxOut)
	guard := a.guard()
	errno := progRun(&a, attrSize)
	guard.release()
	runtime.KeepAlive(prog)
	if errno != 0 {
		o.release()
		return 0, nil, 0, r.explain(errno, request, prog, &a, len(o.buf), ctxIn)
	}
	if !r.NoOutput {
		packet, *context = o.output(r.Out, a.dataSizeOut), ctx.decode()
		if r.Context.WireLen == 0 {
			context.WireLen = 0 // the kernel filled in the packet's length
		}
	}
	return a.retval, packet, a.perRun(), nil
}

func (r *skbRequest) explain(errno syscall.Errno, request string, prog *ebpf.Program, a *attr, out int, ctxIn []byte) error {
	c := newCall(request, skbNames, prog, a)
	c.dataSizeOut = uint32(out)
	copy(c.ctx[:], ctxIn)
	copy(c.head[:], r.Packet)
	return explain(errno, c)
}

func (r *skbRequest) attr(fd uint32, out, ctxIn, ctxOut []byte) attr {
	var flags uint32
	if r.ChecksumComplete {
		flags = testSKBChecksumComplete
	}
	return newAttr(fd, r.Packet, out, ctxIn, ctxOut, uint32(r.Repeat), flags)
}

// check rejects numbers that do not fit in the kernel's fields, and packets that
// no kernel takes.
func (r *skbRequest) check(request string) error {
	if err := atLeastEthernet(request, len(r.Packet)); err != nil {
		return err
	}
	if len(r.Packet) > maxPacket {
		return refuse(request, "Packet", size(len(r.Packet)), "no kernel takes more than "+size(maxPacket), syscall.ENOMEM)
	}
	if err := inRange(request, "Repeat", r.Repeat, math.MaxUint32); err != nil {
		return err
	}
	if r.LinearSize < 0 || r.LinearSize > len(r.Packet) {
		return refuse(request, "LinearSize", strconv.Itoa(r.LinearSize),
			"must be between 0 and the packet's "+size(len(r.Packet)), syscall.EINVAL)
	}
	return nil
}

// l3Changed reports whether two packets differ after their Ethernet header, which
// does not come back.
func l3Changed(in, out []byte) bool {
	return len(in) != len(out) || !bytes.Equal(in[ethHLen:], out[ethHLen:])
}
