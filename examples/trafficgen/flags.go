//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options holds the values of the flags.
type options struct {
	iface, netns, redirect string
	pcap                   string
	speed                  float64 // factor of the capture's own speed; 0 ignores its times
	loops                  int64

	packet   packetOptions
	duration time.Duration
	frames   int64
	rate     rate
	batch    int
	cpus     []int
	json     bool
}

// packetOptions describes the frame that is sent.
type packetOptions struct {
	size             int
	srcMAC, dstMAC   net.HardwareAddr
	src, dst         addrRange
	proto            string
	srcPort, dstPort portRange
	vlan             int // -1 for none
	set              map[string]bool
}

const usage = `Trafficgen sends frames as fast as the kernel can, or at a rate, and tells what became of them.

Between two namespaces of its own, for a look at what this machine can do:
	trafficgen -cpus 0,1 -duration 3s
Out of an interface, 10,000 flows at a million frames a second:
	trafficgen -i eth1 -dst-mac 02:00:00:00:00:02 -dst 192.0.2.7 -src-port 10000-19999 -rate 1M
At 10 Gbit/s, for a minute, with a line of JSON each second:
	trafficgen -i eth1 -dst-mac 02:00:00:00:00:02 -size 1514 -rate 10Gbit -duration 60 -json
A capture, at twice the speed that it was taken with:
	trafficgen -i veth0 -pcap traffic.pcap -speed 2

It needs root and Linux 5.18. The flags are:
`

// parse reads the flags. If they ask for help, it prints that and returns
// flag.ErrHelp.
func parse(args []string, help io.Writer) (options, error) {
	o := options{packet: packetOptions{
		size: minSize, proto: "udp", vlan: -1,
		src: addrRange{first: source, count: 1}, dst: addrRange{first: destination, count: 1},
		srcPort: portRange{firstPort, ports}, dstPort: portRange{discard, 1},
	}}
	fs := flag.NewFlagSet("trafficgen", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // main prints the error, in one line
	o.flags(fs)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(help)
			fmt.Fprint(help, usage)
			fs.PrintDefaults()
		}
		return o, err
	}
	o.packet.set = map[string]bool{}
	fs.Visit(func(f *flag.Flag) { o.packet.set[f.Name] = true })
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if !o.packet.set["size"] {
		o.packet.size = max(minSize, o.packet.headers())
	}
	return o, o.check()
}

func (o *options) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.iface, "i", "", "`interface` to send out of (default: a veth pair of the command's own)")
	fs.StringVar(&o.netns, "netns", "", "network namespace of the interfaces: a `name` of ip-netns(8), or a path")
	fs.StringVar(&o.redirect, "redirect", "", "`interface` that frames are redirected to; they then seem to come in on -i, or on loopback")
	fs.StringVar(&o.pcap, "pcap", "", "send the packets of this pcap or pcapng `file`, in turn")
	fs.Float64Var(&o.speed, "speed", 0, "send the capture at its own times, this many `times` as fast; 0: not by its times")
	value(fs, &o.loops, "loops", "`number` of times to send the capture; 0: until -duration or -frames", parseCount)
	fs.Func("duration", "how long to send, such as 5 (seconds), 1m or 500ms; 0: until Ctrl-C (default 5s)", func(s string) (err error) {
		o.duration, err = parseDuration(s)
		return err
	})
	o.duration = 5 * time.Second
	value(fs, &o.frames, "frames", "`number` of frames to send, such as 10M; 0: as many as there is time for", parseCount)
	value(fs, &o.rate, "rate", "frames a second over all CPUs, such as 1M or 1e6, or bits a second, such as 10Gbit; 0: as many as can be", parseRate)
	fs.IntVar(&o.batch, "batch", 0, "`number` of frames that the kernel handles at a time, at most 256; 0: 64. A veth has room for 256, so large batches may lose some")
	value(fs, &o.cpus, "cpus", "`list` of CPUs to send on, such as 0-3,6: a thread and a queue for each (default: one thread, on any)", parseCPUs)
	fs.BoolVar(&o.json, "json", false, "print a JSON object each second, and one with the totals")
	p := &o.packet
	fs.IntVar(&p.size, "size", p.size, "`bytes` of a frame, from its Ethernet header on; more by default where the headers need it")
	value(fs, &p.srcMAC, "src-mac", "source MAC `address` (default: that of the interface)", net.ParseMAC)
	value(fs, &p.dstMAC, "dst-mac", "destination MAC `address`", net.ParseMAC)
	value(fs, &p.src, "src", "source `address`, IPv4 or IPv6: one, a prefix or a range, such as 10.0.0.1-10.0.0.9 (default "+source.String()+")", parseAddrRange)
	value(fs, &p.dst, "dst", "destination `address`, likewise (default "+destination.String()+")", parseAddrRange)
	fs.StringVar(&p.proto, "proto", p.proto, "`protocol`, udp or tcp (a SYN)")
	value(fs, &p.srcPort, "src-port", "source `port` or range of ports (default 49152-65535)", parsePortRange)
	value(fs, &p.dstPort, "dst-port", "destination `port` or range of ports (default 9)", parsePortRange)
	fs.IntVar(&p.vlan, "vlan", p.vlan, "VLAN `id` of an 802.1Q tag; -1: no tag")
}

// value defines a flag that parse reads.
func value[T any](fs *flag.FlagSet, to *T, name, usage string, parse func(string) (T, error)) {
	fs.Func(name, usage, func(s string) (err error) {
		*to, err = parse(s)
		return err
	})
}

// check rejects flags that contradict each other.
func (o *options) check() error {
	switch {
	case o.duration < 0:
		return fmt.Errorf("the duration cannot be negative: %v", o.duration)
	case o.batch < 0 || o.batch > 256:
		return fmt.Errorf("a batch has 1 to 256 frames, not %d", o.batch)
	case o.speed < 0 || math.IsNaN(o.speed) || math.IsInf(o.speed, 0):
		return fmt.Errorf("-speed is a positive number, not %v", o.speed)
	case o.netns != "" && o.iface == "" && o.redirect == "":
		return errors.New("-netns goes with -i or -redirect: the command's own wire has namespaces of its own")
	case o.pcap == "" && (o.speed != 0 || o.loops != 0):
		return errors.New("-speed and -loops go with -pcap")
	case o.speed != 0 && o.rate != rate{}:
		return errors.New("-rate and -speed both say when frames are sent: choose one")
	case o.speed != 0 && len(o.cpus) > 1:
		return errors.New("-speed keeps the order of the capture, on one CPU")
	case o.loops > 0 && o.frames > 0:
		return errors.New("-loops and -frames both say how many frames are sent: choose one")
	}
	if o.pcap != "" {
		return o.packet.unused()
	}
	if o.iface+o.redirect != "" && o.packet.dstMAC == nil {
		return errors.New("-dst-mac is missing: it is the address of the receiver")
	}
	return o.packet.check()
}

// unused rejects flags about the packet if it comes from a capture.
func (p *packetOptions) unused() error {
	for _, name := range []string{"size", "src-mac", "dst-mac", "src", "dst", "proto", "src-port", "dst-port", "vlan"} {
		if p.set[name] {
			return fmt.Errorf("-%s does not go with -pcap, whose packets are sent as they are", name)
		}
	}
	return nil
}

func (p *packetOptions) check() error {
	switch {
	case p.proto != "udp" && p.proto != "tcp":
		return fmt.Errorf("-proto is udp or tcp, not %q", p.proto)
	case p.src.first.Is4() != p.dst.first.Is4() && p.set["src"] && p.set["dst"]:
		return fmt.Errorf("-src %v and -dst %v are of different families", p.src.first, p.dst.first)
	case p.src.first.Is4() != p.dst.first.Is4():
		return errors.New("with IPv6 addresses, both -src and -dst must be given")
	case p.vlan < -1 || p.vlan > 4094:
		return fmt.Errorf("a VLAN id is at most 4094, not %d", p.vlan)
	case p.size < max(minSize, p.headers()):
		return fmt.Errorf("a frame of %d bytes is too small: the least is %d", p.size, max(minSize, p.headers()))
	}
	return nil
}

// rate is a number of frames or bits a second.
type rate struct {
	frames int64
	bits   float64
}

// of returns the rate in frames a second, for frames of a size in bytes.
func (r rate) of(size float64) int {
	if r.bits > 0 {
		return int(max(1, math.Round(r.bits/(8*size))))
	}
	return int(r.frames)
}

func parseRate(s string) (rate, error) {
	number, isBits := strings.CutSuffix(strings.ToLower(s), "bit")
	if !isBits {
		number, isBits = strings.CutSuffix(strings.ToLower(s), "bps")
	}
	if !isBits {
		n, err := parseCount(s)
		if err == nil && n > 1e9 {
			err = fmt.Errorf("%s is more than 1,000,000,000 frames a second", s)
		}
		return rate{frames: n}, err
	}
	bits, err := parseNumber(number)
	if err == nil && bits <= 0 {
		err = fmt.Errorf("%s must be more than 0", s)
	}
	return rate{bits: bits}, err
}

// parseNumber parses a number as people write it: 1000000, 1e6, 1M, 1.5G.
func parseNumber(s string) (float64, error) {
	digits, factor := strings.TrimSpace(s), 1.0
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("kmgt", digits[n-1]|0x20); i >= 0 {
			digits, factor = digits[:n-1], math.Pow(1000, float64(i+1))
		}
	}
	x, err := strconv.ParseFloat(strings.ReplaceAll(digits, ",", ""), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("%q is not a number such as 1000000, 1e6 or 1M", s)
	}
	return x * factor, nil
}

// parseCount parses a whole number that is not negative.
func parseCount(s string) (int64, error) {
	x, err := parseNumber(s)
	switch {
	case err != nil:
		return 0, err
	case x < 0:
		return 0, fmt.Errorf("%s is negative", s)
	case x != math.Trunc(x) || x >= 1<<63:
		return 0, fmt.Errorf("%s is not a whole number", s)
	}
	return int64(x), nil
}

// parseDuration parses a duration, in seconds if it has no unit.
func parseDuration(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(seconds) < 1e9 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 5, 1m or 500ms", s)
	}
	return d, nil
}

// parseCPUs parses a list of CPUs and ranges of CPUs, such as 0-3,6.
func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(low, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || last < first {
			return nil, fmt.Errorf("%q is neither a CPU nor a range of CPUs such as 0-3", part)
		}
		for cpu := int(first); cpu <= int(last); cpu++ {
			if slices.Contains(cpus, cpu) {
				return nil, fmt.Errorf("CPU %d is listed twice", cpu)
			}
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// addrRange is a range of consecutive addresses.
type addrRange struct {
	first netip.Addr
	count uint32
}

// parseAddrRange parses an address, a prefix, or a range of addresses that differ at
// most in the last 32 bits.
func parseAddrRange(s string) (addrRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return prefixRange(prefix)
	}
	first, err := netip.ParseAddr(low)
	last := first
	if err == nil && isRange {
		last, err = netip.ParseAddr(high)
	}
	if err != nil || first.Zone() != "" || first.Is4In6() {
		return addrRange{}, fmt.Errorf("%q is neither an address nor a range such as 10.0.0.1-10.0.0.9 or 10.0.0.0/24", s)
	}
	if first.BitLen() != last.BitLen() || last.Less(first) || high32(first) != high32(last) || low32(last)-low32(first) == math.MaxUint32 {
		return addrRange{}, fmt.Errorf("%q is not a range of less than 2^32 addresses that differ in their last 32 bits", s)
	}
	return addrRange{first, low32(last) - low32(first) + 1}, nil
}

func prefixRange(p netip.Prefix) (addrRange, error) {
	host := p.Addr().BitLen() - p.Bits()
	if host > 31 {
		return addrRange{}, fmt.Errorf("%v has more than 2^31 addresses", p)
	}
	return addrRange{p.Masked().Addr(), 1 << host}, nil
}

// low32 returns the last 32 bits of an address.
func low32(a netip.Addr) uint32 {
	b := a.AsSlice()
	b = b[len(b)-4:]
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// high32 returns all but the last 32 bits.
func high32(a netip.Addr) string {
	b := a.AsSlice()
	return string(b[:len(b)-4])
}

// portRange is a range of consecutive ports.
type portRange struct{ first, count uint32 }

func parsePortRange(s string) (portRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	first, err := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
	last := first
	if err == nil && isRange {
		last, err = strconv.ParseUint(strings.TrimSpace(high), 10, 16)
	}
	if err != nil || last < first {
		return portRange{}, fmt.Errorf("%q is neither a port nor a range of ports such as 1024-2047", s)
	}
	return portRange{uint32(first), uint32(last - first + 1)}, nil
}
