package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/progrun/progrun"
)

const ethernet = 14 // bytes of its header

// change says what a run did to the packet that went in. Positions of bytes
// count from the start of that packet.
func (o outcome) change(in []byte) string {
	if o.packet == nil {
		return strings.Join(o.notes, ", ")
	}
	length := fmt.Sprintf("%d bytes", len(in))
	if len(o.packet) != len(in) {
		length = fmt.Sprintf("%d -> %d bytes", len(in), len(o.packet))
	}
	// What comes back as zeros did not come from the program.
	d := compare(in[o.blank:], o.packet[o.blank:])
	d.shift(o.blank)
	parts := []string{length}
	if d.size > 0 {
		parts = append(parts, d.moved(in, o.packet))
	}
	if len(d.changed) > 0 {
		parts = append(parts, fmt.Sprintf("%s changed (bytes %s)", fieldsOf(in, d.changed), ranges(d.changed)))
	}
	return strings.Join(append(parts, o.notes...), ", ")
}

// difference is how one packet became another: some bytes were added or
// removed in one place, and of the others some were changed.
type difference struct {
	at, size int  // size bytes at at
	added    bool // or else removed
	changed  []int
}

// compare finds the place to add or remove bytes that leaves the fewest other
// changes. Of equally good ones it prefers the packet's start and end.
func compare(in, out []byte) difference {
	d := difference{added: len(out) > len(in)}
	long, short := in, out
	if d.added {
		long, short = out, in
	}
	d.size = len(long) - len(short)

	// Bytes of short before at stand at the same place in long, and those
	// from at on size bytes later.
	cost := 0
	for i := range short {
		if short[i] != long[i+d.size] {
			cost++
		}
	}
	best := cost
	for i := range short {
		if short[i] != long[i+d.size] {
			cost--
		}
		if short[i] != long[i] {
			cost++
		}
		if cost < best || cost == best && i+1 == len(short) && d.at > 0 {
			best, d.at = cost, i+1
		}
	}
	for i := range short {
		j := i
		if i >= d.at {
			j += d.size
		}
		if short[i] == long[j] {
			continue
		}
		if d.added {
			j = i
		}
		d.changed = append(d.changed, j)
	}
	return d
}

// shift counts from n bytes earlier.
func (d *difference) shift(n int) {
	d.at += n
	for i := range d.changed {
		d.changed[i] += n
	}
}

// moved says what was added or removed.
func (d *difference) moved(in, out []byte) string {
	long, verb := in, "removed"
	if d.added {
		long, verb = out, "added"
	}
	if d.at == 12 && d.size == 4 {
		if t := binary.BigEndian.Uint16(long[12:]); t == 0x8100 || t == 0x88a8 {
			return fmt.Sprintf("VLAN tag %d %s", binary.BigEndian.Uint16(long[14:])&0xfff, verb)
		}
	}
	switch {
	case d.at == len(in) || !d.added && d.at+d.size == len(in):
		return fmt.Sprintf("%d bytes %s at the end", d.size, verb)
	case d.added:
		return fmt.Sprintf("%d bytes added before byte %d", d.size, d.at)
	}
	return fmt.Sprintf("bytes %d-%d removed", d.at, d.at+d.size-1)
}

// ranges puts positions in words, such as "22, 24-25".
func ranges(positions []int) string {
	var parts []string
	for i := 0; i < len(positions); {
		j := i
		for j+1 < len(positions) && positions[j+1] == positions[j]+1 {
			j++
		}
		if len(parts) == 8 {
			return strings.Join(parts, ", ") + fmt.Sprintf(" and %d more", len(positions)-i)
		}
		if i == j {
			parts = append(parts, fmt.Sprint(positions[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", positions[i], positions[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// field is a field of a header, which ends at an offset.
type field struct {
	end  int
	name string
}

var headers = map[gopacket.LayerType][]field{
	layers.LayerTypeEthernet: {{6, "destination"}, {12, "source"}, {14, "type"}},
	layers.LayerTypeDot1Q:    {{2, "tag"}, {4, "type"}},
	layers.LayerTypeIPv4: {{1, "version"}, {2, "TOS"}, {4, "length"}, {6, "id"}, {8, "fragment"}, {9, "TTL"},
		{10, "protocol"}, {12, "checksum"}, {16, "source"}, {20, "destination"}, {60, "options"}},
	layers.LayerTypeIPv6: {{4, "flow label"}, {6, "length"}, {7, "next header"}, {8, "hop limit"},
		{24, "source"}, {40, "destination"}},
	layers.LayerTypeTCP: {{2, "source port"}, {4, "destination port"}, {8, "sequence"}, {12, "acknowledgment"},
		{14, "flags"}, {16, "window"}, {18, "checksum"}, {20, "urgent"}, {60, "options"}},
	layers.LayerTypeUDP: {{2, "source port"}, {4, "destination port"}, {6, "length"}, {8, "checksum"}},
}

// fieldsOf names the fields that positions lie in, such as
// "IPv4 TTL, checksum; UDP checksum".
func fieldsOf(packet []byte, positions []int) string {
	var parts []string
	start := 0
	for _, layer := range decode(packet).Layers() {
		end := start + len(layer.LayerContents())
		var names []string
		var inside bool
		for _, p := range positions {
			if p < start || p >= end {
				continue
			}
			inside = true
			for _, f := range headers[layer.LayerType()] {
				if p-start < f.end {
					if !slices.Contains(names, f.name) {
						names = append(names, f.name)
					}
					break
				}
			}
		}
		if inside {
			parts = append(parts, strings.TrimSpace(layer.LayerType().String()+" "+strings.Join(names, ", ")))
		}
		start = end
	}
	if len(positions) > 0 && positions[len(positions)-1] >= start {
		parts = append(parts, "what follows")
	}
	return strings.Join(parts, "; ")
}

// metadata says what lies in front of a packet.
func metadata(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d bytes of metadata: %x", len(b), b)}
}

// context says what a program left in a context that was empty before.
func context(c progrun.SKB) []string {
	var notes []string
	for _, f := range []struct {
		name  string
		value uint64
	}{{"mark", uint64(c.Mark)}, {"priority", uint64(c.Priority)}, {"tstamp", c.TStampNS}, {"hwtstamp", c.HWTStampNS}} {
		if f.value != 0 {
			notes = append(notes, fmt.Sprintf("%s %d", f.name, f.value))
		}
	}
	if c.CB != [5]uint32{} {
		notes = append(notes, fmt.Sprintf("cb %v", c.CB))
	}
	return notes
}

// flow says what a flow dissector found.
func flow(k progrun.FlowKeys) []string {
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
	return []string{note}
}
