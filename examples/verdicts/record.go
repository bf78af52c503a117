package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"

	"github.com/progrun/progrun"
)

// record is a line of -json, as schema.json describes it. Zero fields are left out, except
// the number, the length and the code of a verdict.
type record struct {
	N       int    `json:"n"`                 // the packet's number in the capture, from 1
	Summary string `json:"summary"`           // the packet in words
	Length  int    `json:"length"`            // length of the input in bytes, with the Ethernet header
	CRC     string `json:"crc"`               // CRC-32 of the input, in hex
	Wire    int    `json:"wire,omitempty"`    // the length on the wire, if the capture has less
	Verdict string `json:"verdict,omitempty"` // name of the verdict, absent if the program could not be run
	Code    *int64 `json:"code,omitempty"`    // the verdict as a number
	// Packet is the packet as the program left it, if it changed. Its Ethernet
	// header is that of the input for types that do not see it.
	Packet   hexString      `json:"packet,omitempty"`
	Metadata hexString      `json:"metadata,omitempty"` // what an XDP program put in front of the packet
	Context  *contextRecord `json:"context,omitempty"`  // __sk_buff as the program left it
	Flow     *flowRecord    `json:"flow,omitempty"`     // what a flow dissector found
	Sight    string         `json:"sight,omitempty"`    // "part" or "unknown": the program saw only a part, or may have
	Error    string         `json:"error,omitempty"`    // why the program could not be run
}

// contextRecord is a context, with the names of struct __sk_buff.
type contextRecord struct {
	Mark           uint32    `json:"mark,omitzero"`
	Priority       uint32    `json:"priority,omitzero"`
	IngressIfindex int       `json:"ingress_ifindex,omitzero"`
	Ifindex        int       `json:"ifindex,omitzero"`
	CB             [5]uint32 `json:"cb,omitzero"`
	TStamp         uint64    `json:"tstamp,omitzero"`
	WireLen        int       `json:"wire_len,omitzero"`
	GSOSegs        int       `json:"gso_segs,omitzero"`
	GSOSize        int       `json:"gso_size,omitzero"`
	HWTStamp       uint64    `json:"hwtstamp,omitzero"`
}

// flowRecord is a flow dissector's keys, with the names of struct bpf_flow_keys.
type flowRecord struct {
	NHOff       int        `json:"nhoff"`
	THOff       int        `json:"thoff"`
	AddrProto   uint16     `json:"addr_proto,omitzero"`
	IsFrag      bool       `json:"is_frag,omitzero"`
	IsFirstFrag bool       `json:"is_first_frag,omitzero"`
	IsEncap     bool       `json:"is_encap,omitzero"`
	IPProto     uint8      `json:"ip_proto,omitzero"`
	NProto      uint16     `json:"n_proto,omitzero"`
	Src         netip.Addr `json:"src,omitzero"`
	Dst         netip.Addr `json:"dst,omitzero"`
	SPort       uint16     `json:"sport,omitzero"`
	DPort       uint16     `json:"dport,omitzero"`
	Flags       uint32     `json:"flags,omitzero"`
	FlowLabel   uint32     `json:"flow_label,omitzero"`
}

// hexString is bytes that marshal to JSON as a string of hexadecimal digits.
type hexString []byte

func (b hexString) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func (b *hexString) UnmarshalText(text []byte) (err error) {
	*b, err = hex.AppendDecode(nil, text)
	return err
}

// record returns a line of -json. The record shares no memory with the outcome.
func (o *outcome) record() record {
	r := record{N: o.n, Summary: o.summary(), Length: len(o.packet), CRC: fmt.Sprintf("%08x", crc32.ChecksumIEEE(o.packet))}
	if o.cut() {
		r.Wire = o.wire
	}
	if o.err != nil {
		r.Error = o.err.Error()
		return r
	}
	code := o.res.Verdict.Value
	r.Verdict, r.Code = o.res.Verdict.String(), &code
	if out := o.out(); !bytes.Equal(out, o.packet) {
		r.Packet = bytes.Clone(out)
	}
	r.Metadata = bytes.Clone(o.res.Metadata)
	r.Context, r.Flow = contextOf(&o.res.Context), flowOf(&o.res.Keys)
	if o.res.Sight != progrun.SightWhole {
		r.Sight = o.res.Sight.String()
	}
	return r
}

// contextOf returns nil for types of programs that have no context.
func contextOf(c *progrun.SKB) *contextRecord {
	if *c == (progrun.SKB{}) {
		return nil
	}
	return &contextRecord{
		Mark: c.Mark, Priority: c.Priority, IngressIfindex: c.IngressIfindex, Ifindex: c.Ifindex, CB: c.CB,
		TStamp: c.TStampNS, WireLen: c.WireLen, GSOSegs: c.GSOSegs, GSOSize: c.GSOSize, HWTStamp: c.HWTStampNS,
	}
}

// flowOf returns nil for types of programs that find no flows.
func flowOf(k *progrun.FlowKeys) *flowRecord {
	if *k == (progrun.FlowKeys{}) {
		return nil
	}
	return &flowRecord{
		NHOff: k.NHOff, THOff: k.THOff, AddrProto: k.AddrProto, IsFrag: k.IsFrag, IsFirstFrag: k.IsFirstFrag,
		IsEncap: k.IsEncap, IPProto: k.IPProto, NProto: k.NProto, Src: k.Src, Dst: k.Dst, SPort: k.SPort, DPort: k.DPort,
		Flags: uint32(k.Flags), FlowLabel: k.FlowLabel,
	}
}

// jsonSink prints each outcome as a line of JSON.
type jsonSink struct{ encoder *json.Encoder }

func newJSONSink(w io.Writer) jsonSink {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // summaries contain a >
	return jsonSink{e}
}

func (s jsonSink) take(o *outcome) error { return s.encoder.Encode(o.record()) }

func (s jsonSink) end() error { return nil }
