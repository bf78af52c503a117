package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// writeSink writes the packets to a capture as the program left them, with the times of
// the capture that was read.
type writeSink struct {
	notes  io.Writer
	live   bool // whether the packets are read as they are captured
	n      int
	file   *os.File
	buffer *bufio.Writer
	pcap   *pcapgo.Writer
}

// mostBytes is larger than any packet.
const mostBytes = 262144

// createCapture creates a capture, which must not be the one that is read.
func createCapture(name string, from *capture, notes io.Writer) (*writeSink, error) {
	if from.file != nil {
		if info, err := os.Stat(name); err == nil {
			if read, err := from.file.Stat(); err == nil && os.SameFile(info, read) {
				return nil, fmt.Errorf("-write %s: this is the capture that is read", name)
			}
		}
	}
	f := os.Stdout
	if name != "-" {
		created, err := os.Create(name)
		if err != nil {
			return nil, err
		}
		f = created
	}
	b := bufio.NewWriter(f)
	s := &writeSink{notes: notes, live: from.live, file: f, buffer: b, pcap: pcapgo.NewWriterNanos(b)}
	return s, s.pcap.WriteFileHeader(mostBytes, layers.LinkTypeEthernet)
}

func (s *writeSink) take(o *outcome) error {
	if o.err != nil {
		return nil
	}
	s.n++
	b := o.out()
	info := gopacket.CaptureInfo{Timestamp: o.time, CaptureLength: len(b), Length: max(len(b), len(b)+o.wire-len(o.packet))}
	if err := s.pcap.WritePacket(info, b); err != nil || !s.live {
		return err
	}
	return s.buffer.Flush()
}

func (s *writeSink) end() error {
	if err := s.buffer.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(s.notes, "%s written to %s.\n", count(s.n, "packet"), s.file.Name())
	return s.file.Close()
}
