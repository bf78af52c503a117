package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// notes returns what a run did beyond its verdict and its packet. all asks for the whole
// context.
func (o *outcome) notes(all bool) (notes []string) {
	if m := o.res.Metadata; len(m) > 0 {
		notes = append(notes, fmt.Sprintf("%d bytes of metadata: %x", len(m), m))
	}
	notes = append(notes, contextNotes(&o.res.Context, all)...)
	if o.res.Verdict.Type == ebpf.FlowDissector {
		notes = append(notes, flowNote(&o.res.Keys))
	}
	if note := sightNote(o.res.Sight); note != "" {
		notes = append(notes, note)
	}
	return notes
}

func sightNote(s progrun.Sight) string {
	switch s {
	case progrun.SightPart:
		return "the program saw only a part"
	case progrun.SightUnknown:
		return "the program may have seen only a part"
	}
	return ""
}

// contextNotes returns what a program left in a context that was empty before. If all
// is set, it includes what the kernel put there.
func contextNotes(c *progrun.SKB, all bool) (notes []string) {
	for _, f := range []struct {
		name   string
		value  uint64
		kernel bool
	}{
		{"mark", uint64(c.Mark), false}, {"priority", uint64(c.Priority), false},
		{"tstamp", c.TStampNS, false}, {"hwtstamp", c.HWTStampNS, false},
		{"ingress_ifindex", uint64(c.IngressIfindex), true}, {"ifindex", uint64(c.Ifindex), true},
		{"wire_len", uint64(c.WireLen), true}, {"gso_segs", uint64(c.GSOSegs), true}, {"gso_size", uint64(c.GSOSize), true},
	} {
		if f.value != 0 && (all || !f.kernel) {
			notes = append(notes, fmt.Sprintf("%s %d", f.name, f.value))
		}
	}
	if c.CB != [5]uint32{} {
		notes = append(notes, fmt.Sprintf("cb %v", c.CB))
	}
	return notes
}

// flowNote returns what a flow dissector found.
func flowNote(k *progrun.FlowKeys) string {
	addresses := ""
	if k.Src.IsValid() {
		addresses = fmt.Sprintf("%s > %s, ", endpoint(k.Src, k.SPort), endpoint(k.Dst, k.DPort))
	}
	note := fmt.Sprintf("%stype %#04x, protocol %d, headers at %d and %d", addresses, k.NProto, k.IPProto, k.NHOff, k.THOff)
	if k.IsFrag {
		note += ", a fragment"
	}
	if k.IsEncap {
		note += ", encapsulated"
	}
	return note
}

// whyPart returns why a program saw only a part of packets.
func whyPart(p *program) string {
	if p.Type() == ebpf.CGroupSKB {
		return "this kernel runs cgroup_skb programs without direct access to the packet; they have it where they are attached"
	}
	return "it was loaded without BPF_F_XDP_HAS_FRAGS (SEC(\"xdp.frags\")), and a packet that large is in fragments, so doubt the verdict"
}
