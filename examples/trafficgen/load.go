//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// load is what is sent: one packet whose fields step, or those of a capture.
type load struct {
	template *template

	packets [][]byte
	times   []time.Duration // times of the packets, since the first one

	leftOut leftOut
}

// leftOut counts the packets of a capture that cannot be sent.
type leftOut struct {
	short, large int
	limit        limit
}

// limit is the size of the largest frame that can be sent.
type limit struct {
	bytes int
	by    string // what larger frames do not fit
}

// load makes the packet that the flags ask for, or reads the capture.
func (o *options) load(p path) (*load, error) {
	if o.pcap != "" {
		return readCapture(o.pcap)
	}
	packet := o.packet
	src, dst := p.macs()
	if packet.srcMAC == nil {
		packet.srcMAC = src
	}
	if packet.dstMAC == nil {
		packet.dstMAC = dst
	}
	t, err := newTemplate(&packet)
	return &load{template: t}, err
}

// fit leaves out the packets of a capture that cannot be sent. It returns an error if
// nothing is left.
func (l *load) fit(most limit) error {
	if t := l.template; t != nil {
		if len(t.frame) > most.bytes {
			return fmt.Errorf("a frame of %d bytes does not fit %s: at most %d bytes", len(t.frame), most.by, most.bytes)
		}
		return nil
	}
	l.leftOut.limit = most
	all := l.packets
	l.packets = nil
	for i, p := range all {
		switch {
		case len(p) < ethernetHeader:
			l.leftOut.short++
		case len(p) > most.bytes:
			l.leftOut.large++
		default:
			l.times[len(l.packets)] = l.times[i]
			l.packets = append(l.packets, p)
		}
	}
	l.times = l.times[:len(l.packets)]
	if len(l.packets) == 0 {
		return fmt.Errorf("no packet can be sent: %v", l.leftOut)
	}
	return nil
}

func (l leftOut) total() int { return l.short + l.large }

// String says why packets are left out.
func (l leftOut) String() string {
	var why []string
	if l.short > 0 {
		why = append(why, fmt.Sprintf("%d shorter than an Ethernet header", l.short))
	}
	if l.large > 0 {
		why = append(why, fmt.Sprintf("%d larger than the %d bytes that fit %s", l.large, l.limit.bytes, l.limit.by))
	}
	return strings.Join(why, ", ")
}

// all returns the packets.
func (l *load) all() [][]byte {
	if l.template != nil {
		return [][]byte{l.template.frame}
	}
	return l.packets
}

// largest returns the size of the largest frame.
func (l *load) largest() int {
	n := 0
	for _, p := range l.all() {
		n = max(n, len(p))
	}
	return n
}

// mean returns the mean size of a frame.
func (l *load) mean() float64 {
	n := 0
	for _, p := range l.all() {
		n += len(p)
	}
	return float64(n) / float64(len(l.all()))
}

// flows returns how many different packets the steps produce.
func (l *load) flows() uint64 {
	flows := uint64(1)
	if l.template != nil {
		for _, s := range l.template.steps {
			flows *= uint64(s.Count)
		}
	}
	return flows
}
