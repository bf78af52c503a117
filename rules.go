package progrun

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
)

// fieldNames translates the kernel's names of fields into a request's.
type fieldNames map[string]string

// rawNames are the names that Raw has; those of a context's fields stay the
// kernel's.
var rawNames = fieldNames{
	"data_size_in": "DataIn", "data_size_out": "DataOut",
	"ctx_size_in": "CtxIn", "ctx_size_out": "CtxOut",
	"repeat": "Repeat", "flags": "Flags", "cpu": "CPU", "batch_size": "BatchSize", "tail": "Tail",
}

func (n fieldNames) of(field string) string {
	if name, ok := n[field]; ok {
		return name
	}
	return strings.Replace(field, "ctx.", "CtxIn.", 1)
}

// The conditions and limits that several handlers share.

func flagsSet(c *call) bool     { return c.flags != 0 }
func cpuSet(c *call) bool       { return c.cpu != 0 }
func batchSizeSet(c *call) bool { return c.batchSize != 0 }
func repeatSet(c *call) bool    { return c.repeat != 0 }
func durationSet(c *call) bool  { return c.duration != 0 }
func dataInSet(c *call) bool    { return c.dataSizeIn != 0 || c.hasDataIn }
func dataOutSet(c *call) bool   { return c.dataSizeOut != 0 || c.hasDataOut }
func ctxOutSet(c *call) bool    { return c.ctxSizeOut != 0 || c.hasCtxOut }
func always(*call) bool         { return true }

// ctxValue is a 32-bit field of the context.
func ctxValue(off int) func(c *call) string {
	return func(c *call) string { return fmt.Sprint(c.u32(off)) }
}

// nonZero finds the first byte of the context that is set but must not be,
// outside of the ranges of allowed ones. It gives -1 if there is none.
func (c *call) nonZero(limit int, allowed ...[2]int) int {
	for i, b := range c.ctx[:limit] {
		if b != 0 && !within(i, allowed) {
			return i
		}
	}
	return -1
}

func within(i int, ranges [][2]int) bool {
	for _, r := range ranges {
		if r[0] <= i && i < r[1] {
			return true
		}
	}
	return false
}

// etherType is the EtherType of the packet.
func (c *call) etherType() uint16 { return binary.BigEndian.Uint16(c.head[12:]) }

// commonRules hold for every type: bpf_check_uarg_tail_zero, CHECK_ATTR and
// bpf_prog_test_run in kernel/bpf/syscall.c.
var commonRules = []rule{
	{errno: syscall.EINVAL, field: "batch_size", lacking: true,
		text:   "this kernel does not know the field (Linux 5.18)",
		broken: func(c *call) bool { return c.batchSize != 0 && !knowsBatchSize() }},
	{errno: syscall.EINVAL, field: "tail",
		text:   "this kernel knows no such field: the bytes after batch_size must be 0",
		broken: func(c *call) bool { return c.tail }},
	{errno: syscall.E2BIG, field: "tail",
		text:   "the attr is longer than this kernel's: what is beyond its end must be 0",
		broken: func(c *call) bool { return c.tail }},
	{errno: syscall.EINVAL, field: "ctx_size_in",
		text:   "a context needs both a size and a pointer",
		broken: func(c *call) bool { return (c.ctxSizeIn != 0) != c.hasCtxIn }},
	{errno: syscall.EINVAL, field: "ctx_size_out",
		text:   "a context needs both a size and a pointer",
		broken: func(c *call) bool { return (c.ctxSizeOut != 0) != c.hasCtxOut }},
	{errno: syscall.EFAULT, field: "data_size_in",
		text:   "a size of data without data",
		broken: func(c *call) bool { return c.dataSizeIn != 0 && !c.hasDataIn }},
	{errno: syscall.ENOSPC, field: "data_size_out",
		text:   "the output is larger",
		broken: func(c *call) bool { return c.dataSizeOut != 0 && c.dataSizeOut < c.wanted },
		limit:  func(c *call) string { return fmt.Sprintf(": %d bytes", c.wanted) }},
	{errno: syscall.ENOSPC, field: "ctx_size_out",
		text:   "the context is larger",
		broken: func(c *call) bool { return c.hasCtxOut && c.ctxSizeOut < c.ctxSize() },
		limit:  func(c *call) string { return fmt.Sprintf(": %d bytes", c.ctxSize()) }},
	{errno: syscall.ENOSPC, field: "data_size_out",
		text:   "the output is larger, by how much kernels before 7.2 do not say of a packet in fragments",
		broken: func(c *call) bool { return c.dataSizeOut != 0 }},
	{errno: syscall.E2BIG, field: "ctx_size_in",
		text:   "a context is at most a page",
		broken: func(c *call) bool { return int(c.ctxSizeIn) > pageSize && c.ctxSize() != 0 }},
	{errno: syscall.E2BIG, field: "ctx_size_in",
		text:   "what is beyond the end of this kernel's context must be 0",
		broken: func(c *call) bool { return c.ctxSizeIn > 0 && c.ctxSize() != 0 }},
}

// skbRules are those of bpf_prog_test_run_skb in net/bpf/test_run.c.
var skbRules = []rule{
	{errno: syscall.EINVAL, field: "flags",
		text:   "the only flag here is BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
		broken: func(c *call) bool { return c.flags&^testSKBChecksumComplete != 0 }},
	{errno: syscall.EINVAL, field: "flags", lacking: true,
		text:   "this kernel does not check checksums (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.11)",
		broken: func(c *call) bool { return c.flags != 0 && lacks(HaveChecksumComplete()) }},
	{errno: syscall.EINVAL, field: "cpu", text: "must be 0 for this type", broken: cpuSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "a packet begins with a 14-byte Ethernet header",
		broken: func(c *call) bool { return c.dataSizeIn < ethHLen }},
	{errno: syscall.EINVAL, field: "ctx.data", text: "must be 0", value: ctxValue(76),
		broken: func(c *call) bool { return c.u32(76) != 0 }},
	{errno: syscall.EINVAL, field: "ctx.data_meta", text: "must be 0", value: ctxValue(140),
		broken: func(c *call) bool { return c.u32(140) != 0 }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: ctxValue(80), lacking: true,
		text:   "this kernel has no skbs with a part that is not linear (Linux 6.19)",
		broken: func(c *call) bool { return c.u32(80) != 0 && lacks(HaveNonLinearSKB()) }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: ctxValue(80),
		text:   "the linear part cannot be larger than the packet",
		broken: func(c *call) bool { return c.u32(80) > c.dataSizeIn }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: ctxValue(80),
		text:   "LWT programs run on linear skbs only",
		broken: func(c *call) bool { return c.u32(80) != 0 && lwtTypes.has(c.prog.Type()) }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "the packet is too large",
		broken: func(c *call) bool { return skbTooLarge(c.prog, c.dataSizeIn) },
		limit:  func(c *call) string { return fmt.Sprintf(": at most %d bytes here", largestSKB(c.prog)) }},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "only some fields of the context can be set",
		broken: func(c *call) bool { return c.skbForbidden() >= 0 },
		value:  func(c *call) string { return fmt.Sprintf("byte %d is not 0", c.skbForbidden()) }},
	{errno: syscall.EINVAL, field: "ctx.wire_len", value: ctxValue(160),
		text:   "less than the packet's length",
		broken: func(c *call) bool { return c.u32(160) != 0 && c.u32(160) < c.skbLen() },
		limit:  func(c *call) string { return fmt.Sprintf(", %d bytes", c.skbLen()) }},
	{errno: syscall.EINVAL, field: "ctx.wire_len", value: ctxValue(160), text: "at most 65536",
		broken: func(c *call) bool { return c.u32(160) > 1<<16 }},
	{errno: syscall.EINVAL, field: "ctx.gso_segs", value: ctxValue(164), text: "at most 65535",
		broken: func(c *call) bool { return c.u32(164) > 1<<16-1 }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "the packet ends before the 20-byte IPv4 header does that its EtherType announces",
		broken: func(c *call) bool { return c.etherType() == ethPIP && c.linear() < ethHLen+20 }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "the packet ends before the 40-byte IPv6 header does that its EtherType announces",
		broken: func(c *call) bool { return c.etherType() == ethPIPv6 && c.linear() < ethHLen+40 }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "some kernels want at least one byte after the Ethernet header",
		broken: func(c *call) bool { return c.dataSizeIn == ethHLen && !tcTypes.has(c.prog.Type()) }},
	{errno: syscall.EINVAL, field: "ctx.ingress_ifindex", value: ctxValue(36), lacking: true,
		text:   "this kernel takes no such field (Linux 5.11)",
		broken: func(c *call) bool { return c.u32(36) != 0 && !knowsBatchSize() }},
	{errno: syscall.EINVAL, field: "ctx.hwtstamp", lacking: true,
		text:   "this kernel takes no such field (Linux 5.16)",
		broken: func(c *call) bool { return (c.u32(184) != 0 || c.u32(188) != 0) && !knowsBatchSize() }},
	{errno: syscall.ENODEV, field: "ctx.ifindex", value: ctxValue(40),
		text:   "no such interface in this thread's network namespace",
		broken: func(c *call) bool { return c.u32(40) > 1 }},
	{errno: syscall.EOPNOTSUPP, field: "", lacking: true,
		text:   "lwt_xmit programs run only where the kernel has IPv6",
		broken: func(c *call) bool { return c.prog.Type() == ebpf.LWTXmit }},
	{errno: syscall.EBADMSG, field: "flags",
		text:   "the checksum no longer matches the packet after the run, or a helper gave up on keeping it",
		broken: func(c *call) bool { return c.flags&testSKBChecksumComplete != 0 }},
	{errno: syscall.ENOMEM, field: "data_size_in",
		text:   "the packet needs more fragments than a packet has (17 unless the kernel was built with more)",
		broken: func(c *call) bool { return c.fragments(c.linear()) > defaultFrags }},
}

// fragments is how many pages the packet needs beyond a linear part.
func (c *call) fragments(linear uint32) int {
	page := pageSize
	return (int(c.dataSizeIn) - int(min(linear, c.dataSizeIn)) + page - 1) / page
}

// skbLen is skb->len: without the Ethernet header, unless the type sees it.
func (c *call) skbLen() uint32 {
	if tcTypes.has(c.prog.Type()) {
		return c.dataSizeIn
	}
	return c.dataSizeIn - ethHLen
}

// linear is the size of the linear part of an skb.
func (c *call) linear() uint32 {
	most := uint32(pageSize - skbHeadroom - minTailroom)
	if linear := c.u32(80); linear != 0 {
		most = min(most, max(linear, ethHLen))
	}
	return min(most, c.dataSizeIn)
}

// skbForbidden is the first byte of struct __sk_buff that is set but must not
// be; see convert___skb_to_skb.
func (c *call) skbForbidden() int {
	return c.nonZero(192, [2]int{8, 12}, [2]int{32, 44}, [2]int{48, 68}, [2]int{80, 84},
		[2]int{152, 168}, [2]int{176, 180}, [2]int{184, 192})
}

// xdpRules are those of bpf_prog_test_run_xdp.
var xdpRules = []rule{
	{errno: syscall.EINVAL, field: "",
		text: "the program is for a devmap or a cpumap, or bound to a device: the kernel does not run such programs",
		broken: func(c *call) bool {
			return haveXDPContext(c.prog) && dryXDP(c.prog, 64, 0, 64) == syscall.EINVAL
		}},
	{errno: syscall.EINVAL, field: "flags",
		text:   "the only flag here is BPF_F_TEST_XDP_LIVE_FRAMES",
		broken: func(c *call) bool { return c.flags&^testXDPLiveFrames != 0 }},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only",
		broken: func(c *call) bool { return c.batchSize != 0 && !c.live() }},
	{errno: syscall.E2BIG, field: "batch_size", text: "over the kernel's 256",
		broken: func(c *call) bool { return c.batchSize > maxBatchSize && c.live() }},
	{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue, lacking: true, text: noXDPContext,
		broken: func(c *call) bool { return c.meta() != 0 && !haveXDPContext(c.prog) }},
	{errno: syscall.EINVAL, field: "ctx.ingress_ifindex", value: ctxValue(12), lacking: true, text: noXDPContext,
		broken: func(c *call) bool { return c.u32(12) != 0 && !haveXDPContext(c.prog) }},
	{errno: syscall.EINVAL, field: "ctx.rx_queue_index", value: ctxValue(16), lacking: true, text: noXDPContext,
		broken: func(c *call) bool { return c.u32(16) != 0 && !haveXDPContext(c.prog) }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue, lacking: true, text: noXDPContext,
		broken: func(c *call) bool { return c.u32(4) != c.dataSizeIn && c.hasCtxIn && !haveXDPContext(c.prog) }},
	{errno: syscall.EINVAL, field: "ctx_size_in", lacking: true, text: noXDPContext,
		broken: func(c *call) bool { return c.hasCtx() && !haveXDPContext(c.prog) }},
	{errno: syscall.EINVAL, field: "ctx.data_meta", text: "must be 0", value: ctxValue(8),
		broken: func(c *call) bool { return c.u32(8) != 0 }},
	{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue,
		text:   "metadata must be a multiple of 4 bytes",
		broken: func(c *call) bool { return c.meta()%4 != 0 },
		limit:  metadataLimit},
	{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue,
		text:   "metadata must be a multiple of 4 bytes",
		broken: func(c *call) bool { return c.meta() > 0 && c.meta() > largestMetadata(c.prog) },
		limit:  metadataLimit},
	{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue,
		text:   "the metadata is part of the linear part, and cannot be larger",
		broken: func(c *call) bool { return c.meta() > c.u32(4) }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue,
		text:   "the linear part cannot be larger than the input",
		broken: func(c *call) bool { return c.hasCtx() && c.u32(4) > c.dataSizeIn }},
	{errno: syscall.EINVAL, field: "data_size_in", value: packetValue,
		text:   "a packet begins with a 14-byte Ethernet header",
		broken: func(c *call) bool { return c.dataSizeIn < ethHLen+c.meta() }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue, lacking: true,
		text: "this kernel has no linear part smaller than the packet (Linux 6.18)",
		broken: func(c *call) bool {
			return c.hasCtx() && c.u32(4) < c.dataSizeIn && !c.live() &&
				dryXDP(c.prog, c.dataSizeIn, c.meta(), c.u32(4)) == syscall.EINVAL
		}},
	{errno: syscall.EINVAL, field: "data_size_out", text: "live frames have no output",
		broken: func(c *call) bool { return c.live() && c.hasDataOut && c.hasCtx() }},
	{errno: syscall.EINVAL, field: "ctx_size_out", text: "live frames have no output",
		broken: func(c *call) bool { return c.live() && c.hasCtxOut }},
	{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue, text: "live frames are linear",
		broken: func(c *call) bool {
			return c.live() && c.hasCtx() && c.u32(4) < c.dataSizeIn
		}},
	{errno: syscall.EINVAL, field: "ctx.egress_ifindex", value: ctxValue(20), text: "must be 0",
		broken: func(c *call) bool { return c.u32(20) != 0 }},
	{errno: syscall.EINVAL, field: "ctx.rx_queue_index", value: ctxValue(16),
		text:   "a receive queue needs an interface",
		broken: func(c *call) bool { return c.u32(16) != 0 && c.u32(12) == 0 }},
	{errno: syscall.EINVAL, field: "data_size_in", value: packetValue, lacking: true,
		text:   "this kernel runs XDP programs on packets of at most one page (more since Linux 5.18)",
		broken: xdpBeyondPage},
	{errno: syscall.EMSGSIZE, field: "data_size_in", value: packetValue, lacking: true,
		text:   "this kernel runs XDP programs on packets of at most one page (more since Linux 5.18)",
		broken: always},
	{errno: syscall.EINVAL, field: "data_size_in", value: packetValue,
		text:   "the packet is too large for a live frame",
		broken: liveTooLarge,
		limit: func(c *call) string {
			return fmt.Sprintf(": at most %d bytes here", largestLive(c.prog, c.meta()))
		}},
	{errno: syscall.EINVAL, field: "ctx.rx_queue_index", value: ctxValue(16),
		text:   "the interface has no such receive queue",
		broken: func(c *call) bool { return c.u32(16) != 0 }},
	{errno: syscall.EINVAL, field: "",
		text:   "the kernel does not say why: the program may be for a devmap or a cpumap, which it does not run",
		broken: func(c *call) bool { return !haveXDPContext(c.prog) }},
	{errno: syscall.ENODEV, field: "ctx.ingress_ifindex", value: ctxValue(12),
		text:   "no such interface in this thread's network namespace",
		broken: func(c *call) bool { return c.u32(12) != 0 }},
	{errno: syscall.ENOMEM, field: "data_size_in", value: packetValue,
		text:   "the packet needs more fragments than a packet has (17 unless the kernel was built with more)",
		broken: func(c *call) bool { return c.fragments(c.xdpLinear()) > defaultFrags }},
}

// xdpLinear is the size of the linear part of an XDP packet, metadata included.
func (c *call) xdpLinear() uint32 {
	most := uint32(pageSize-xdpHeadroom-minTailroom) + c.meta()
	if c.hasCtx() {
		most = min(most, c.u32(4))
	}
	return most
}

// live is whether the run is on live frames.
func (c *call) live() bool { return c.flags&testXDPLiveFrames != 0 }

const noXDPContext = "this kernel takes no context of XDP programs (Linux 5.15)"

// linearValue is the linear size as the request has it: typed ones do not count
// the metadata.
func linearValue(c *call) string {
	if c.request == "Raw" {
		return fmt.Sprint(c.u32(4))
	}
	return fmt.Sprint(int(c.u32(4)) - int(c.meta()))
}

func (c *call) hasCtx() bool { return c.hasCtxIn || c.hasCtxOut }

// meta is the length of the metadata in front of an XDP packet.
func (c *call) meta() uint32 { return c.u32(0) }

func metadataValue(c *call) string { return size(c.meta()) }

func packetValue(c *call) string { return size(int(c.dataSizeIn) - int(c.meta())) }

func metadataLimit(c *call) string {
	if most := largestMetadata(c.prog); most != 0 {
		return fmt.Sprintf(", at most %d here", most)
	}
	return ""
}

func liveTooLarge(c *call) bool {
	if !c.live() || c.meta()%4 != 0 || c.meta() > largestMetadata(c.prog) {
		return false
	}
	return c.dataSizeIn > c.meta() && c.dataSizeIn-c.meta() > largestLive(c.prog, c.meta())
}

func xdpBeyondPage(c *call) bool {
	return int(c.dataSizeIn) > pageSize-xdpHeadroom-320 && lacks(HaveXDPMultiBuffer())
}

// flowDissectorRules are those of bpf_prog_test_run_flow_dissector.
var flowDissectorRules = []rule{
	{errno: syscall.EINVAL, field: "flags", text: "must be 0 for this type", broken: flagsSet},
	{errno: syscall.EINVAL, field: "cpu", text: "must be 0 for this type", broken: cpuSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "a packet begins with a 14-byte Ethernet header",
		broken: func(c *call) bool { return c.dataSizeIn < ethHLen }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "the packet is too large: a flow dissector runs on at most one page",
		broken: func(c *call) bool { return int(c.dataSizeIn) > pageSize },
		limit:  func(c *call) string { return fmt.Sprintf(", %d bytes here", pageSize) }},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "only the flags of the context can be set",
		broken: func(c *call) bool { return c.nonZero(56, [2]int{48, 52}) >= 0 },
		value:  func(c *call) string { return fmt.Sprintf("byte %d is not 0", c.nonZero(56, [2]int{48, 52})) }},
}

// skLookupRules are those of bpf_prog_test_run_sk_lookup.
var skLookupRules = []rule{
	{errno: syscall.EINVAL, field: "flags", text: "must be 0 for this type", broken: flagsSet},
	{errno: syscall.EINVAL, field: "cpu", text: "must be 0 for this type", broken: cpuSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EINVAL, field: "data_size_in", text: "this type has no data", broken: dataInSet},
	{errno: syscall.EINVAL, field: "data_size_out", text: "this type has no data", broken: dataOutSet},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "this type needs a context",
		broken: func(c *call) bool { return !c.hasCtx() }},
	{errno: syscall.EINVAL, field: "ctx.cookie", text: "must be 0",
		broken: func(c *call) bool { return c.u32(0) != 0 || c.u32(4) != 0 }},
	{errno: syscall.EINVAL, field: "ctx.ingress_ifindex", text: "must be 0", value: ctxValue(64),
		broken: func(c *call) bool { return c.u32(64) != 0 }},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "what follows ingress_ifindex must be 0",
		broken: func(c *call) bool { return c.u32(68) != 0 },
		value:  func(c *call) string { return fmt.Sprintf("byte %d is not 0", c.nonZero(72, [2]int{0, 68})) }},
	{errno: syscall.ERANGE, field: "ctx.local_port", value: ctxValue(60), text: "a port is at most 65535",
		broken: func(c *call) bool { return c.u32(60) > 1<<16-1 }},
	{errno: syscall.ERANGE, field: "ctx.remote_port", value: ctxValue(36), text: "a port has 16 bits", broken: always},
	{errno: syscall.EAFNOSUPPORT, field: "ctx.family", value: ctxValue(8),
		text: "must be AF_INET or AF_INET6, and the kernel must have IPv6 for the latter", broken: always},
	{errno: syscall.EOPNOTSUPP, field: "",
		text: "the program picked a socket of a reuseport group without BPF_SK_LOOKUP_F_NO_REUSEPORT", broken: always},
}

// netfilterRules are those of bpf_prog_test_run_nf.
var netfilterRules = []rule{
	{errno: syscall.EINVAL, field: "flags", text: "must be 0 for this type", broken: flagsSet},
	{errno: syscall.EINVAL, field: "cpu", text: "must be 0 for this type", broken: cpuSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EINVAL, field: "ctx.pf", value: nfValue(1),
		text:   "must be NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)",
		broken: func(c *call) bool { return c.hasCtx() && c.ctx[1] != afInet && c.ctx[1] != afInet6 }},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "only hook and pf of the context can be set",
		broken: func(c *call) bool { return c.nonZero(48, [2]int{0, 8}) >= 0 },
		value:  func(c *call) string { return fmt.Sprintf("byte %d is not 0", c.nonZero(48, [2]int{0, 8})) }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "a packet on the hook LOCAL_OUT begins with its IP header, at least 20 bytes",
		broken: func(c *call) bool { return c.nfLocalOut() && c.dataSizeIn < 20 }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text:   "a packet on this hook begins with an Ethernet and an IPv4 header, 34 bytes",
		broken: func(c *call) bool { return !c.nfLocalOut() && c.dataSizeIn < ethHLen+20 }},
	{errno: syscall.EINVAL, field: "data_size_in",
		text: "an IPv6 packet on this hook begins with 54 bytes of headers",
		broken: func(c *call) bool {
			return !c.nfLocalOut() && c.etherType() == ethPIPv6 && c.dataSizeIn < ethHLen+40
		}},
	{errno: syscall.EINVAL, field: "ctx.pf", value: nfValue(1), text: "the packet is of the other family",
		broken: func(c *call) bool { return !c.nfLocalOut() && c.nfFamilyDiffers() }},
	{errno: syscall.EPROTO, field: "data_size_in",
		text:   "the packet is neither IPv4 nor IPv6",
		broken: func(c *call) bool { return !c.nfLocalOut() },
		value:  func(c *call) string { return fmt.Sprintf("EtherType %#04x", c.etherType()) }},
	{errno: syscall.EINVAL, field: "data_size_in", text: "the packet is too large: it must fit in a page",
		broken: func(c *call) bool { return int(c.dataSizeIn) > pageSize-skbHeadroom-minTailroom },
		limit: func(c *call) string {
			return fmt.Sprintf(", %d bytes here", pageSize-skbHeadroom-minTailroom)
		}},
}

func nfValue(off int) func(c *call) string {
	return func(c *call) string { return fmt.Sprint(c.ctx[off]) }
}

// nfLocalOut is whether the packet begins with its IP header.
func (c *call) nfLocalOut() bool { return !c.hasCtx() || c.ctx[0] == uint8(NFLocalOut) }

func (c *call) nfFamilyDiffers() bool {
	return c.etherType() == ethPIP && c.ctx[1] != afInet || c.etherType() == ethPIPv6 && c.ctx[1] != afInet6
}

// rawTracepointRules are those of bpf_prog_test_run_raw_tp.
var rawTracepointRules = []rule{
	{errno: syscall.EINVAL, field: "data_size_in", text: "this type has no data",
		broken: func(c *call) bool { return c.hasDataIn }},
	{errno: syscall.EINVAL, field: "data_size_out", text: "this type has no data",
		broken: func(c *call) bool { return c.hasDataOut }},
	{errno: syscall.EINVAL, field: "ctx_size_out", text: "this type has no output", broken: ctxOutSet},
	{errno: syscall.EINVAL, field: "duration", text: "must be 0 for this type", broken: durationSet},
	{errno: syscall.EINVAL, field: "repeat", text: "this type runs once", broken: repeatSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "a tracepoint has at most 12 arguments, 96 bytes",
		broken: func(c *call) bool { return c.ctxSizeIn > 8*maxFuncArgs }},
	{errno: syscall.EINVAL, field: "cpu", text: "needs the flag BPF_F_TEST_RUN_ON_CPU",
		broken: func(c *call) bool { return c.cpu != 0 && c.flags&testRunOnCPU == 0 }},
	{errno: syscall.EINVAL, field: "ctx_size_in", value: argsValue,
		text:   "the program reads more arguments, or it sleeps and cannot be sent to a CPU",
		broken: func(c *call) bool { return c.flags&testRunOnCPU != 0 && c.ctxSizeIn < 8*maxFuncArgs }},
	{errno: syscall.EINVAL, field: "cpu",
		text:   "a program that sleeps cannot be sent to a CPU",
		broken: func(c *call) bool { return c.flags&testRunOnCPU != 0 }},
	{errno: syscall.EINVAL, field: "ctx_size_in", value: argsValue, text: "the program reads more arguments",
		broken: func(c *call) bool { return c.ctxSizeIn < 8*maxFuncArgs }},
	{errno: syscall.ENXIO, field: "cpu", text: "no such CPU is online", broken: always},
}

func argsValue(c *call) string {
	if c.ctxSizeIn%8 != 0 {
		return size(c.ctxSizeIn)
	}
	if c.ctxSizeIn == 8 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", c.ctxSizeIn/8)
}

// tracingRules are those of bpf_prog_test_run_tracing.
var tracingRules = []rule{
	{errno: syscall.EINVAL, field: "flags", text: "must be 0 for this type", broken: flagsSet},
	{errno: syscall.EINVAL, field: "cpu", text: "must be 0 for this type", broken: cpuSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EFAULT, field: "",
		text: "either the program is not fentry, fexit or fmod_ret, for which the kernel has no test functions, " +
			"or a program that is attached to one of them changed its result",
		broken: always},
}

// syscallRules are those of bpf_prog_test_run_syscall.
var syscallRules = []rule{
	{errno: syscall.EINVAL, field: "data_size_in", text: "this type has no data",
		broken: func(c *call) bool { return c.hasDataIn }},
	{errno: syscall.EINVAL, field: "data_size_out", text: "this type has no data",
		broken: func(c *call) bool { return c.hasDataOut }},
	{errno: syscall.EINVAL, field: "ctx_size_out", text: "this type writes its context in place", broken: ctxOutSet},
	{errno: syscall.EINVAL, field: "duration", text: "must be 0 for this type", broken: durationSet},
	{errno: syscall.EINVAL, field: "repeat", text: "this type runs once", broken: repeatSet},
	{errno: syscall.EINVAL, field: "flags", text: "must be 0 for this type", broken: flagsSet},
	{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only", broken: batchSizeSet},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "a context is at most 65535 bytes",
		broken: func(c *call) bool { return c.ctxSizeIn > maxCtx }},
	{errno: syscall.EINVAL, field: "ctx_size_in", text: "the program reads or writes beyond the end of its context",
		broken: always},
	{errno: syscall.EFAULT, field: "ctx_size_in", text: "the context cannot be read, or not written after the run",
		broken: always},
}

// structOpsArgs counts the arguments as the request does.
func structOpsArgs(c *call) string {
	if c.request == "Raw" || c.ctxSizeIn < 8 {
		return size(c.ctxSizeIn)
	}
	return fmt.Sprintf("%d after the state", c.ctxSizeIn/8-1)
}

// structOpsRules are those of bpf_struct_ops_test_run in
// net/bpf/bpf_dummy_struct_ops.c.
var structOpsRules = []rule{
	{errno: syscall.EOPNOTSUPP, field: "", lacking: true,
		text: "of struct_ops programs the kernel runs only those of bpf_dummy_ops", broken: always},
	{errno: syscall.EINVAL, field: "ctx_size_in", value: structOpsArgs,
		text:   "too many or too few arguments, or a null state for a function that cannot take one",
		broken: always},
	{errno: syscall.EFAULT, field: "ctx_size_in", text: "the state cannot be read, or not written after the run",
		broken: always},
}
