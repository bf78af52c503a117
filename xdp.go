package progrun

import (
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
// A packet that does not fit in the linear part, 3,520 bytes with pages of 4
// KiB, continues in fragments of a page each, at most 17. A program loaded
// without BPF_F_XDP_HAS_FRAGS does not see those, but the kernel runs it all the
// same. The result's Sight says so.
type XDP struct {
	// Packet is the frame, from its Ethernet header on: at least 14 bytes
	// (EINVAL), at most 73,152 with pages of 4 KiB (ENOMEM).
	Packet []byte
	// Metadata is what lies in front of the packet, between data_meta and
	// data. Its length is a multiple of 4 (EINVAL), at most 32 bytes, 252
	// since Linux 6.8, 216 since fixes of 2026.
	Metadata []byte
	// IngressIfindex is the interface that the packet came in on, in the
	// network namespace of the calling thread (ENODEV). 0 means loopback.
	IngressIfindex int
	// RxQueueIndex is the receive queue of IngressIfindex, which must be set
	// for any but 0 (EINVAL).
	RxQueueIndex int
	// LinearSize is how many bytes of the packet lie in the linear part: 0
	// for as many as fit. Less than the packet's length since Linux 6.18 and
	// some stable kernels: see [HaveXDPLinearSize].
	LinearSize int
	// Repeat is how often the program runs; 0 means once. The package
	// documentation says what happens to the packet in between.
	Repeat int
	// Out is where Metadata and Packet of the result are written to, growing
	// as by append. It may be nil.
	Out []byte
	// NoOutput is for callers who want the action alone.
	NoOutput bool
}

// XDPResult is what is left after a run.
type XDPResult struct {
	Action XDPAction
	// Packet is the packet as it came out, and Metadata what then lay in
	// front of it. Both lie in the Out of the request where that was large
	// enough. Kernels without XDP contexts ([HaveXDPContext]) do not hand back
	// metadata.
	Packet, Metadata []byte
	// LinearSize is how many bytes of Packet were in the linear part, or 0
	// where the kernel has no XDP contexts.
	LinearSize int
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
	// Sight is how much of Packet the program could see: if it came in
	// fragments, that depends on the flags the program was loaded with.
	Sight Sight
}

var xdpNames = fieldNames{
	"data_size_in": "Packet", "data_size_out": "Out", "ctx_size_in": "Metadata",
	"ctx.data": "Metadata", "ctx.data_end": "LinearSize",
	"ctx.ingress_ifindex": "IngressIfindex", "ctx.rx_queue_index": "RxQueueIndex",
}

// WithPacket is r with another packet and output buffer, for [Batch].
func (r XDP) WithPacket(packet, out []byte) XDP {
	r.Packet, r.Out = packet, out
	return r
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
	var errno syscall.Errno
	if a.interruptible() {
		errno = progRunBlocked(&a, attrSize)
	} else {
		errno = progRun(&a, attrSize)
	}
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

// needsContext is whether the request says anything that only a context can.
func (r *XDP) needsContext() bool {
	return len(r.Metadata) > 0 || r.IngressIfindex != 0 || r.RxQueueIndex != 0 || r.LinearSize != 0
}

// context is the xdp_md of the request. data_end must be set whatever else is:
// recent kernels take it for the size of the linear part, and 0 puts the whole
// packet in fragments.
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

// check refuses what the kernel would take for something else, or harm itself
// with.
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

// checkFragments refuses an interface together with too many fragments: before
// ec69daabe454 (6.19, and stable kernels of 2026) the kernel then lost a
// reference to the interface, which could never be deleted again.
func (r *XDP) checkFragments() error {
	if r.IngressIfindex == 0 {
		return nil
	}
	if most := r.linearSize() + defaultFrags*pageSize; len(r.Packet) > most {
		return refuse("XDP", "Packet", size(len(r.Packet)),
			"with an interface, at most "+size(most)+": more fragments would leak a reference to it in some kernels", syscall.ENOMEM)
	}
	return nil
}

// linearSize is how much of the packet is linear at most.
func (r *XDP) linearSize() int {
	linear := pageSize - xdpHeadroom - minTailroom
	if r.LinearSize != 0 {
		linear = min(linear, r.LinearSize)
	}
	return linear
}
