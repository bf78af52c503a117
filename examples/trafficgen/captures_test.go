//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// testPcap is a capture with packets from 14 to 1,514 bytes.
const testPcap = "../../testdata/traffic.pcap"

// captures makes a directory with captures, good and bad.
func captures(t *testing.T) string {
	t.Helper()
	c := captureDir{t, t.TempDir()}
	l, err := readCapture(testPcap)
	c.check(err)
	traffic := c.pcap(l.packets)
	c.write("traffic.pcap", traffic)
	c.write("traffic.pcap.gz", c.zip(traffic))
	c.write("traffic.pcapng", c.pcapng(l.packets))
	c.write("backwards.pcap", c.backwards(l.packets))
	c.write("jumbo.pcap", c.pcap([][]byte{l.packets[0], make([]byte, 9000), l.packets[1], make([]byte, 65535)}))
	c.write("alljumbo.pcap", c.pcap([][]byte{make([]byte, 9000)}))
	c.write("short.pcap", c.pcap([][]byte{l.packets[0], make([]byte, 13), nil}))
	c.write("empty.pcap", nil)
	c.write("13bytes.pcap", traffic[:13])
	c.write("magic.pcap", append([]byte("no capture"), traffic...))
	c.write("header.pcap", traffic[:24])
	c.write("truncated.pcap", traffic[:len(traffic)-1])
	sll, err := os.ReadFile("../verdicts/testdata/sll.pcap")
	c.check(err)
	c.write("sll.pcap", sll)
	return c.name
}

// captureDir is a directory of captures.
type captureDir struct {
	t    *testing.T
	name string
}

func (c captureDir) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c captureDir) write(name string, b []byte) {
	c.t.Helper()
	c.check(os.WriteFile(filepath.Join(c.name, name), b, 0o600))
}

// info describes a packet that was captured some time after the first one.
func info(packet []byte, at time.Duration) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, 0).Add(at), CaptureLength: len(packet), Length: len(packet)}
}

// pcap returns a capture with a packet each millisecond.
func (c captureDir) pcap(packets [][]byte) []byte {
	return c.timed(packets, func(i int) time.Duration { return time.Duration(i) * time.Millisecond })
}

// backwards returns a capture of which every second packet has the time of the first.
func (c captureDir) backwards(packets [][]byte) []byte {
	return c.timed(packets, func(i int) time.Duration { return time.Duration(i%2) * time.Second })
}

func (c captureDir) timed(packets [][]byte, at func(i int) time.Duration) []byte {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	c.check(w.WriteFileHeader(1<<16, layers.LinkTypeEthernet))
	for i, p := range packets {
		c.check(w.WritePacket(info(p, at(i)), p))
	}
	return b.Bytes()
}

func (c captureDir) pcapng(packets [][]byte) []byte {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	c.check(err)
	for _, p := range packets {
		c.check(w.WritePacket(info(p, 0), p))
	}
	c.check(w.Flush())
	return b.Bytes()
}

func (c captureDir) zip(b []byte) []byte {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write(b)
	c.check(err)
	c.check(w.Close())
	return zipped.Bytes()
}
