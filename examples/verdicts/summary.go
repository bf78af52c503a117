package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// decode finds the headers of a packet, as far as it has them.
func decode(packet []byte) gopacket.Packet {
	return gopacket.NewPacket(packet, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
}

// summary is a packet in a few words, such as
// "IPv4 192.0.2.1:1234 > 192.0.2.2:53 UDP", by its outermost IP header.
func summary(packet []byte) string {
	var words []string
	var src, dst netip.Addr
outermost:
	for _, layer := range decode(packet).Layers() {
		switch l := layer.(type) {
		case *layers.Ethernet:
			continue
		case *layers.Dot1Q:
			words = append(words, fmt.Sprintf("VLAN %d", l.VLANIdentifier))
			continue
		case *layers.ARP:
			words = append(words, arp(l))
		case *layers.IPv4:
			src, dst = address(l.SrcIP), address(l.DstIP)
			words = append(words, "IPv4")
			if more := l.Flags&layers.IPv4MoreFragments != 0; !more && l.FragOffset == 0 {
				continue
			}
			words = append(words, addresses(src, dst), l.Protocol.String()+",", fragment(l.FragOffset))
		case *layers.IPv6:
			src, dst = address(l.SrcIP), address(l.DstIP)
			words = append(words, "IPv6")
			continue
		case *layers.IPv6HopByHop, *layers.IPv6Destination, *layers.IPv6Routing:
			continue
		case *layers.IPv6Fragment:
			words = append(words, addresses(src, dst), l.NextHeader.String()+",", fragment(l.FragmentOffset))
		case *layers.TCP:
			if len(l.Contents) == 0 { // its header is not all there
				words = append(words, addresses(src, dst), "TCP", malformed)
				break
			}
			words = append(words, endpoint(src, uint16(l.SrcPort)), ">", endpoint(dst, uint16(l.DstPort)), "TCP", tcpFlags(l))
		case *layers.UDP:
			if len(l.Contents) == 0 {
				words = append(words, addresses(src, dst), "UDP", malformed)
				break
			}
			words = append(words, endpoint(src, uint16(l.SrcPort)), ">", endpoint(dst, uint16(l.DstPort)), "UDP")
		case *layers.ICMPv4:
			words = append(words, src.String(), ">", dst.String(), "ICMP", l.TypeCode.String())
		case *layers.ICMPv6:
			words = append(words, src.String(), ">", dst.String(), "ICMPv6", l.TypeCode.String())
		case *gopacket.DecodeFailure:
			words = append(words, addresses(src, dst), malformed)
		default:
			words = append(words, addresses(src, dst), layer.LayerType().String())
		}
		break outermost
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

const malformed = "malformed or cut short"

// fragment names a fragment by its offset in units of 8 bytes.
func fragment(offset uint16) string {
	if offset == 0 {
		return "first fragment"
	}
	return fmt.Sprintf("fragment at %d", 8*int(offset))
}

func addresses(src, dst netip.Addr) string {
	if !src.IsValid() {
		return ""
	}
	return src.String() + " > " + dst.String()
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
