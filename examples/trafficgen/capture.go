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

const standardInput = "standard input"

// readCapture reads a pcap or pcapng file as a whole, or standard input if the name
// is "-".
func readCapture(name string) (*load, error) {
	f := os.Stdin
	if name == "-" {
		name = standardInput
	} else {
		var err error
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	source, link, err := packetSource(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: neither a pcap nor a pcapng file: %w", name, inWords(err))
	}
	if link != layers.LinkTypeEthernet {
		return nil, fmt.Errorf("%s: link type %s (%d): only Ethernet frames can be sent", name, link, link)
	}
	l := new(load)
	if err := l.read(source); err != nil {
		return nil, fmt.Errorf("%s: packet %d: %w", name, len(l.packets)+1, inWords(err))
	}
	if len(l.packets) == 0 {
		return nil, fmt.Errorf("%s holds no packets", name)
	}
	return l, nil
}

// inWords says of a file that ends too early what EOF means.
func inWords(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends too early")
	}
	return err
}

// read reads all packets. A packet that was captured before its predecessor follows
// it at once.
func (l *load) read(source gopacket.PacketDataSource) error {
	var at time.Duration
	var last time.Time
	for {
		packet, info, err := source.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(l.packets) > 0 {
			at += max(0, info.Timestamp.Sub(last))
		}
		last = info.Timestamp
		l.packets = append(l.packets, packet)
		l.times = append(l.times, at)
	}
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
