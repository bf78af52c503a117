package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// capture is a pcap or pcapng file, read packet by packet.
type capture struct {
	name   string
	file   io.Closer
	reader gopacket.PacketDataSource

	packet []byte // the one that was read last
	cut    int    // how many packets lack bytes that were on the wire
	err    error  // what ended the capture before its end
}

func openCapture(name string) (*capture, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	c, err := newCapture(name, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	c.file = f
	return c, nil
}

func newCapture(name string, r io.Reader) (*capture, error) {
	b := bufio.NewReader(r)
	magic, _ := b.Peek(4)
	c := &capture{name: name}
	var link layers.LinkType
	if bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, fmt.Errorf("%s: not a pcapng file: %w", name, err)
		}
		c.reader, link = ng, ng.LinkType()
	} else {
		classic, err := pcapgo.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%s: neither a pcap nor a pcapng file: %w", name, err)
		}
		c.reader, link = classic, classic.LinkType()
	}
	if link != layers.LinkTypeEthernet {
		return nil, fmt.Errorf("%s: link type %s: programs run on Ethernet frames", name, link)
	}
	return c, nil
}

func (c *capture) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// packets reads on, and leaves each packet in c.packet too: Batch pulls the
// next one only after it has yielded the result of the last.
func (c *capture) packets() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			data, info, err := c.reader.ReadPacketData()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					c.err = fmt.Errorf("%s: %w", c.name, err)
				}
				return
			}
			if info.CaptureLength < info.Length {
				c.cut++
			}
			c.packet = data
			if !yield(data) {
				return
			}
		}
	}
}
