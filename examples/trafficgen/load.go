//go:build linux

package main

import (
	"time"
)

// load is what is sent: one packet whose fields step, or those of a capture.
type load struct {
	template *template

	packets [][]byte
	times   []time.Duration // times of the packets, since the first one
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
