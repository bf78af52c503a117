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

// XDP runs an XDP program on a packet. Since Linux 4.12; Metadata,
// IngressIfindex and RxQueueIndex since 5.15, and packets larger than about a
// page since 5.18. See bpf_prog_test_run_xdp in the kernel's net/bpf/test_run.c.
//
// A packet begins with its linear part, of at most 3,520 bytes with pages of 4
// KiB, or 15,808 with pages of 16 KiB; the package documentation has a table. The
// rest lies in at most 17 fragments of a page each. The kernel also runs programs
// that were loaded without BPF_F_XDP_HAS_FRAGS on packets with fragments. Their
// direct access ends with the linear part, but helpers such as
// bpf_xdp_load_bytes and bpf_xdp_get_buff_len cover the fragments. The result's
// Sight says how much the program could see.
type XDP struct {
	// Packet is the frame, from its Ethernet header on. It has at least 14 bytes
	// (EINVAL), and at most 73,152 with pages of 4 KiB, or 294,336 with pages of
	// 16 KiB (ENOMEM).
	Packet []byte
	// Metadata lies in front of the packet, between data_meta and data. Its
	// length is a multiple of 4 (EINVAL) and at most 32 bytes, 252 since Linux
	// 6.8, or 216 since fixes of 2026.
	Metadata []byte
	// IngressIfindex is the interface on which the packet arrived, in the network
	// namespace of the calling thread (ENODEV). 0 means loopback.
	IngressIfindex int
	// RxQueueIndex is the receive queue of IngressIfindex. Any queue but 0 needs
	// an IngressIfindex (EINVAL).
	RxQueueIndex int
	// LinearSize is how many bytes of the packet lie in the linear part. 0 means
	// as many as fit. It can be less than the packet's length since Linux 6.18
	// and in some stable kernels: see [HaveXDPLinearSize].
	LinearSize int
	// Repeat is how often the program runs. 0 means once. The package
	// documentation says what happens to the packet in between.
	Repeat int
	// Out is the buffer for the result's Metadata and Packet. It grows as with
	// append, and may be nil.
	Out []byte
	// NoOutput asks for the action only.
	NoOutput bool
}

// XDPResult is the result of a run of [XDP].
type XDPResult struct {
	// Action is what the program returned.
	Action XDPAction
	// Sight says how much of the packet the program could see. For a packet with
	// fragments, that depends on the flags with which the program was loaded.
	Sight Sight
	// Packet is the packet as the program left it. It lies in the request's Out if
	// that was large enough.
	Packet []byte
	// Metadata is the metadata as the program left it. It lies in front of Packet,
	// in the request's Out if that was large enough. It is empty on kernels without
	// XDP contexts ([HaveXDPContext]).
	Metadata []byte
	// LinearSize is how many bytes of Packet were in the linear part. It is 0 if
	// the kernel has no XDP contexts.
	LinearSize int
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

var xdpNames = fieldNames{
	"data_size_in": "Packet", "data_size_out": "Out", "ctx_size_in": "Metadata",
	"ctx.data": "Metadata", "ctx.data_end": "LinearSize",
	"ctx.ingress_ifindex": "IngressIfindex", "ctx.rx_queue_index": "RxQueueIndex",
}

// Run runs prog, of type [ebpf.XDP].
func (r XDP) Run(prog *ebpf.Program) (res XDPResult, err error) {
	fd, err := xdpTypes.descriptor("XDP", prog)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return res, err
	}

	in := buffer{buf: r.Packet}
	if len(r.Metadata) > 0 {
		in = fromScratch()
		in.buf = append(append(in.buf[:0], r.Metadata...), r.Packet...)
	}
	var o buffer
	if !r.NoOutput {
		o = outputFor(r.Out, len(in.buf)+xdpHeadroom+pageSize)
	}
	var after xdpMD
	var ctxIn, ctxOut []byte
	// Only a context tells how much of the output is metadata.
	if r.needsContext() || !r.NoOutput && haveXDPContext(prog) {
		before := r.context()
		ctxIn = view(&before)
		if !r.NoOutput {
			ctxOut = view(&after)
		}
	}
	a := r.attr(fd, in.buf, o.buf, ctxIn, ctxOut)
	guard := a.guard()
	errno := progRun(&a, attrSize)
	guard.release()
	in.release()
	runtime.KeepAlive(prog)
	if errno != 0 {
		o.release()
		return res, r.explain(errno, prog, &a, len(o.buf), ctxIn)
	}
	res.Action, res.PerRun = XDPAction(a.retval), a.perRun()
	if !r.NoOutput {
		all := o.output(r.Out, a.dataSizeOut)
		m := min(int(after.data), len(all))
		res.Metadata, res.Packet = all[:m:m], all[m:]
		res.LinearSize = max(0, int(after.dataEnd)-m)
	}
	if len(r.Packet) > r.linearSize() {
		res.Sight = fragsSight(prog)
	}
	return res, nil
}

func (r *XDP) explain(errno syscall.Errno, prog *ebpf.Program, a *attr, out int, ctxIn []byte) error {
	c := newCall("XDP", xdpNames, prog, a)
	c.dataSizeOut = uint32(out)
	copy(c.ctx[:], ctxIn)
	return explain(errno, c)
}

func (r *XDP) attr(fd uint32, input, out, ctxIn, ctxOut []byte) attr {
	return newAttr(fd, input, out, ctxIn, ctxOut, uint32(r.Repeat), 0)
}

// needsContext reports whether the request has a field that only a context can
// carry.
func (r *XDP) needsContext() bool {
	return len(r.Metadata) > 0 || r.IngressIfindex != 0 || r.RxQueueIndex != 0 || r.LinearSize != 0
}

// context returns the xdp_md of the request. It always sets data_end, which recent
// kernels take as the size of the linear part: 0 would put the whole packet in
// fragments.
func (r *XDP) context() xdpMD {
	linear := r.LinearSize
	if linear == 0 {
		linear = len(r.Packet)
	}
	return xdpMD{
		data:           uint32(len(r.Metadata)),
		dataEnd:        uint32(len(r.Metadata) + linear),
		ingressIfindex: uint32(r.IngressIfindex),
		rxQueueIndex:   uint32(r.RxQueueIndex),
	}
}

// check rejects requests that the kernel would misread, and those that trip known
// kernel bugs.
func (r *XDP) check() error {
	if err := atLeastEthernet("XDP", len(r.Packet)); err != nil {
		return err
	}
	if err := fitsPage("XDP", len(r.Metadata)); err != nil {
		return err
	}
	if len(r.Packet)+len(r.Metadata) > maxPacket {
		return refuse("XDP", "Packet", size(len(r.Packet)), "no kernel takes more than "+size(maxPacket), syscall.ENOMEM)
	}
	if err := canExist("XDP", "IngressIfindex", r.IngressIfindex, noSuchInterface, syscall.ENODEV); err != nil {
		return err
	}
	if err := inRange("XDP", "RxQueueIndex", r.RxQueueIndex, math.MaxUint32); err != nil {
		return err
	}
	if err := inRange("XDP", "Repeat", r.Repeat, math.MaxUint32); err != nil {
		return err
	}
	if r.LinearSize < 0 || r.LinearSize > len(r.Packet) {
		return refuse("XDP", "LinearSize", strconv.Itoa(r.LinearSize),
			"must be between 0 and the packet's "+size(len(r.Packet)), syscall.EINVAL)
	}
	return r.checkFragments()
}

// checkFragments rejects packets with too many fragments where the kernel's own
// refusal does harm. With an interface, kernels before ec69daabe454 (6.19, and stable
// kernels of 2026) leak a reference to it, and it can never be deleted again. With a
// Repeat, every kernel takes the program out of the XDP dispatcher, which it has not
// entered for the call, but may have entered for a Hold or another attachment.
func (r *XDP) checkFragments() error {
	most := r.linearSize() + defaultFrags*pageSize
	if len(r.Packet) <= most || r.IngressIfindex == 0 && r.Repeat < 2 {
		return nil
	}
	rule := "with a Repeat, at most " + size(most) + ": more fragments would end a hold on the program"
	if r.IngressIfindex != 0 {
		rule = "with an interface, at most " + size(most) + ": more fragments would leak a reference to it in some kernels"
	}
	return refuse("XDP", "Packet", size(len(r.Packet)), rule, syscall.ENOMEM)
}

// linearSize returns how much of the packet can be linear.
func (r *XDP) linearSize() int {
	linear := xdpLinear
	if r.LinearSize != 0 {
		linear = min(linear, r.LinearSize)
	}
	return linear
}

func (r XDP) room() int { return room(len(r.Packet)+len(r.Metadata), r.Out, r.NoOutput) }

func (XDP) outIn(r *XDP) *[]byte { return &r.Out }

func (r XDP) keep(memory *[]byte) XDP {
	*memory = append(append((*memory)[:0], r.Packet...), r.Metadata...)
	n := len(r.Packet)
	r.Packet, r.Metadata = (*memory)[:n:n], (*memory)[n:]
	return r
}

func (XDP) packetIn(r *XDP) *[]byte { return &r.Packet }

func (r XDP) repeated(n int, noOutput bool) XDP {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r XDP) timing(res XDPResult) (time.Duration, bool) {
	return res.PerRun, !bytes.Equal(r.Packet, res.Packet) || !bytes.Equal(r.Metadata, res.Metadata)
}
