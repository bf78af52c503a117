package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// differences returns, field by field, how a record differs from an earlier one for the
// same packet.
func differences(in []byte, was, is *record) (words []string) {
	if was.Error != "" || is.Error != "" {
		if was.Error == is.Error {
			return nil
		}
		return []string{fmt.Sprintf("%s, was %s", is.end(), was.end())}
	}
	if was.Verdict != is.Verdict {
		words = append(words, fmt.Sprintf("%s, was %s", is.Verdict, was.Verdict))
	}
	words = append(words, packetDifferences(was.out(in), is.out(in))...)
	if a, b := fmt.Sprintf("%x", was.Metadata), fmt.Sprintf("%x", is.Metadata); a != b {
		words = append(words, fmt.Sprintf("metadata %s, was %s", orNone(b), orNone(a)))
	}
	words = append(words, memberDifferences("", was.Context, is.Context)...)
	words = append(words, memberDifferences("flow ", was.Flow, is.Flow)...)
	if was.Sight != is.Sight {
		words = append(words, fmt.Sprintf("seen %s, was %s", orWhole(is.Sight), orWhole(was.Sight)))
	}
	return words
}

// end returns the verdict, or the error.
func (r *record) end() string {
	if r.Error != "" {
		return "error: " + r.Error
	}
	return r.Verdict
}

// out returns the packet as it came out.
func (r *record) out(in []byte) []byte {
	if len(r.Packet) > 0 {
		return r.Packet
	}
	return in
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func orWhole(s string) string {
	if s == "" {
		return "whole"
	}
	return s
}

const mostFields = 8 // fields that are printed for one packet, at most

// packetDifferences returns how a packet that came out differs from the earlier one,
// such as "IPv4 TTL 63, was 64".
func packetDifferences(was, is []byte) (words []string) {
	d := compare(was, is)
	if d.size > 0 {
		words = append(words, fmt.Sprintf("%d bytes, was %d: %s", len(is), len(was), d.moved(was, is)))
	}
	found := places(was, d.changed)
	for i, p := range found {
		if i == mostFields {
			return append(words, fmt.Sprintf("and %d more fields", len(found)-i))
		}
		words = append(words, p.difference(d, was, is))
	}
	return words
}

// difference returns the two values of a field, unless bytes were added or removed
// inside it.
func (p place) difference(d difference, was, is []byte) string {
	from, to := d.after(p.from), d.after(p.to)
	if d.size > 0 && to-from != p.to-p.from || to > len(is) {
		return fmt.Sprintf("%s differs", p)
	}
	return fmt.Sprintf("%s %s, was %s", p, p.format(is[from:to]), p.format(was[p.from:p.to]))
}

// after returns the position in the later packet of a position in the earlier one.
func (d difference) after(i int) int {
	switch {
	case d.added && i >= d.at && d.size > 0:
		return i + d.size
	case !d.added && i >= d.at+d.size:
		return i - d.size
	}
	return i
}

// memberDifferences compares two values by their JSON.
func memberDifferences(prefix string, was, is any) (words []string) {
	a, b := members(was), members(is)
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if string(a[name]) != string(b[name]) {
			words = append(words, fmt.Sprintf("%s%s %s, was %s", prefix, name, plain(b[name]), plain(a[name])))
		}
	}
	return words
}

func members(v any) (m map[string]json.RawMessage) {
	b, _ := json.Marshal(v)
	_ = json.Unmarshal(b, &m)
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	return m
}

// plain returns a value of JSON without quotes, or 0 if it is missing.
func plain(v json.RawMessage) string {
	if len(v) == 0 {
		return "0"
	}
	return strings.Trim(string(v), `"`)
}
