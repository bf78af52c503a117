package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// decode finds the headers of a packet, as far as the packet has them.
func decode(packet []byte) gopacket.Packet {
	return gopacket.NewPacket(packet, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
}

// summary returns a packet in a few words, such as
// "IPv4 192.0.2.1:1234 > 192.0.2.2:53 UDP", by its outermost IP header.
func summary(packet []byte) string {
	var s sentence
	for _, layer := range decode(packet).Layers() {
		if done := s.network(layer); done {
			break
		}
	}
	return strings.Join(strings.Fields(strings.Join(s.words, " ")), " ")
}

// sentence builds a summary.
type sentence struct {
	words    []string
	src, dst netip.Addr
}

func (s *sentence) add(words ...string) { s.words = append(s.words, words...) }

// network adds a layer, up to the IP header. It reports whether that was the last one to
// add.
func (s *sentence) network(layer gopacket.Layer) (done bool) {
	switch l := layer.(type) {
	case *layers.Ethernet:
		return false
	case *layers.Dot1Q:
		s.add(fmt.Sprintf("VLAN %d", l.VLANIdentifier))
		return false
	case *layers.ARP:
		s.add(arp(l))
	case *layers.IPv4:
		s.src, s.dst = address(l.SrcIP), address(l.DstIP)
		s.add("IPv4")
		if more := l.Flags&layers.IPv4MoreFragments != 0; !more && l.FragOffset == 0 {
			return false
		}
		s.add(s.addresses(), l.Protocol.String()+",", fragment(l.FragOffset))
	case *layers.IPv6:
		s.src, s.dst = address(l.SrcIP), address(l.DstIP)
		s.add("IPv6")
		return false
	case *layers.IPv6HopByHop, *layers.IPv6Destination, *layers.IPv6Routing:
		return false
	case *layers.IPv6Fragment:
		s.add(s.addresses(), l.NextHeader.String()+",", fragment(l.FragmentOffset))
	default:
		s.transport(layer)
	}
	return true
}

// transport adds what follows an IP header.
func (s *sentence) transport(layer gopacket.Layer) {
	switch l := layer.(type) {
	case *layers.TCP:
		s.ports("TCP", l.Contents, uint16(l.SrcPort), uint16(l.DstPort))
		s.add(tcpFlags(l))
	case *layers.UDP:
		s.ports("UDP", l.Contents, uint16(l.SrcPort), uint16(l.DstPort))
	case *layers.ICMPv4:
		s.add(s.addresses(), "ICMP", l.TypeCode.String())
	case *layers.ICMPv6:
		s.add(s.addresses(), "ICMPv6", l.TypeCode.String())
	case *gopacket.DecodeFailure:
		s.add(s.addresses(), malformed)
	default:
		s.add(s.addresses(), layer.LayerType().String())
	}
}

// ports adds the two ends of TCP or UDP, if the header is complete.
func (s *sentence) ports(protocol string, header []byte, src, dst uint16) {
	if len(header) == 0 {
		s.add(s.addresses(), protocol, malformed)
		return
	}
	s.add(endpoint(s.src, src), ">", endpoint(s.dst, dst), protocol)
}

func (s *sentence) addresses() string {
	if !s.src.IsValid() {
		return ""
	}
	return s.src.String() + " > " + s.dst.String()
}

const malformed = "malformed or cut short"

// fragment returns the name of a fragment, with its offset in units of 8 bytes.
func fragment(offset uint16) string {
	if offset == 0 {
		return "first fragment"
	}
	return fmt.Sprintf("fragment at %d", 8*int(offset))
}

func arp(l *layers.ARP) string {
	sender, target := address(l.SourceProtAddress), address(l.DstProtAddress)
	if l.Operation == layers.ARPRequest {
		return fmt.Sprintf("ARP %s asks for %s", sender, target)
	}
	return fmt.Sprintf("ARP %s is at %s", sender, net.HardwareAddr(l.SourceHwAddress))
}

func tcpFlags(l *layers.TCP) string {
	var flags []string
	for _, f := range []struct {
		set  bool
		name string
	}{{l.SYN, "SYN"}, {l.FIN, "FIN"}, {l.RST, "RST"}, {l.PSH, "PSH"}, {l.ACK, "ACK"}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	return strings.Join(flags, ",")
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func endpoint(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
