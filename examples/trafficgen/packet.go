//go:build linux

package main

import (
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	ethernetHeader = 14
	vlanTag        = 4
	minSize        = 60      // smallest Ethernet frame, without the 4 bytes that end it on a real wire
	maxSize        = 1 << 16 // more than a page, and so than a live frame, on every machine
)

// The default addresses, from the ranges for benchmarks (RFC 2544, RFC 5180).
var (
	source       = netip.MustParseAddr("198.18.0.1")
	destination  = netip.MustParseAddr("198.19.0.1")
	source6      = netip.MustParseAddr("2001:2::1")
	destination6 = netip.MustParseAddr("2001:2:0:8000::1")
)

const (
	discard   = 9     // default destination port
	firstPort = 49152 // first default source port: all ephemeral ports in turn
	ports     = 16384
)

// step is struct step of trafficgen.c: a field that takes every value of a range
// in turn.
type step struct {
	First, Count uint32
	Offset       uint16
	Bytes, InIP  uint8
}

// template is a frame, and what generate changes in it.
type template struct {
	frame             []byte
	steps             []step
	ipChecksum, ipSum uint32 // offset of the checksum, and the sum of all that does not change
	l4Checksum, l4Sum uint32
}

// l3 returns the offset of the IP header.
func (p *packetOptions) l3() int {
	if p.vlan >= 0 {
		return ethernetHeader + vlanTag
	}
	return ethernetHeader
}

// l4 returns the offset of the transport header.
func (p *packetOptions) l4() int {
	if p.src.first.Is4() {
		return p.l3() + 20
	}
	return p.l3() + 40
}

// headers returns the length of all headers.
func (p *packetOptions) headers() int {
	if p.proto == "tcp" {
		return p.l4() + 20
	}
	return p.l4() + 8
}

// newTemplate returns the template that the flags describe.
func newTemplate(p *packetOptions) (*template, error) {
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, p.layers()...); err != nil {
		return nil, err
	}
	t := &template{frame: buf.Bytes()}
	t.addSteps(p)
	t.sumUp(p)
	return t, nil
}

// layers returns the layers of the frame, from the outside in.
func (p *packetOptions) layers() []gopacket.SerializableLayer {
	network, inner := p.network()
	ether := &layers.Ethernet{SrcMAC: p.srcMAC, DstMAC: p.dstMAC, EthernetType: inner}
	all := []gopacket.SerializableLayer{ether}
	if p.vlan >= 0 {
		ether.EthernetType = layers.EthernetTypeDot1Q
		all = append(all, &layers.Dot1Q{VLANIdentifier: uint16(p.vlan), Type: inner})
	}
	return append(all, network, p.transport(network), gopacket.Payload(make([]byte, p.size-p.headers())))
}

// networkLayer is an IPv4 or IPv6 header.
type networkLayer interface {
	gopacket.NetworkLayer
	gopacket.SerializableLayer
}

func (p *packetOptions) network() (networkLayer, layers.EthernetType) {
	proto := layers.IPProtocolUDP
	if p.proto == "tcp" {
		proto = layers.IPProtocolTCP
	}
	src, dst := net.IP(p.src.first.AsSlice()), net.IP(p.dst.first.AsSlice())
	if p.src.first.Is4() {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: src, DstIP: dst}, layers.EthernetTypeIPv4
	}
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src, DstIP: dst}, layers.EthernetTypeIPv6
}

func (p *packetOptions) transport(network gopacket.NetworkLayer) gopacket.SerializableLayer {
	if p.proto == "tcp" {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(p.srcPort.first), DstPort: layers.TCPPort(p.dstPort.first), SYN: true, Window: 65535}
		_ = tcp.SetNetworkLayerForChecksum(network) // fails only for other layers than IPv4 and IPv6
		return tcp
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(p.srcPort.first), DstPort: layers.UDPPort(p.dstPort.first)}
	_ = udp.SetNetworkLayerForChecksum(network)
	return udp
}

// addSteps notes which fields have more than one value. Ports come first: they
// spread over the queues of a receiver.
func (t *template) addSteps(p *packetOptions) {
	l3, l4 := p.l3(), p.l4()
	src, dst, inIP := l3+12, l3+16, uint8(1)
	if !p.src.first.Is4() {
		src, dst, inIP = l3+20, l3+36, 0 // the last 32 bits of each
	}
	for _, s := range []step{
		{p.srcPort.first, p.srcPort.count, uint16(l4), 2, 0},
		{p.dstPort.first, p.dstPort.count, uint16(l4 + 2), 2, 0},
		{low32(p.src.first), p.src.count, uint16(src), 4, inIP},
		{low32(p.dst.first), p.dst.count, uint16(dst), 4, inIP},
	} {
		if s.Count > 1 {
			t.steps = append(t.steps, s)
		}
	}
}

// sumUp notes the checksums that change with the steps, and their sums without the
// steps. Such a sum is that of the finished frame, less the first values of the
// fields.
func (t *template) sumUp(p *packetOptions) {
	if len(t.steps) == 0 {
		return
	}
	l4 := p.l4() + 6 // the checksum of a UDP header
	if p.proto == "tcp" {
		l4 = p.l4() + 16
	}
	t.l4Checksum, t.l4Sum = uint32(l4), uint32(^be16(t.frame[l4:]))
	for _, s := range t.steps {
		t.l4Sum = less(t.l4Sum, s.First)
	}
	if p.src.first.Is4() {
		ip := p.l3() + 10
		t.ipChecksum, t.ipSum = uint32(ip), uint32(^be16(t.frame[ip:]))
		for _, s := range t.steps {
			if s.InIP != 0 {
				t.ipSum = less(t.ipSum, s.First)
			}
		}
	}
}

func be16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

// less subtracts a field of 16 or 32 bits from a sum, in one's complement.
func less(sum, field uint32) uint32 {
	for _, word := range []uint32{field >> 16, field & 0xffff} {
		sum += 0xffff - word
		sum = sum&0xffff + sum>>16
	}
	return sum
}
