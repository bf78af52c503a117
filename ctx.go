package progrun

import (
	"math"
	"syscall"
	"unsafe"
)

// SKB is the context of programs that run on socket buffers: the fields of struct
// __sk_buff that BPF_PROG_RUN takes and returns. The kernel requires all other
// fields to be zero, and does not return them.
//
// The zero value in a request means no context. A result has the fields as the
// program left them.
type SKB struct {
	// Mark is skb->mark. Since Linux 5.4.
	Mark uint32
	// Priority is skb->priority. Since Linux 5.2.
	Priority uint32
	// IngressIfindex is skb->skb_iif. It can be any 32-bit number: the kernel does
	// not look up the interface. Since Linux 5.11.
	IngressIfindex int
	// Ifindex is the interface of the packet, in the network namespace of the
	// calling thread. 0 and 1 mean loopback; any other must exist (ENODEV). In a
	// result it is the interface that the kernel used. Since Linux 5.9.
	Ifindex int
	// CB is skb->cb, the program's scratch space. Since Linux 5.2.
	CB [5]uint32
	// TStampNS is skb->tstamp, in nanoseconds. Since Linux 5.4.
	TStampNS uint64
	// WireLen is the packet's length on the wire in bytes, from the length of
	// Packet up to 65,536. 0 means the length of Packet. A program can read it but
	// not write it, so it comes back as it went in. Since Linux 5.6.
	WireLen int
	// GSOSegs is skb_shinfo(skb)->gso_segs, at most 65,535. Since Linux 5.6.
	GSOSegs int
	// GSOSize is skb_shinfo(skb)->gso_size, at most 65,535. The kernel does not
	// read it back, so a result has the value of the request. Since Linux 5.7.
	GSOSize int
	// HWTStampNS is skb_hwtstamps(skb)->hwtstamp, in nanoseconds. Since Linux 5.16.
	HWTStampNS uint64
}

// check rejects numbers that do not fit in __sk_buff, or that the kernel would
// truncate.
func (s *SKB) check(request string) error {
	if err := inRange(request, "Context.IngressIfindex", s.IngressIfindex, math.MaxUint32); err != nil {
		return err
	}
	if err := canExist(request, "Context.Ifindex", s.Ifindex, noSuchInterface, syscall.ENODEV); err != nil {
		return err
	}
	if err := inRange(request, "Context.WireLen", s.WireLen, 1<<16); err != nil {
		return err
	}
	if err := inRange(request, "Context.GSOSegs", s.GSOSegs, 1<<16-1); err != nil {
		return err
	}
	// The kernel would silently keep the low 16 bits.
	return inRange(request, "Context.GSOSize", s.GSOSize, 1<<16-1)
}

// changed reports whether the context that came back differs from s, apart from
// what the kernel fills in.
func (s SKB) changed(out *SKB) bool {
	if s.Ifindex == 0 {
		s.Ifindex = out.Ifindex
	}
	return s != *out
}

// skBuff is struct __sk_buff. The blank field keeps the kernel's layout where a
// uint64 is aligned to 4 bytes.
type skBuff struct {
	len, pktType, mark, queueMapping    uint32
	protocol, vlanPresent, vlanTCI      uint32
	vlanProto, priority                 uint32
	ingressIfindex, ifindex, tcIndex    uint32
	cb                                  [5]uint32
	hash, tcClassid, data, dataEnd      uint32
	napiID, family, remoteIP4, localIP4 uint32
	remoteIP6, localIP6                 [4]uint32
	remotePort, localPort               uint32
	dataMeta                            uint32
	flowKeys                            uint64
	tstamp                              uint64
	wireLen, gsoSegs                    uint32
	sk                                  uint64
	gsoSize                             uint32
	tstampType                          uint8
	_                                   [3]uint8
	hwtstamp                            uint64
}

// encode fills in the fields of s. linear is the size of the linear part, or 0.
func (b *skBuff) encode(s *SKB, linear int) {
	b.mark, b.priority, b.cb = s.Mark, s.Priority, s.CB
	b.ingressIfindex, b.ifindex = uint32(s.IngressIfindex), uint32(s.Ifindex)
	b.tstamp, b.hwtstamp = s.TStampNS, s.HWTStampNS
	b.wireLen, b.gsoSegs, b.gsoSize = uint32(s.WireLen), uint32(s.GSOSegs), uint32(s.GSOSize)
	b.dataEnd = uint32(linear)
}

// decode returns the fields that the kernel returns.
func (b *skBuff) decode() SKB {
	return SKB{
		Mark: b.mark, Priority: b.priority, CB: b.cb,
		IngressIfindex: int(b.ingressIfindex), Ifindex: int(b.ifindex),
		TStampNS: b.tstamp, HWTStampNS: b.hwtstamp,
		WireLen: int(b.wireLen), GSOSegs: int(b.gsoSegs), GSOSize: int(b.gsoSize),
	}
}

// xdpMD is struct xdp_md. Its offsets count from the start of the metadata, which
// lies in front of the packet.
type xdpMD struct {
	data, dataEnd, dataMeta                     uint32
	ingressIfindex, rxQueueIndex, egressIfindex uint32
}

// flowKeys is struct bpf_flow_keys.
type flowKeys struct {
	nhoff, thoff, addrProto      uint16
	isFrag, isFirstFrag, isEncap uint8
	ipProto                      uint8
	nProto, sport, dport         [2]byte  // big-endian
	addrs                        [32]byte // IPv4: 4 source, 4 destination; IPv6: 16 and 16
	flags                        uint32
	flowLabel                    [4]byte // big-endian
}

const (
	ethPIP   = 0x0800 // ETH_P_IP
	ethPIPv6 = 0x86dd // ETH_P_IPV6
)

// skLookup is struct bpf_sk_lookup. As in the kernel, the remote port is big-endian
// and the local one is not.
type skLookup struct {
	cookie           uint64
	family, protocol uint32
	remoteIP4        [4]byte
	remoteIP6        [16]byte
	remotePort       [2]byte // big-endian
	afterRemotePort  [2]byte // part of the port before Linux 5.18
	localIP4         [4]byte
	localIP6         [16]byte
	localPort        uint32 // in the byte order of the machine
	ingressIfindex   uint32
	end              uint32 // padding that must be 0
}

// Numbers of the kernel in contexts: the address families of skLookup, which are
// also the protocol families of nfHookState, and a hook of nfHookState. Other
// systems number the families differently, so package syscall cannot serve.
const (
	afInet     = 2
	afInet6    = 10
	nfLocalOut = 3 // NF_INET_LOCAL_OUT
)

// nfHookState is struct nf_hook_state of a 64-bit kernel, the context of netfilter
// programs. All but hook, pf and the padding must be 0.
type nfHookState struct {
	hook, pf         uint8
	padding          [6]uint8 // of any value
	in, out, sk, net uint64
	okfn             uint64
}

// dummyOps holds the arguments of a program of bpf_dummy_ops. The first is a
// pointer into user space, to a struct bpf_dummy_ops_state.
type dummyOps struct {
	state pointer
	args  [maxFuncArgs - 1]uint64
}

// largestContext is the size of the largest context of a handler.
const largestContext = max(unsafe.Sizeof(skBuff{}), unsafe.Sizeof(xdpMD{}), unsafe.Sizeof(flowKeys{}),
	unsafe.Sizeof(skLookup{}), unsafe.Sizeof(nfHookState{}), unsafe.Sizeof(dummyOps{}))

// view returns the bytes of a context, in place.
func view[T any](ctx *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(ctx)), unsafe.Sizeof(*ctx))
}
