package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// field is a field of a header, up to the offset end.
type field struct {
	end    int
	name   string
	format func([]byte) string
}

var headers = map[gopacket.LayerType][]field{
	layers.LayerTypeEthernet: {{6, "destination", macAddress}, {12, "source", macAddress}, {14, "type", hexNumber}},
	layers.LayerTypeDot1Q:    {{2, "tag", vlanID}, {4, "type", hexNumber}},
	layers.LayerTypeIPv4: {{1, "version", hexNumber}, {2, "TOS", hexNumber}, {4, "length", number}, {6, "id", number},
		{8, "fragment", hexNumber}, {9, "TTL", number}, {10, "protocol", number}, {12, "checksum", hexNumber},
		{16, "source", ipAddress}, {20, "destination", ipAddress}, {60, "options", hexBytes}},
	layers.LayerTypeIPv6: {{4, "flow label", hexNumber}, {6, "length", number}, {7, "next header", number},
		{8, "hop limit", number}, {24, "source", ipAddress}, {40, "destination", ipAddress}},
	layers.LayerTypeTCP: {{2, "source port", number}, {4, "destination port", number}, {8, "sequence", number},
		{12, "acknowledgment", number}, {14, "flags", hexNumber}, {16, "window", number}, {18, "checksum", hexNumber},
		{20, "urgent", number}, {60, "options", hexBytes}},
	layers.LayerTypeUDP: {{2, "source port", number}, {4, "destination port", number}, {6, "length", number}, {8, "checksum", hexNumber}},
}

func macAddress(b []byte) string { return net.HardwareAddr(b).String() }

func ipAddress(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

func number(b []byte) string { return strconv.FormatUint(bigEndian(b), 10) }

func hexNumber(b []byte) string { return fmt.Sprintf("0x%0*x", 2*len(b), bigEndian(b)) }

func vlanID(b []byte) string { return strconv.FormatUint(bigEndian(b)&0xfff, 10) }

func hexBytes(b []byte) string {
	if len(b) > 16 {
		return hex.EncodeToString(b[:16]) + "…"
	}
	return hex.EncodeToString(b)
}

func bigEndian(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// place is a field in a packet, or a part of the packet without known fields.
type place struct {
	layer, name string
	from, to    int
	format      func([]byte) string
}

func (p place) String() string { return strings.TrimSpace(p.layer + " " + p.name) }

// places returns the fields at the given positions, in their order.
func places(packet []byte, positions []int) (found []place) {
	start := 0
	for _, layer := range decode(packet).Layers() {
		end := start + len(layer.LayerContents())
		for len(positions) > 0 && positions[0] < end {
			p := placeOf(layer.LayerType(), start, end, positions[0])
			found = append(found, p)
			positions = positions[countBefore(positions, p.to):]
		}
		start = end
	}
	if len(positions) > 0 {
		found = append(found, place{layer: unknown, from: positions[0], to: len(packet), format: hexBytes})
	}
	return found
}

func countBefore(positions []int, end int) int {
	n, _ := slices.BinarySearch(positions, end)
	return n
}

// unknown is the name of what is no header that can be decoded.
const unknown = "what follows"

// placeOf returns the field at a position in a header, which lies from start to end. A
// header without known fields is one place.
func placeOf(layer gopacket.LayerType, start, end, position int) place {
	if layer == gopacket.LayerTypeDecodeFailure {
		return place{unknown, "", start, end, hexBytes}
	}
	from := start
	for _, f := range headers[layer] {
		to := min(start+f.end, end)
		if position < to {
			return place{layer.String(), f.name, from, to, f.format}
		}
		from = to
	}
	return place{layer.String(), "", from, end, hexBytes}
}

// fieldsOf returns the names of the fields at the given positions, such as
// "IPv4 TTL, checksum; UDP checksum".
func fieldsOf(packet []byte, positions []int) string {
	var b strings.Builder
	last := ""
	for i, p := range places(packet, positions) {
		switch {
		case i > 0 && p.layer == last:
			b.WriteString(", " + p.name)
			continue
		case i > 0:
			b.WriteString("; ")
		}
		b.WriteString(p.String())
		last = p.layer
	}
	return b.String()
}
