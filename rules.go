package progrun

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// fieldNames translates the kernel's names of fields into a request's.
type fieldNames map[string]string

// rawNames has Raw's names of the attr's fields. Raw keeps the kernel's names of
// the fields of a context.
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

// number reads a number out of a call.
type number func(c *call) uint32

// isSet reports whether the number is not 0.
func (n number) isSet(c *call) bool { return n(c) != 0 }

// text returns the number in digits.
func (n number) text(c *call) string { return fmt.Sprint(n(c)) }

// mustBeZero returns the rule that a number in the context is 0.
func mustBeZero(field string, n number) rule {
	return rule{errno: syscall.EINVAL, field: field, text: "must be 0", value: n.text, broken: n.isSet}
}

func always(*call) bool { return true }

// Rules of several handlers.

var (
	noFlags = rule{errno: syscall.EINVAL, field: "flags", text: "must be 0 for this type",
		broken: func(c *call) bool { return c.flags != 0 }}
	noCPU = rule{errno: syscall.EINVAL, field: "cpu", text: "must be 0 for this type",
		broken: func(c *call) bool { return c.cpu != 0 }}
	noBatchSize = rule{errno: syscall.EINVAL, field: "batch_size", text: "is for live frames only",
		broken: func(c *call) bool { return c.batchSize != 0 }}
	noDuration = rule{errno: syscall.EINVAL, field: "duration", text: "must be 0 for this type",
		broken: func(c *call) bool { return c.duration != 0 }}
	noRepeat = rule{errno: syscall.EINVAL, field: "repeat", text: "this type runs once",
		broken: func(c *call) bool { return c.repeat != 0 }}
	noDataIn = rule{errno: syscall.EINVAL, field: "data_size_in", text: "this type has no data",
		broken: func(c *call) bool { return c.hasDataIn }}
	noDataOut = rule{errno: syscall.EINVAL, field: "data_size_out", text: "this type has no data",
		broken: func(c *call) bool { return c.hasDataOut }}
	wholeEthernet = rule{errno: syscall.EINVAL, field: "data_size_in", text: "a packet begins with a 14-byte Ethernet header",
		broken: func(c *call) bool { return c.dataSizeIn < ethHLen }}
)

const tooManyFragments = "the packet needs more fragments than the kernel has (17 unless the kernel was built with more)"

// attrRules returns the rules that the kernel checks before it looks at the program:
// bpf_check_uarg_tail_zero, CHECK_ATTR and bpf_prog_test_run in
// kernel/bpf/syscall.c.
func attrRules() []rule {
	return []rule{
		{errno: syscall.EINVAL, field: "batch_size", lacking: true,
			text:   "this kernel does not know the field (Linux 5.18)",
			broken: func(c *call) bool { return c.batchSize != 0 && !knowsBatchSize() }},
		{errno: syscall.EINVAL, field: "tail",
			text:   "this kernel knows no such field: the bytes after batch_size must be 0",
			broken: func(c *call) bool { return c.tail }},
		{errno: syscall.E2BIG, field: "tail",
			text:   "the attr is longer than this kernel's: all bytes beyond its end must be 0",
			broken: func(c *call) bool { return c.tail }},
		{errno: syscall.EINVAL, field: "ctx_size_in",
			text:   "a context needs both a size and a pointer",
			broken: func(c *call) bool { return (c.ctxSizeIn != 0) != c.hasCtxIn }},
		{errno: syscall.EINVAL, field: "ctx_size_out",
			text:   "a context needs both a size and a pointer",
			broken: func(c *call) bool { return (c.ctxSizeOut != 0) != c.hasCtxOut }},
	}
}

// copyRules returns the rules of the functions with which all handlers copy data and
// contexts in and out, such as bpf_ctx_init and bpf_test_finish.
func copyRules() []rule {
	return []rule{
		{errno: syscall.EFAULT, field: "data_size_in",
			text:   "a data size needs a pointer to the data",
			broken: func(c *call) bool { return c.dataSizeIn != 0 && !c.hasDataIn }},
		{errno: syscall.ENOSPC, field: "data_size_out",
			text:   "the output is larger",
			broken: func(c *call) bool { return c.dataSizeOut != 0 && c.dataSizeOut < c.left.dataSizeOut },
			limit:  func(c *call) string { return fmt.Sprintf(": %d bytes", c.left.dataSizeOut) }},
		{errno: syscall.ENOSPC, field: "ctx_size_out",
			text:   "the context is larger",
			broken: func(c *call) bool { return c.hasCtxOut && c.ctxSizeOut < c.ctxSize() },
			limit:  func(c *call) string { return fmt.Sprintf(": %d bytes", c.ctxSize()) }},
		{errno: syscall.ENOSPC, field: "data_size_out",
			text:   "the output is larger; kernels before 7.2 do not say by how much if the packet has fragments",
			broken: func(c *call) bool { return c.dataSizeOut != 0 && !c.finished() }},
		{errno: syscall.E2BIG, field: "ctx_size_in",
			text:   "a context is at most a page",
			broken: func(c *call) bool { return int(c.ctxSizeIn) > pageSize && c.ctxSize() != 0 },
			limit:  pageHere},
		{errno: syscall.E2BIG, field: "ctx_size_in",
			text:   "all bytes beyond the end of this kernel's context must be 0",
			broken: func(c *call) bool { return c.ctxSizeIn > 0 && c.ctxSize() != 0 }},
	}
}

// pageHere returns the size of a page in words.
func pageHere(*call) string { return fmt.Sprintf(", %d bytes here", pageSize) }

// skbRules returns the rules of bpf_prog_test_run_skb in net/bpf/test_run.c.
func skbRules() []rule {
	var (
		data           number = func(c *call) uint32 { return c.skb().data }
		dataEnd        number = func(c *call) uint32 { return c.skb().dataEnd }
		dataMeta       number = func(c *call) uint32 { return c.skb().dataMeta }
		wireLen        number = func(c *call) uint32 { return c.skb().wireLen }
		gsoSegs        number = func(c *call) uint32 { return c.skb().gsoSegs }
		ifindex        number = func(c *call) uint32 { return c.skb().ifindex }
		ingressIfindex number = func(c *call) uint32 { return c.skb().ingressIfindex }
	)
	return []rule{
		{errno: syscall.EINVAL, field: "flags",
			text:   "the only flag here is BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
			broken: func(c *call) bool { return c.flags&^testSKBChecksumComplete != 0 }},
		{errno: syscall.EINVAL, field: "flags", lacking: true,
			text:   "this kernel does not check checksums (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.11)",
			broken: func(c *call) bool { return c.flags != 0 && checksumCompleteOn(c.fd()) == syscall.EINVAL }},
		noCPU,
		noBatchSize,
		wholeEthernet,
		mustBeZero("ctx.data", data),
		mustBeZero("ctx.data_meta", dataMeta),
		{errno: syscall.EINVAL, field: "ctx.data_end", value: dataEnd.text,
			text:   "LWT programs run on linear skbs only",
			broken: func(c *call) bool { return dataEnd(c) != 0 && lwtTypes.has(c.prog.Type()) }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: dataEnd.text, lacking: true,
			text:   "this kernel runs programs on linear skbs only (others since Linux 6.19)",
			broken: func(c *call) bool { return dataEnd(c) != 0 && nonLinearSKBOn(c.fd()) == syscall.EINVAL }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: dataEnd.text,
			text:   "the linear part cannot be larger than the packet",
			broken: func(c *call) bool { return dataEnd(c) > c.dataSizeIn }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "the packet is too large",
			broken: func(c *call) bool { return skbTooLarge(c.fd(), c.dataSizeIn) },
			limit:  func(c *call) string { return fmt.Sprintf(": at most %d bytes here", largestSKB(c.fd(), 0)) }},
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "this field of the context cannot be set",
			value:  func(c *call) string { return strayText(c.straySKB()) },
			broken: func(c *call) bool { return c.straySKB() >= 0 }},
		{errno: syscall.EINVAL, field: "ctx.wire_len", value: wireLen.text,
			text:   "it must be at least the packet's length",
			broken: func(c *call) bool { return wireLen(c) != 0 && wireLen(c) < c.skbLen() },
			limit:  func(c *call) string { return fmt.Sprintf(", %d bytes", c.skbLen()) }},
		{errno: syscall.EINVAL, field: "ctx.wire_len", value: wireLen.text, text: "it can be at most 65536",
			broken: func(c *call) bool { return wireLen(c) > 1<<16 }},
		{errno: syscall.EINVAL, field: "ctx.gso_segs", value: gsoSegs.text, text: "it can be at most 65535",
			broken: func(c *call) bool { return gsoSegs(c) > 1<<16-1 }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "the packet is too short for the 20-byte IPv4 header that its EtherType announces",
			broken: func(c *call) bool { return c.etherType() == ethPIP && c.skbLinear() < ethHLen+20 }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "the packet is too short for the 40-byte IPv6 header that its EtherType announces",
			broken: func(c *call) bool { return c.etherType() == ethPIPv6 && c.skbLinear() < ethHLen+40 }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "some kernels want at least one byte after the Ethernet header",
			broken: func(c *call) bool { return c.dataSizeIn == ethHLen && !tcTypes.has(c.prog.Type()) }},
		{errno: syscall.EINVAL, field: "ctx.ingress_ifindex", value: ingressIfindex.text, lacking: true,
			text:   "this kernel takes no such field (Linux 5.11)",
			broken: func(c *call) bool { return ingressIfindex(c) != 0 && !knowsBatchSize() }},
		{errno: syscall.EINVAL, field: "flags",
			text:   "the kernel does not say why: it may not check checksums (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.11)",
			broken: func(c *call) bool { return c.flags != 0 && checksumCompleteOn(c.fd()) != 0 }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: dataEnd.text,
			text:   "the kernel does not say why: it may run programs on linear skbs only (others since Linux 6.19)",
			broken: func(c *call) bool { return dataEnd(c) != 0 && nonLinearSKBOn(c.fd()) != 0 }},
		{errno: syscall.E2BIG, field: "ctx.hwtstamp", lacking: true,
			text:   "this kernel's context ends before this field (Linux 5.16)",
			value:  func(c *call) string { return fmt.Sprint(c.skb().hwtstamp) },
			broken: func(c *call) bool { return c.skb().hwtstamp != 0 && uintptr(c.ctxSizeIn) <= unsafe.Sizeof(skBuff{}) }},
		{errno: syscall.ENODEV, field: "ctx.ifindex", value: ifindex.text, text: noSuchInterface,
			broken: func(c *call) bool { return ifindex(c) > 1 }},
		{errno: syscall.EOPNOTSUPP, field: "", lacking: true,
			text:   "lwt_xmit programs run only where the kernel has IPv6",
			broken: func(c *call) bool { return c.prog.Type() == ebpf.LWTXmit }},
		{errno: syscall.EBADMSG, field: "flags",
			text:   "after the run the checksum no longer matches the packet, or a helper has discarded it",
			broken: func(c *call) bool { return c.flags&testSKBChecksumComplete != 0 }},
		{errno: syscall.ENOMEM, field: "data_size_in", text: tooManyFragments,
			broken: func(c *call) bool { return drySKB(c.fd(), c.dataSizeIn, dataEnd(c), 0) == syscall.ENOMEM },
			limit: func(c *call) string {
				return fmt.Sprintf(", at most %d bytes here", largestSKB(c.fd(), dataEnd(c)))
			}},
	}
}

// straySKB returns the offset of the first byte of struct __sk_buff that is set
// but must not be (see convert___skb_to_skb), or -1.
func (c *call) straySKB() int {
	full := filled[SKB]()
	var settable skBuff
	settable.encode(&full, -1)
	return c.stray(view(&settable))
}

// stray returns the offset of the first byte of the context that is not 0 where
// settable is 0, or -1 if there is none.
func (c *call) stray(settable []byte) int {
	for i, bits := range settable {
		if c.ctx[i]&^bits != 0 {
			return i
		}
	}
	return -1
}

func strayText(offset int) string { return fmt.Sprintf("byte %d is not 0", offset) }

// filled returns a T with all bits set.
func filled[T any]() (v T) {
	for i := range view(&v) {
		view(&v)[i] = 0xff
	}
	return v
}

// skbLen returns skb->len, which leaves out the Ethernet header unless the
// program sees it.
func (c *call) skbLen() uint32 {
	if tcTypes.has(c.prog.Type()) {
		return c.dataSizeIn
	}
	return c.dataSizeIn - ethHLen
}

// skbLinear returns the size of the linear part of an skb that fits in a page.
func (c *call) skbLinear() uint32 {
	if linear := c.skb().dataEnd; linear != 0 {
		return min(c.dataSizeIn, max(linear, ethHLen))
	}
	return c.dataSizeIn
}

// etherType returns the EtherType of the packet.
func (c *call) etherType() uint16 { return binary.BigEndian.Uint16(c.head[12:]) }

// xdpRules returns the rules of bpf_prog_test_run_xdp in net/bpf/test_run.c.
func xdpRules() []rule {
	var (
		dataMeta number = func(c *call) uint32 { return c.xdp().dataMeta }
		linear   number = func(c *call) uint32 { return c.xdp().dataEnd }
		ingress  number = func(c *call) uint32 { return c.xdp().ingressIfindex }
		queue    number = func(c *call) uint32 { return c.xdp().rxQueueIndex }
		egress   number = func(c *call) uint32 { return c.xdp().egressIfindex }
	)
	const (
		noContext = "this kernel takes no context of XDP programs (Linux 5.15)"
		onePage   = "this kernel runs XDP programs on packets of at most one page (more since Linux 5.18)"
		noOutput  = "live frames have no output"
		metadata  = "metadata must be a multiple of 4 bytes"
	)
	return []rule{
		{errno: syscall.EINVAL, field: "", text: neverRunsText,
			broken: func(c *call) bool { return neverRuns(c.prog) }},
		{errno: syscall.EINVAL, field: "flags",
			text:   "the only flag here is BPF_F_TEST_XDP_LIVE_FRAMES",
			broken: func(c *call) bool { return c.flags&^testXDPLiveFrames != 0 }},
		noBatchSize.where(func(c *call) bool { return c.batchSize != 0 && !c.live() }),
		{errno: syscall.E2BIG, field: "batch_size", text: overMaxBatchSize,
			broken: func(c *call) bool { return c.batchSize > maxBatchSize && c.live() }},
		{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue, lacking: true, text: noContext,
			broken: func(c *call) bool { return c.metadata() != 0 && lacksXDPContext(c.prog) }},
		{errno: syscall.EINVAL, field: "ctx.ingress_ifindex", value: ingress.text, lacking: true, text: noContext,
			broken: func(c *call) bool { return ingress(c) != 0 && lacksXDPContext(c.prog) }},
		{errno: syscall.EINVAL, field: "ctx.rx_queue_index", value: queue.text, lacking: true, text: noContext,
			broken: func(c *call) bool { return queue(c) != 0 && lacksXDPContext(c.prog) }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue, lacking: true, text: noContext,
			broken: func(c *call) bool {
				// A typed request has a context of nothing else only for its LinearSize.
				return c.hasCtxIn && (linear(c) != c.dataSizeIn || c.request == "XDP") && lacksXDPContext(c.prog)
			}},
		{errno: syscall.EINVAL, field: "ctx_size_in", lacking: true, text: noContext,
			broken: func(c *call) bool { return c.hasCtx() && lacksXDPContext(c.prog) }},
		mustBeZero("ctx.data_meta", dataMeta),
		{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue, text: metadata, limit: metadataLimit,
			broken: func(c *call) bool {
				return c.metadata()%4 != 0 || c.metadata() > 0 && c.metadata() > largestMetadata(c.fd())
			}},
		{errno: syscall.EINVAL, field: "ctx.data", value: metadataValue,
			text:   "the metadata lies in the linear part, and cannot be larger than it",
			broken: func(c *call) bool { return c.metadata() > linear(c) }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue,
			text:   "the linear part cannot be larger than the input",
			broken: func(c *call) bool { return c.hasCtx() && linear(c) > c.dataSizeIn }},
		{errno: syscall.EINVAL, field: "data_size_in", value: packetValue, text: wholeEthernet.text,
			broken: func(c *call) bool { return c.dataSizeIn < ethHLen+c.metadata() }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue, lacking: true,
			text: "this kernel cannot make the linear part smaller than the packet (Linux 6.18)",
			broken: func(c *call) bool {
				return c.hasCtx() && linear(c) < c.dataSizeIn && !c.live() &&
					dryXDP(c.fd(), c.dataSizeIn, c.metadata(), linear(c)) == syscall.EINVAL
			}},
		{errno: syscall.EINVAL, field: "data_size_out", text: noOutput,
			broken: func(c *call) bool { return c.live() && c.hasDataOut && c.hasCtx() }},
		{errno: syscall.EINVAL, field: "ctx_size_out", text: noOutput,
			broken: func(c *call) bool { return c.live() && c.hasCtxOut }},
		{errno: syscall.EINVAL, field: "ctx.data_end", value: linearValue, text: "live frames are linear",
			broken: func(c *call) bool { return c.live() && c.hasCtx() && linear(c) < c.dataSizeIn }},
		mustBeZero("ctx.egress_ifindex", egress),
		{errno: syscall.EINVAL, field: "ctx.rx_queue_index", value: queue.text,
			text:   "a receive queue needs an interface",
			broken: func(c *call) bool { return queue(c) != 0 && ingress(c) == 0 }},
		{errno: syscall.EINVAL, field: "data_size_in", value: packetValue, lacking: true, text: onePage,
			broken: func(c *call) bool {
				return int(c.dataSizeIn) > xdpLinear && lacks(HaveXDPMultiBuffer())
			}},
		{errno: syscall.EMSGSIZE, field: "data_size_in", value: packetValue, lacking: true, text: onePage, broken: always},
		{errno: syscall.EINVAL, field: "data_size_in", value: packetValue,
			text:   "the packet is too large for a live frame",
			broken: liveTooLarge,
			limit: func(c *call) string {
				return fmt.Sprintf(": at most %d bytes here", largestLive(c.fd(), c.metadata()))
			}},
		{errno: syscall.EINVAL, field: "ctx.rx_queue_index", value: queue.text,
			text:   "the interface has no such receive queue",
			broken: queue.isSet},
		{errno: syscall.EINVAL, field: "",
			text:   "the kernel does not say why: it may take no context of XDP programs (Linux 5.15), or the program is for a devmap or a cpumap, which it does not run",
			broken: func(c *call) bool { return !haveXDPContext(c.prog) && c.hasCtx() }},
		{errno: syscall.EINVAL, field: "",
			text:   "the kernel does not say why: the program may be for a devmap or a cpumap, which it does not run",
			broken: func(c *call) bool { return !haveXDPContext(c.prog) }},
		{errno: syscall.ENODEV, field: "ctx.ingress_ifindex", value: ingress.text, text: noSuchInterface, broken: ingress.isSet},
		{errno: syscall.ENOMEM, field: "data_size_in", value: packetValue, text: tooManyFragments,
			broken: func(c *call) bool { return c.dataSizeIn > c.largestXDP() },
			limit: func(c *call) string {
				return fmt.Sprintf(", at most %d bytes with 17", c.largestXDP()-c.metadata())
			}},
	}
}

// metadata returns the length of the metadata in front of an XDP packet.
func (c *call) metadata() uint32 { return c.xdp().data }

// largestXDP returns the size of the largest packet with defaultFrags fragments
// behind its linear part, metadata included.
func (c *call) largestXDP() uint32 {
	linear := uint32(xdpLinear) + c.metadata()
	if c.hasCtx() {
		linear = min(linear, c.xdp().dataEnd)
	}
	return linear + uint32(defaultFrags*pageSize)
}

// linearValue returns the linear size as the request has it. Only that of Raw
// counts the metadata.
func linearValue(c *call) string {
	linear := int(c.xdp().dataEnd)
	if c.request != "Raw" {
		linear -= int(c.metadata())
	}
	return fmt.Sprint(linear)
}

func metadataValue(c *call) string { return size(c.metadata()) }

func packetValue(c *call) string { return size(int(c.dataSizeIn) - int(c.metadata())) }

func metadataLimit(c *call) string {
	if most := largestMetadata(c.fd()); most != 0 {
		return fmt.Sprintf(", at most %d here", most)
	}
	return ""
}

func liveTooLarge(c *call) bool {
	m := c.metadata()
	if !c.live() || m%4 != 0 || m > largestMetadata(c.fd()) {
		return false
	}
	return c.dataSizeIn > m && c.dataSizeIn-m > largestLive(c.fd(), m)
}

// flowDissectorRules returns the rules of bpf_prog_test_run_flow_dissector in
// net/bpf/test_run.c.
func flowDissectorRules() []rule {
	settable := flowKeys{flags: ^uint32(0)}
	stray := func(c *call) int { return c.stray(view(&settable)) }
	return []rule{
		noFlags,
		noCPU,
		noBatchSize,
		wholeEthernet,
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "the packet is too large: a flow dissector runs on at most one page",
			broken: func(c *call) bool { return int(c.dataSizeIn) > pageSize },
			limit:  pageHere},
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "only the flags of the context can be set",
			value:  func(c *call) string { return strayText(stray(c)) },
			broken: func(c *call) bool { return stray(c) >= 0 }},
	}
}

// skLookupRules returns the rules of bpf_prog_test_run_sk_lookup in
// net/bpf/test_run.c.
func skLookupRules() []rule {
	var (
		family    number = func(c *call) uint32 { return c.skLookup().family }
		ingress   number = func(c *call) uint32 { return c.skLookup().ingressIfindex }
		localPort number = func(c *call) uint32 { return c.skLookup().localPort }
		// Kernels that check the remote port have it in 32 bits.
		remotePort number = func(c *call) uint32 {
			l := c.skLookup()
			return binary.NativeEndian.Uint32(append(l.remotePort[:], l.afterRemotePort[:]...))
		}
	)
	settable := filled[skLookup]()
	settable.end = 0
	stray := func(c *call) int { return c.stray(view(&settable)) }
	return []rule{
		noFlags,
		noCPU,
		noBatchSize,
		noDataIn.where(func(c *call) bool { return c.dataSizeIn != 0 || c.hasDataIn }),
		noDataOut.where(func(c *call) bool { return c.dataSizeOut != 0 || c.hasDataOut }),
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "this type needs a context",
			broken: func(c *call) bool { return !c.hasCtx() }},
		{errno: syscall.EINVAL, field: "ctx.cookie", text: "must be 0",
			broken: func(c *call) bool { return c.skLookup().cookie != 0 }},
		mustBeZero("ctx.ingress_ifindex", ingress),
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "all bytes after ingress_ifindex must be 0",
			value:  func(c *call) string { return strayText(stray(c)) },
			broken: func(c *call) bool { return stray(c) >= 0 }},
		{errno: syscall.ERANGE, field: "ctx.local_port", value: localPort.text, text: "a port is at most 65535",
			broken: func(c *call) bool { return localPort(c) > 1<<16-1 }},
		{errno: syscall.ERANGE, field: "ctx.remote_port", text: "a port has 16 bits",
			value:  remotePort.text,
			broken: always},
		{errno: syscall.EAFNOSUPPORT, field: "ctx.family", value: family.text,
			text: "must be AF_INET or AF_INET6, and the kernel must have IPv6 for the latter", broken: always},
		{errno: syscall.EOPNOTSUPP, field: "",
			text: "the program picked a socket of a reuseport group without BPF_SK_LOOKUP_F_NO_REUSEPORT", broken: always},
	}
}

// netfilterRules returns the rules of bpf_prog_test_run_nf in net/bpf/test_run.c.
func netfilterRules() []rule {
	var family number = func(c *call) uint32 { return uint32(c.nfState().pf) }
	settable := nfHookState{hook: 0xff, pf: 0xff, padding: filled[[6]uint8]()}
	stray := func(c *call) int { return c.stray(view(&settable)) }
	return []rule{
		noFlags,
		noCPU,
		noBatchSize,
		{errno: syscall.EINVAL, field: "ctx.pf", value: family.text,
			text:   "must be NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)",
			broken: func(c *call) bool { return c.hasCtx() && family(c) != afInet && family(c) != afInet6 }},
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "only hook and pf of the context can be set",
			value:  func(c *call) string { return strayText(stray(c)) },
			broken: func(c *call) bool { return stray(c) >= 0 }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "a packet on the hook LOCAL_OUT begins with its IP header, at least 20 bytes",
			broken: func(c *call) bool { return c.localOut() && c.dataSizeIn < 20 }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text:   "a packet on this hook begins with an Ethernet and an IPv4 header, 34 bytes",
			broken: func(c *call) bool { return !c.localOut() && c.dataSizeIn < ethHLen+20 }},
		{errno: syscall.EINVAL, field: "data_size_in",
			text: "an IPv6 packet on this hook begins with 54 bytes of headers",
			broken: func(c *call) bool {
				return !c.localOut() && c.etherType() == ethPIPv6 && c.dataSizeIn < ethHLen+40
			}},
		{errno: syscall.EINVAL, field: "ctx.pf", value: family.text, text: "the packet is of the other family",
			broken: func(c *call) bool {
				return !c.localOut() && (c.etherType() == ethPIP && family(c) != afInet || c.etherType() == ethPIPv6 && family(c) != afInet6)
			}},
		{errno: syscall.EPROTO, field: "data_size_in",
			text:   "the packet is neither IPv4 nor IPv6",
			value:  func(c *call) string { return fmt.Sprintf("EtherType %#04x", c.etherType()) },
			broken: func(c *call) bool { return !c.localOut() }},
		{errno: syscall.EINVAL, field: "data_size_in", text: "the packet is too large: it must fit in a page",
			broken: func(c *call) bool { return dryNetfilter(c.fd(), c.dataSizeIn) == syscall.EINVAL },
			limit:  func(c *call) string { return fmt.Sprintf(", %d bytes here", largestNetfilter(c.fd())) }},
	}
}

// localOut reports whether the packet is on the hook LOCAL_OUT, and so begins with
// its IP header. LOCAL_OUT is also the hook of a call without a context.
func (c *call) localOut() bool { return !c.hasCtx() || c.nfState().hook == nfLocalOut }

// rawTracepointRules returns the rules of bpf_prog_test_run_raw_tp in
// net/bpf/test_run.c.
func rawTracepointRules() []rule {
	toCPU := func(c *call) bool { return c.flags&testRunOnCPU != 0 }
	return []rule{
		noDataIn,
		noDataOut,
		{errno: syscall.EINVAL, field: "ctx_size_out", text: "this type has no output",
			broken: func(c *call) bool { return c.ctxSizeOut != 0 || c.hasCtxOut }},
		noDuration,
		noRepeat,
		noBatchSize,
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "a tracepoint has at most 12 arguments, 96 bytes",
			broken: func(c *call) bool { return c.ctxSizeIn > 8*maxFuncArgs }},
		{errno: syscall.EINVAL, field: "cpu", text: "needs the flag BPF_F_TEST_RUN_ON_CPU",
			broken: func(c *call) bool { return c.cpu != 0 && !toCPU(c) }},
		{errno: syscall.EINVAL, field: "cpu", text: "a program that sleeps cannot be sent to a CPU",
			broken: func(c *call) bool { return toCPU(c) && dryOnCPU(c.fd(), maxFuncArgs) == syscall.EINVAL }},
		{errno: syscall.EINVAL, field: "ctx_size_in", value: argsValue, text: "the program reads more arguments",
			broken: func(c *call) bool { return c.ctxSizeIn < 8*maxFuncArgs }},
		{errno: syscall.ENXIO, field: "cpu", text: noSuchCPU, broken: always},
	}
}

func argsValue(c *call) string {
	if c.ctxSizeIn%8 != 0 {
		return size(c.ctxSizeIn)
	}
	return arguments(int(c.ctxSizeIn / 8))
}

// tracingRules returns the rules of bpf_prog_test_run_tracing in net/bpf/test_run.c.
func tracingRules() []rule {
	return []rule{
		noFlags,
		noCPU,
		noBatchSize,
		{errno: syscall.EFAULT, field: "",
			text: "either the kernel has no test functions for the program's attach type (it has them for fentry, fexit and fmod_ret), " +
				"or a program that is attached to one of them changed its result",
			broken: always},
	}
}

// syscallRules returns the rules of bpf_prog_test_run_syscall in net/bpf/test_run.c.
func syscallRules() []rule {
	return []rule{
		noDataIn,
		noDataOut,
		{errno: syscall.EINVAL, field: "ctx_size_out", text: "this type writes its context in place",
			broken: func(c *call) bool { return c.ctxSizeOut != 0 || c.hasCtxOut }},
		noDuration,
		noRepeat,
		noFlags,
		noBatchSize,
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "a context is at most 65535 bytes",
			broken: func(c *call) bool { return c.ctxSizeIn > maxCtx }},
		{errno: syscall.EINVAL, field: "ctx_size_in", text: "the program reads or writes beyond the end of its context",
			broken: always},
		{errno: syscall.EFAULT, field: "ctx_size_in", text: "the context cannot be read, or could not be written after the run",
			broken: always},
	}
}

// structOpsRules returns the rules of bpf_struct_ops_test_run in
// net/bpf/bpf_dummy_struct_ops.c.
func structOpsRules() []rule {
	return []rule{
		{errno: syscall.EOPNOTSUPP, field: "", lacking: true,
			text: "the kernel runs no struct_ops programs but those of bpf_dummy_ops", broken: always},
		{errno: syscall.EINVAL, field: "ctx_size_in", value: structOpsArgs,
			text:   "too many or too few arguments",
			broken: func(c *call) bool { return dryStructOps(c.fd(), c.ctxSizeIn) != syscall.EFAULT },
			limit:  structOpsLimit},
		{errno: syscall.EINVAL, field: "ctx.state", text: "the function cannot take a null state (refused since Linux 6.11)",
			value: func(c *call) string { return "nil" }, broken: always},
		{errno: syscall.EFAULT, field: "ctx_size_in", text: "the state cannot be read, or could not be written after the run",
			broken: always},
	}
}

// structOpsArgs returns how many arguments there are, counted as in the request.
func structOpsArgs(c *call) string { return c.countArgs(c.ctxSizeIn) }

// structOpsLimit returns how many arguments the function takes.
func structOpsLimit(c *call) string {
	for size := uint32(8); size <= 8*maxFuncArgs; size += 8 {
		if dryStructOps(c.fd(), size) == syscall.EFAULT {
			return ": the function takes " + c.countArgs(size)
		}
	}
	return ""
}

func (c *call) countArgs(bytes uint32) string {
	if c.request == "Raw" || bytes < 8 {
		return size(bytes)
	}
	return fmt.Sprintf("%d after the state", bytes/8-1)
}

// arguments puts a number of arguments in words.
func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
