//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// readCapture reads a pcap or pcapng file as a whole.
func readCapture(name string) (*load, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	source, link, err := packetSource(r)
	if err != nil {
		return nil, fmt.Errorf("%s: neither a pcap nor a pcapng file: %w", name, err)
	}
	if link != layers.LinkTypeEthernet {
		return nil, fmt.Errorf("%s: link type %s: only Ethernet frames can be sent", name, link)
	}
	l := new(load)
	var first time.Time
	for {
		packet, info, err := source.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: packet %d: %w", name, len(l.packets)+1, err)
		}
		if first.IsZero() {
			first = info.Timestamp
		}
		l.packets = append(l.packets, packet)
		l.times = append(l.times, info.Timestamp.Sub(first))
	}
	if len(l.packets) == 0 {
		return nil, fmt.Errorf("%s holds no packets", name)
	}
	return l, nil
}

func packetSource(r *bufio.Reader) (gopacket.PacketDataSource, layers.LinkType, error) {
	const ngMagic = "\x0a\x0d\x0d\x0a"
	if magic, _ := r.Peek(len(ngMagic)); string(magic) == ngMagic {
		ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, 0, err
		}
		return ng, ng.LinkType(), nil
	}
	classic, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, 0, err
	}
	return classic, classic.LinkType(), nil
}
