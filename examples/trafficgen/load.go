//go:build linux

package main

import (
	"fmt"
	"time"
)

// load is what is sent: one packet whose fields step, or those of a capture.
type load struct {
	template *template

	packets [][]byte
	times   []time.Duration // times of the packets, since the first one

	leftOut int // packets of the capture that cannot be sent
	limit   limit
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
	l.limit = most
	if t := l.template; t != nil {
		if len(t.frame) > most.bytes {
			return fmt.Errorf("a frame of %d bytes does not fit %s: at most %d bytes", len(t.frame), most.by, most.bytes)
		}
		return nil
	}
	kept := 0
	for i, p := range l.packets {
		if len(p) >= ethernetHeader && len(p) <= most.bytes {
			l.packets[kept], l.times[kept] = p, l.times[i]
			kept++
		}
	}
	l.leftOut = len(l.packets) - kept
	l.packets, l.times = l.packets[:kept], l.times[:kept]
	if kept == 0 {
		return fmt.Errorf("none of the %d packets can be sent: they are shorter than an Ethernet header, or do not fit %s: at most %d bytes", l.leftOut, most.by, most.bytes)
	}
	return nil
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
