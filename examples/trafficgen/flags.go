//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
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
A capture, once, at twice the speed that it was taken with:
	trafficgen -i veth0 -pcap traffic.pcap -loops 1 -speed 2

With -json, each line is an object. Counts are since the start, rates since the line before:
	seconds            time since the start
	frames             frames that were sent
	uncertain          frames beyond these that may have been sent
	missed             frames that were too late to be sent
	received           frames at the far end of the command's own veth pair
	lost               frames that got lost on the way, by reason
	verdicts           frames by the verdict of the XDP program
	left_out           packets of the capture that cannot be sent
	frames_per_second
	bits_per_second    from the Ethernet header on
The last line has "total": true and mean rates, and these:
	limited_by         what kept the run from being faster: CPU, rate or XDP dispatcher
	held               whether the program stayed in the XDP dispatcher during the run
	calls, batches     how many system calls sent the frames, in how many batches

It needs root and Linux 5.18. The exit status is 1 if something failed or every frame was
lost, and 2 if a flag is wrong. The flags are:
`

// parse reads the flags. If they ask for help, it prints that and returns
// flag.ErrHelp.
func parse(args []string, help io.Writer) (options, error) {
	o := options{duration: 5 * time.Second, packet: packetOptions{
		size: minSize, proto: "udp", vlan: -1,
		src: addrRange{first: source, count: 1}, dst: addrRange{first: destination, count: 1},
		srcPort: portRange{firstPort, ports}, dstPort: portRange{discard, 1},
	}}
	fs := flag.NewFlagSet("trafficgen", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // main prints the error, in one line
	o.flags(fs)
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(help)
		fmt.Fprint(help, usage)
		fs.PrintDefaults()
	}
	if err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	o.complete(fs)
	return o, o.check()
}

func (o *options) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.iface, "i", "", "`interface` to send out of (default: a veth pair of the command's own)")
	fs.StringVar(&o.netns, "netns", "", "network namespace of the interfaces: a `name` of ip-netns(8), or a path")
	fs.StringVar(&o.redirect, "redirect", "", "`interface` that frames are redirected to; they then seem to come in on -i, or on loopback")
	fs.StringVar(&o.pcap, "pcap", "", "send the packets of this pcap or pcapng `file`, in turn; -: of standard input")
	fs.Float64Var(&o.speed, "speed", 0, "send the capture at its own times, this many `times` as fast; 0: not by its times")
	value(fs, &o.loops, "loops", "`number` of times to send the capture; 0: until -duration or -frames", parseCount)
	value(fs, &o.duration, "duration", "`time` to send, such as 5 (seconds), 1m or 500ms; 0: until Ctrl-C (default 5s, or 0 with -frames or -loops)", parseDuration)
	value(fs, &o.frames, "frames", "`number` of frames to send, such as 10M; 0: as many as there is time for", parseCount)
	value(fs, &o.rate, "rate", "`frames` a second over all CPUs, such as 1M or 1e6, or bits a second, such as 10Gbit; 0: as many as can be", parseRate)
	value(fs, &o.batch, "batch", "`number` of frames that the kernel handles at a time, at most 256; 0: 64. A veth has room for 256, so large batches may lose some", parseInt)
	value(fs, &o.cpus, "cpus", "`list` of CPUs to send on, such as 0-3,6: a thread and a queue for each (default: one thread, on any)", parseCPUs)
	fs.BoolVar(&o.json, "json", false, "print a JSON object each second, and one with the totals")
	p := &o.packet
	value(fs, &p.size, "size", "`bytes` of a frame, from its Ethernet header on (default 60, or what the headers need)", parseInt)
	value(fs, &p.srcMAC, "src-mac", "source MAC `address` (default: that of the interface)", parseMAC)
	value(fs, &p.dstMAC, "dst-mac", "destination MAC `address`, which frames out of an existing interface need", parseMAC)
	value(fs, &p.src, "src", fmt.Sprintf("source `address`, IPv4 or IPv6: one, a prefix or a range, such as 10.0.0.1-10.0.0.9 (default %v or %v)", source, source6), parseAddrRange)
	value(fs, &p.dst, "dst", fmt.Sprintf("destination `address`, likewise (default %v or %v)", destination, destination6), parseAddrRange)
	fs.StringVar(&p.proto, "proto", p.proto, "`protocol`, udp or tcp (a SYN)")
	value(fs, &p.srcPort, "src-port", "source `port` or range of ports (default 49152-65535)", parsePortRange)
	value(fs, &p.dstPort, "dst-port", "destination `port` or range of ports (default 9)", parsePortRange)
	value(fs, &p.vlan, "vlan", "VLAN `id` of an 802.1Q tag (default: no tag)", parseInt)
}

// value defines a flag that parse reads.
func value[T any](fs *flag.FlagSet, to *T, name, usage string, parse func(string) (T, error)) {
	fs.Func(name, usage, func(s string) (err error) {
		*to, err = parse(s)
		return err
	})
}

// complete chooses what depends on other flags, where it is left open.
func (o *options) complete(fs *flag.FlagSet) {
	p := &o.packet
	p.set = map[string]bool{}
	fs.Visit(func(f *flag.Flag) { p.set[f.Name] = true })
	if !p.set["duration"] && (o.frames > 0 || o.loops > 0) {
		o.duration = 0
	}
	if !p.set["src"] && p.dst.first.Is6() {
		p.src.first = source6
	}
	if !p.set["dst"] && p.src.first.Is6() {
		p.dst.first = destination6
	}
	if !p.set["size"] {
		p.size = max(minSize, p.headers())
	}
}

// check rejects flags that contradict each other.
func (o *options) check() error {
	switch {
	case o.duration < 0:
		return fmt.Errorf("the duration cannot be negative: %v", o.duration)
	case o.batch > 256:
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
		return errors.New("-dst-mac is missing: it is the address of the receiver, or ff:ff:ff:ff:ff:ff for all")
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
	case p.src.first.Is4() != p.dst.first.Is4():
		return fmt.Errorf("-src %v and -dst %v are of different families", p.src.first, p.dst.first)
	case p.vlan > 4094:
		return fmt.Errorf("a VLAN id is at most 4094, not %d", p.vlan)
	case p.size < max(minSize, p.headers()):
		return fmt.Errorf("a frame of %d bytes is too small: the least is %d", p.size, max(minSize, p.headers()))
	case p.size > maxSize:
		return fmt.Errorf("a frame of %d bytes is too large: it must fit in a page of memory", p.size)
	}
	return nil
}
