package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The kernel's contexts, as a user of cilium/ebpf writes them down for
// RunOptions. There is no implicit padding, which encoding/binary would leave
// out.

// xdpMD is struct xdp_md.
type xdpMD struct {
	Data, DataEnd, DataMeta                     uint32
	IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// skBuff is struct __sk_buff.
type skBuff struct {
	Len, PktType, Mark, QueueMapping    uint32
	Protocol, VlanPresent, VlanTCI      uint32
	VlanProto, Priority                 uint32
	IngressIfindex, Ifindex, TCIndex    uint32
	CB                                  [5]uint32
	Hash, TCClassid, Data, DataEnd      uint32
	NapiID, Family, RemoteIP4, LocalIP4 uint32
	RemoteIP6, LocalIP6                 [4]uint32
	RemotePort, LocalPort, DataMeta     uint32
	FlowKeys, TStamp                    uint64
	WireLen, GSOSegs                    uint32
	SK                                  uint64
	GSOSize                             uint32
	TStampType                          uint8
	_                                   [3]uint8
	HWTStamp                            uint64
}

// skLookup is struct bpf_sk_lookup.
type skLookup struct {
	Cookie           uint64
	Family, Protocol uint32
	RemoteIP4        [4]byte
	RemoteIP6        [16]byte
	RemotePort       [2]byte
	_                [2]byte
	LocalIP4         [4]byte
	LocalIP6         [16]byte
	LocalPort        uint32
	IngressIfindex   uint32
	_                uint32
}

// flowKeys is struct bpf_flow_keys.
type flowKeys struct {
	NHOff, THOff, AddrProto               uint16
	IsFrag, IsFirstFrag, IsEncap, IPProto uint8
	NProto, SPort, DPort                  [2]byte
	Addrs                                 [32]byte
	Flags                                 uint32
	FlowLabel                             [4]byte
}

// bytesOf returns a context as the kernel reads it.
func bytesOf(ctx any) []byte {
	b, err := binary.Append(nil, binary.NativeEndian, ctx)
	if err != nil {
		panic(err) // a context that is no plain data
	}
	return b
}

// frame returns a packet of n bytes. Its destination is a MAC address that no
// interface here has. It is UDP over IPv4 in a documentation network, without a UDP
// checksum.
func frame(n int) []byte {
	const ethLen, ipLen = 14, 20
	b := make([]byte, n)
	copy(b, []byte{0x02, 0, 0, 0, 0, 0x99, 0x02, 0, 0, 0, 0, 0x01, 0x08, 0x00})
	ip := b[ethLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(min(n-ethLen, 0xffff)))
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipLen]))
	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp[0:], 9)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(min(len(udp), 0xffff-ipLen)))
	return b
}

// checksum returns the checksum of an IPv4 header whose own checksum is 0.
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
