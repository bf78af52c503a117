//go:build linux

package main

import (
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	ethernetHeader = 14
	headers        = ethernetHeader + 20 + 8 // IPv4, UDP
	minSize        = 60                      // of an Ethernet frame, which ends with 4 more bytes on a real wire
)

// The addresses are of those for benchmarks (RFC 2544).
var (
	source      = net.IPv4(198, 18, 0, 1)
	destination = net.IPv4(198, 19, 0, 1)
)

// discard is PORT_DISCARD of trafficgen.c.
const discard = 9

// newPacket makes the frame that generate completes: its source port and the
// payload are missing.
func newPacket(w *wire, size int) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	for _, l := range []struct {
		layer    gopacket.SerializableLayer
		checksum bool
	}{ // from the inside out
		{gopacket.Payload(make([]byte, size-headers)), false},
		{&layers.UDP{DstPort: discard}, false},
		{&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: source, DstIP: destination}, true},
		{&layers.Ethernet{SrcMAC: w.near.mac, DstMAC: w.far.mac, EthernetType: layers.EthernetTypeIPv4}, false},
	} {
		if err := l.layer.SerializeTo(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: l.checksum}); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}
