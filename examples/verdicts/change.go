package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

const ethernet = 14 // size of an Ethernet header

// change returns in words what a run did to the packet that went in. Positions
// of bytes count from the start of that packet.
func change(in, out []byte) string {
	length := fmt.Sprintf("%d bytes", len(in))
	if len(out) != len(in) {
		length = fmt.Sprintf("%d -> %d bytes", len(in), len(out))
	}
	d := compare(in, out)
	parts := []string{length}
	if d.size > 0 {
		parts = append(parts, d.moved(in, out))
	}
	if len(d.changed) > 0 {
		parts = append(parts, fmt.Sprintf("%s changed (bytes %s)", fieldsOf(in, d.changed), ranges(d.changed)))
	}
	return strings.Join(parts, ", ")
}

// difference says how one packet became another: some bytes were added or removed in
// one place, and some of the others were changed.
type difference struct {
	at, size int  // size bytes at at were added or removed
	added    bool // whether they were added
	changed  []int
}

// compare finds the place to add or remove bytes that leaves the fewest other changes.
// Of equally good places it prefers that of a VLAN tag, then the packet's start, its end
// and the end of the Ethernet header. It prefers the place of an outer IP header even to
// slightly better ones.
func compare(in, out []byte) difference {
	if bytes.Equal(in, out) {
		return difference{}
	}
	d := difference{added: len(out) > len(in)}
	long, short := in, out
	if d.added {
		long, short = out, in
	}
	d.size = len(long) - len(short)
	d.at = bestPlace(long, short)
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

// bestPlace finds where long has the bytes that short lacks.
func bestPlace(long, short []byte) int {
	size := len(long) - len(short)
	// Bytes of short before at are at the same place in long, and those from at on
	// are size bytes later.
	at, cost, tag, afterEthernet := 0, 0, -1, -1
	for i := range short {
		cost += differ(short[i], long[i+size])
	}
	best := cost
	for i := range short {
		cost += differ(short[i], long[i]) - differ(short[i], long[i+size])
		if i+1 == vlanAt && vlanTag(long, vlanAt, size) {
			tag = cost
		}
		if i+1 == ethernet {
			afterEthernet = cost
		}
		if cost < best || cost == best && i+1 == len(short) && at > 0 {
			best, at = cost, i+1
		}
	}
	switch {
	case tag == best:
		return vlanAt
	case afterEthernet >= 0 && afterEthernet <= best+ethernet && outerIP(long, size):
		return ethernet
	case afterEthernet == best && at > 0 && at < len(short):
		return ethernet
	}
	return at
}

func differ(a, b byte) int {
	if a != b {
		return 1
	}
	return 0
}

// outerIP reports whether size bytes of a packet, after its Ethernet header, are an IP
// header in front of another. The Ethernet header may have changed completely, so that
// another place would by chance leave fewer changes.
func outerIP(packet []byte, size int) bool {
	if size < 20 || len(packet) <= ethernet+size {
		return false
	}
	return isIP(packet[ethernet]) && isIP(packet[ethernet+size])
}

func isIP(first byte) bool { return first>>4 == 4 || first>>4 == 6 }

const vlanAt = 12 // offset of the outermost VLAN tag

// vlanTag reports whether size bytes at at are a VLAN tag.
func vlanTag(packet []byte, at, size int) bool {
	if at != vlanAt || size != 4 || len(packet) < at+size {
		return false
	}
	t := binary.BigEndian.Uint16(packet[at:])
	return t == 0x8100 || t == 0x88a8
}

// moved returns in words what was added or removed.
func (d *difference) moved(in, out []byte) string {
	long, verb := in, "removed"
	if d.added {
		long, verb = out, "added"
	}
	if vlanTag(long, d.at, d.size) {
		return fmt.Sprintf("VLAN tag %d %s", binary.BigEndian.Uint16(long[d.at+2:])&0xfff, verb)
	}
	switch {
	case d.at == len(in) || !d.added && d.at+d.size == len(in):
		return fmt.Sprintf("%d bytes %s at the end", d.size, verb)
	case d.added:
		return fmt.Sprintf("%d bytes added before byte %d", d.size, d.at)
	}
	return fmt.Sprintf("bytes %d-%d removed", d.at, d.at+d.size-1)
}

// ranges returns positions in words, such as "22, 24-25".
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
