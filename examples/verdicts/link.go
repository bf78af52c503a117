package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/gopacket/gopacket/layers"
)

// linkError is the error for frames of a link type that cannot be run.
type linkError struct{ link layers.LinkType }

func (e linkError) Error() string {
	return fmt.Sprintf("link type %s holds no Ethernet frames, and none can be made of it as of raw IP, Linux cooked, loopback and PPP",
		linkName(e.link))
}

// Link types that the layers package has no names for.
const (
	linkRaw12 layers.LinkType = 12 // raw IP on Linux
	linkRaw14 layers.LinkType = 14 // raw IP on OpenBSD
	linkENC   layers.LinkType = 109
)

// frame returns an Ethernet frame for a packet that was captured on a link. What the
// link does not have is zero, as on the loopback interface.
func frame(link layers.LinkType, b []byte) ([]byte, error) {
	switch link {
	case layers.LinkTypeEthernet:
		return b, nil
	case layers.LinkTypeRaw, linkRaw12, linkRaw14, layers.LinkTypeIPv4, layers.LinkTypeIPv6:
		return fromIP(b, 0)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return fromIP(b, 4) // an address family, whose numbers differ between systems
	case linkENC:
		return fromIP(b, 12)
	case layers.LinkTypePPP, layers.LinkTypePPP_HDLC:
		return fromPPP(b)
	case layers.LinkTypeC_HDLC:
		return fromHeader(b, 4, 2, nil)
	case layers.LinkTypeLinuxSLL:
		return fromHeader(b, 16, 14, sender(b, 4, 6))
	case layers.LinkTypeLinuxSLL2:
		return fromHeader(b, 20, 0, sender(b, 11, 12))
	}
	return nil, linkError{link}
}

var errLinkHeader = errors.New("cut short in the header of its link")

// sender returns the sender's address of a cooked header, if it has six bytes.
func sender(b []byte, length, address int) []byte {
	if len(b) < address+6 || b[length] != 6 {
		return nil
	}
	return b[address : address+6]
}

// fromHeader replaces a link's header, which has the EtherType at an offset. If that is
// not an EtherType but Linux's number for 802.2 or 802.3 (1 and 4), it writes a length
// instead.
func fromHeader(b []byte, size, etherType int, source []byte) ([]byte, error) {
	if len(b) < size {
		return b, errLinkHeader
	}
	t := binary.BigEndian.Uint16(b[etherType:])
	if t == 1 || t == 4 {
		t = uint16(min(len(b)-size, 1500))
	}
	return withEthernet(source, t, b[size:]), nil
}

// fromIP replaces a header of some size in front of an IP packet.
func fromIP(b []byte, size int) ([]byte, error) {
	if len(b) <= size {
		return b, errLinkHeader
	}
	switch b[size] >> 4 {
	case 4:
		return withEthernet(nil, uint16(layers.EthernetTypeIPv4), b[size:]), nil
	case 6:
		return withEthernet(nil, uint16(layers.EthernetTypeIPv6), b[size:]), nil
	}
	return b, errors.New("neither IPv4 nor IPv6, so it cannot get an Ethernet header")
}

// fromPPP replaces the header of a PPP frame, with or without two bytes of HDLC.
func fromPPP(b []byte) ([]byte, error) {
	if len(b) > 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	if len(b) < 2 {
		return b, errLinkHeader
	}
	switch protocol := binary.BigEndian.Uint16(b); protocol {
	case 0x0021:
		return withEthernet(nil, uint16(layers.EthernetTypeIPv4), b[2:]), nil
	case 0x0057:
		return withEthernet(nil, uint16(layers.EthernetTypeIPv6), b[2:]), nil
	default:
		return b, fmt.Errorf("PPP protocol %#04x, which Ethernet does not have", protocol)
	}
}

func withEthernet(source []byte, etherType uint16, payload []byte) []byte {
	b := make([]byte, ethernet, ethernet+len(payload))
	copy(b[6:], source)
	binary.BigEndian.PutUint16(b[12:], etherType)
	return append(b, payload...)
}

// linkNames has the common names of link types.
var linkNames = map[layers.LinkType]string{
	layers.LinkTypeRaw: "raw IP", linkRaw12: "raw IP", linkRaw14: "raw IP", layers.LinkTypeIPv4: "raw IP", layers.LinkTypeIPv6: "raw IP",
	layers.LinkTypeNull: "loopback", layers.LinkTypeLoop: "loopback",
	layers.LinkTypeLinuxSLL: "Linux cooked (SLL)", layers.LinkTypeLinuxSLL2: "Linux cooked (SLL2)",
	layers.LinkTypePPP: "PPP", layers.LinkTypePPP_HDLC: "PPP", layers.LinkTypeC_HDLC: "Cisco HDLC", linkENC: "encapsulated IP (ENC)",
	layers.LinkTypeIEEE802_11: "Wi-Fi", layers.LinkTypePrismHeader: "Wi-Fi", layers.LinkTypeIEEE80211Radio: "Wi-Fi",
	layers.LinkTypeSLIP: "SLIP", layers.LinkTypeFRelay: "frame relay", layers.LinkTypeLinuxUSB: "USB", 189: "USB", 249: "USB",
	195: "IEEE 802.15.4", 230: "IEEE 802.15.4", 187: "Bluetooth", 201: "Bluetooth", 239: "NFLOG",
}

// linkName returns a link type's name, or its number if linkNames lacks it.
func linkName(link layers.LinkType) string {
	if name, ok := linkNames[link]; ok {
		return name
	}
	return strconv.Itoa(int(link))
}
