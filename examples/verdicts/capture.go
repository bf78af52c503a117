package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// input is a packet of a capture.
type input struct {
	n      int    // its number, from 1
	packet []byte // the packet from its Ethernet header on, unless it is alien
	alien  bool   // whether it was captured on a link without Ethernet headers
	wire   int    // its length on the wire, with the Ethernet header
	time   time.Time
	err    error // why it cannot be run
}

// cut reports whether bytes that were on the wire are missing.
func (in *input) cut() bool { return len(in.packet) < in.wire }

// summary returns the packet in a few words.
func (in *input) summary() string {
	if in.alien {
		return ""
	}
	return summary(in.packet)
}

// capture reads a pcap or pcapng file packet by packet.
type capture struct {
	name   string
	file   *os.File // nil if it is part of the command
	live   bool     // whether it comes through a pipe, maybe while it is being captured
	size   int64    // size of the file, or 0 if unknown
	read   atomic.Int64
	reader gopacket.PacketDataSource
	link   layers.LinkType // link type of the whole file, or of its last packet

	made map[layers.LinkType]bool // link types whose packets got an Ethernet header
	err  error                    // why reading ended early
}

// openCapture opens a file, or standard input if name is "-".
func openCapture(name string) (*capture, error) {
	c := &capture{name: name}
	if name == "-" {
		if isTerminal(os.Stdin) {
			return nil, errors.New("-pcap - reads a capture from standard input, but that is a terminal: try tcpdump -w - | verdicts -pcap -")
		}
		c.name, c.file = "standard input", standardInput()
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		c.file = f
	}
	if info, err := c.file.Stat(); err == nil && info.Mode().IsRegular() {
		c.size = info.Size()
	} else {
		c.live = true
	}
	if err := c.start(c.file); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// standardInput opens standard input so that closing it ends a read.
func standardInput() *os.File {
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 && unix.SetNonblock(0, true) == nil {
		return os.NewFile(0, "standard input")
	}
	return os.Stdin
}

func (c *capture) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// countingReader counts the bytes that are read from the file.
type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// start reads the header of the file.
func (c *capture) start(r io.Reader) error {
	b, err := c.unpack(bufio.NewReaderSize(countingReader{r, &c.read}, bufferSize))
	if err != nil {
		return err
	}
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", c.name, ended(err))
	}
	if err := c.refuse(magic); err != nil {
		return err
	}
	if bytes.Equal(magic, magicNg) {
		return c.startNg(b)
	}
	classic, err := pcapgo.NewReader(b)
	if err != nil {
		return fmt.Errorf("%s: a damaged pcap file: %w", c.name, ended(err))
	}
	c.reader, c.link = classic, classic.LinkType()
	if _, err = frame(c.link, nil); errors.As(err, new(linkError)) {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

const bufferSize = 1 << 16

// unpack decompresses a file that gzip compressed.
func (c *capture) unpack(b *bufio.Reader) (*bufio.Reader, error) {
	if magic, _ := b.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	unpacked, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("%s: a damaged gzip file: %w", c.name, ended(err))
	}
	return bufio.NewReaderSize(unpacked, bufferSize), nil
}

// startNg reads the header of a pcapng file, whose packets may come from links
// of different types.
func (c *capture) startNg(b *bufio.Reader) error {
	ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return fmt.Errorf("%s: a damaged pcapng file: %w", c.name, ended(err))
	}
	c.reader = ng
	return nil
}

var magicNg = []byte{0x0a, 0x0d, 0x0d, 0x0a}

// refuse returns an error for a file that does not begin like a capture. The error
// says what the file is, if that is known.
func (c *capture) refuse(magic []byte) error {
	kind := ""
	switch string(magic) {
	case "\n\r\r\n", "\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d":
		return nil
	case "":
		return fmt.Errorf("%s is empty", c.name)
	case "\x7fELF":
		kind = ", but an object file, as -object takes"
	case "\x28\xb5\x2f\xfd":
		kind = ", but packed with zstd: unpack it first"
	case "snoo":
		kind = ", but one of snoop: convert it with tcpdump or editcap"
	case "\x34\xcd\xb2\xa1", "\xa1\xb2\xcd\x34":
		kind = ", but an old variety of pcap: convert it with tcpdump -r and -w"
	}
	return fmt.Errorf("%s is no pcap or pcapng file%s: it begins with the bytes % x", c.name, kind, magic)
}

// ended returns err, or a clearer error if err is the end of the file.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut short")
	}
	return err
}

// inputs returns an iterator over the packets, up to the end of the file or of ctx. If
// reading ended early, c.err says why.
func (c *capture) inputs(ctx context.Context) iter.Seq[input] {
	return func(yield func(input) bool) {
		if c.live {
			defer context.AfterFunc(ctx, c.close)()
		}
		for n := 1; ctx.Err() == nil; n++ {
			in, err := c.next(n)
			switch {
			case errors.Is(err, io.EOF), c.live && errors.Is(err, os.ErrClosed):
				return
			case err != nil:
				c.err = fmt.Errorf("%s, packet %d: %w", c.name, n, ended(err))
				return
			case !yield(in):
				return
			}
		}
		if !c.live {
			c.err = errors.New("interrupted")
		}
	}
}

// next reads a packet. It returns io.EOF only at the end.
func (c *capture) next(n int) (input, error) {
	data, info, err := c.reader.ReadPacketData()
	if errors.Is(err, io.EOF) && info.CaptureLength > 0 {
		return input{}, io.ErrUnexpectedEOF
	}
	if err != nil {
		return input{}, err
	}
	link := c.link
	if len(info.AncillaryData) > 0 {
		link, _ = info.AncillaryData[0].(layers.LinkType)
	}
	in := input{n: n, time: info.Timestamp, wire: info.Length}
	in.packet, in.err = frame(link, data)
	in.alien = in.err != nil
	if errors.As(in.err, new(linkError)) {
		return input{}, in.err
	}
	in.wire += len(in.packet) - len(data)
	if link != layers.LinkTypeEthernet {
		c.madeUp(link)
	}
	return in, nil
}

func (c *capture) madeUp(link layers.LinkType) {
	if c.made == nil {
		c.made = map[layers.LinkType]bool{}
	}
	c.made[link] = true
}

// printMade prints that packets got Ethernet headers.
func (c *capture) printMade(w io.Writer) {
	if len(c.made) == 0 {
		return
	}
	var names []string
	for _, link := range slices.Sorted(maps.Keys(c.made)) {
		if name := linkName(link); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	fmt.Fprintf(w, "Packets of the link type %s have no Ethernet header: one was made up, zeros but for what the link tells.\n",
		strings.Join(names, ", "))
}
