package main

import (
	"bytes"
	"encoding/hex"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// A difference is found where the program made it.
func TestCompare(t *testing.T) {
	for _, test := range []struct {
		in, out  string
		at, size int
		changed  []int
	}{
		{"abcdef", "abcdef", 0, 0, nil},
		{"abcdef", "abXdef", 0, 0, []int{2}},
		{"abcdef", "cdef", 0, 2, nil},
		{"abcdef", "abcd", 4, 2, nil},
		{"abcdef", "abef", 2, 2, nil},
		{"abcdef", "abeX", 2, 2, []int{5}},
		{"abcdef", "xxabcdef", 0, 2, nil},
		{"abcdef", "abxxcdef", 2, 2, nil},
		{"abcdef", "abcdef00", 6, 2, nil},
		{"abcdef", "aBcxxdeF", 3, 2, []int{1, 5}},
		{"0000", "00", 0, 2, nil},
		{"a000", "a0", 2, 2, nil},
		{"", "ab", 0, 2, nil},
		{"ab", "", 0, 2, nil},
	} {
		d := compare([]byte(test.in), []byte(test.out))
		if d.at != test.at || d.size != test.size || d.added != (len(test.out) > len(test.in)) || !slices.Equal(d.changed, test.changed) {
			t.Errorf("%s to %s: %+v, want %d bytes at %d, and %v changed", test.in, test.out, d, test.size, test.at, test.changed)
		}
	}
}

// What is added after the Ethernet header may look like the end of it.
func TestCompareEthernet(t *testing.T) {
	in := unhex(t, "ffffffffffff 020000000001 0800 4500 0020")
	out := unhex(t, "ffffffffffff 020000000001 0800 020000000002 020000000001 0800 4500 0020")
	if have := change(in, out); have != "18 -> 32 bytes, 14 bytes added before byte 14" {
		t.Error(have)
	}
}

// A VLAN tag is recognized whatever bytes are beside it.
func TestCompareVLAN(t *testing.T) {
	for _, test := range []struct{ untagged, tagged, want string }{
		{"ffffffffffff 020000000001 0800 4500", "ffffffffffff 020000000001 81000064 0800 4500", "VLAN tag 100"},
		{"ffffffffffff 020000000081 0800 4500", "ffffffffffff 020000000081 81000064 0800 4500", "VLAN tag 100"}, // the byte before it
		{"ffffffffffff 020000000001 8100 0007 0800", "ffffffffffff 020000000001 81000064 8100 0007 0800", "VLAN tag 100"},
		{"ffffffffffff 020000000001 8100 0064 0800", "ffffffffffff 020000000001 81000064 8100 0064 0800", "VLAN tag 100"},
		{"000000000000 000000000000 0000 0000", "000000000000 000000000000 81000000 0000 0000", "VLAN tag 0"},
		{"ffffffffffff 020000000001 88a8 0064 0800", "ffffffffffff 020000000001 88a80005 88a8 0064 0800", "VLAN tag 5"},
		{"ffffffffffff 020000000001 0800 4500", "ffffffffffff 020000000001 08000800 0800 4500", "4 bytes"},
	} {
		short, long := unhex(t, test.untagged), unhex(t, test.tagged)
		if have := change(short, long); !strings.Contains(have, ", "+test.want) || !strings.Contains(have, "added") {
			t.Errorf("%s to %s: %s, want %s added", test.untagged, test.tagged, have, test.want)
		}
		if have := change(long, short); strings.HasPrefix(test.want, "VLAN") && !strings.HasSuffix(have, ", "+test.want+" removed") {
			t.Errorf("%s to %s: %s, want %s removed", test.tagged, test.untagged, have, test.want)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Values of JSON become the bytes that C has in memory.
func TestEncode(t *testing.T) {
	u8, u16 := &btf.Int{Name: "u8", Size: 1}, &btf.Int{Name: "u16", Size: 2}
	u32, s32 := &btf.Int{Name: "u32", Size: 4}, &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	be16 := &btf.Typedef{Name: "__be16", Type: u16}
	mode := &btf.Enum{Name: "mode", Size: 4, Values: []btf.EnumValue{{Name: "OFF", Value: 0}, {Name: "ON", Value: 1}}}
	address := &btf.Union{Size: 16, Members: []btf.Member{
		{Name: "v4", Type: u32}, {Name: "v6", Type: &btf.Array{Type: u32, Nelems: 4}}}}
	service := &btf.Struct{Name: "service", Size: 20, Members: []btf.Member{
		{Type: address}, {Name: "port", Type: u16, Offset: 128}, {Name: "flags", Type: u8, Offset: 144},
		{Name: "bit", Type: u8, Offset: 152, BitfieldSize: 1}}}
	for _, test := range []struct {
		t          btf.Type
		size       int
		json, want string // hexadecimal on a little-endian machine, or an error
	}{
		{u32, 4, `1`, "01000000"},
		{u32, 4, `"0x10"`, "10000000"},
		{u32, 4, `true`, "01000000"},
		{u32, 4, `4294967295`, "ffffffff"},
		{u32, 4, `4294967296`, "4294967296 does not fit in 32 bits"},
		{u32, 4, `-1`, "-1 does not fit in 32 bits"},
		{s32, 4, `-1`, "ffffffff"},
		{s32, 4, `-2147483649`, "-2147483649 does not fit in 32 bits"},
		{u32, 4, `1.5`, "1.5 is no whole number"},
		{u32, 4, `null`, "null is no whole number"},
		{u32, 4, `"192.0.2.1"`, "c0000201"},
		{u32, 4, `"htonl(1)"`, "00000001"},
		{u32, 4, `"htons(80)"`, "00500000"},
		{u16, 2, `"htons(80)"`, "0050"},
		{u16, 2, `"htonl(80)"`, "4 bytes in network order do not fit in 2"},
		{be16, 2, `80`, "0050"},
		{be16, 2, `"htons(80)"`, "0050"},
		{mode, 4, `"ON"`, "01000000"},
		{mode, 4, `1`, "01000000"},
		{mode, 4, `"on"`, `"on" is none of OFF, ON`},
		{&btf.Array{Type: u8, Nelems: 6}, 6, `"02:00:00:00:00:01"`, "020000000001"},
		{&btf.Array{Type: u8, Nelems: 6}, 6, `"eth0"`, "657468300000"},
		{&btf.Array{Type: u32, Nelems: 2}, 8, `[1, 2]`, "0100000002000000"},
		{&btf.Array{Type: u32, Nelems: 2}, 8, `[1]`, "0100000000000000"},
		{&btf.Array{Type: u32, Nelems: 2}, 8, `[1, 2, 3]`, "3 elements, but there is room for 2"},
		{&btf.Array{Type: u32, Nelems: 4}, 16, `"2001:db8::1"`, "20010db8000000000000000000000001"},
		{service, 20, `{"v4": "192.0.2.1", "port": "htons(80)", "flags": 3}`, "c0000201000000000000000000000000" + "00500300"},
		{service, 20, `{"v6": "2001:db8::1"}`, "20010db8000000000000000000000001" + "00000000"},
		{service, 20, `{"v5": 1}`, "v5: no such field: there are v4, v6, port, flags, bit"},
		{service, 20, `{"bit": 1}`, "bit: bit fields cannot be given by name: give the bytes of the whole struct"},
		{service, 20, `1`, "1 for a struct service: give an object with its fields (v4, v6, port, flags, bit)"},
		{service, 20, `"192.0.2.1"`, `"192.0.2.1" has 4 bytes, and 20 are wanted`},
		{service, 20, `["0x01", "0x02"]`, "2 bytes given, 20 wanted"},
		{service, 20, `[]`, "0 bytes given, 20 wanted"},
		{&btf.Pointer{Target: u8}, 8, `1`, "a value of the kind Pointer cannot be given"},
		// as bpftool dumps them, whatever the type
		{u32, 4, `["0x01", "0x02", "0x03", "0x04"]`, "01020304"},
		{nil, 4, `["0x01", "0x02", "0x03", "0x04"]`, "01020304"},
		// of no known type
		{nil, 4, `7`, "07000000"},
		{nil, 4, `"0x7"`, "07000000"},
		{nil, 4, `-1`, "ffffffff"},
		{nil, 3, `7`, "7 for 3 bytes whose fields the object does not tell: give a list of bytes"},
		{nil, 3, `[1, 2, 3]`, "010203"},
		{nil, 3, `[1, 2]`, "2 bytes given, 3 wanted"},
		{nil, 3, `[1, 2, 256]`, "byte 2: 256 does not fit in 8 bits"},
		{nil, 3, `"0x010203"`, "010203"},
		{nil, 6, `"02:00:00:00:00:01"`, "020000000001"},
		{nil, 8, `"10.0.0.0/8"`, "080000000a000000"},
		{nil, 8, `"10.0.0.0/33"`, `"10.0.0.0/33" is no address, prefix or MAC address, nor 0x with the digits of 8 bytes`},
		{nil, 12, `{"a": 1}`, `{"a":1} for 12 bytes whose fields the object does not tell: give a list of bytes`},
	} {
		v, err := decodeJSON([]byte(test.json))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, test.size)
		have := ""
		if err := encode(b, test.t, v); err != nil {
			have = err.Error()
		} else {
			have = hex.EncodeToString(b)
		}
		if have != test.want && littleEndian {
			t.Errorf("%s as %v: %s, want %s", test.json, test.t, have, test.want)
		}
	}
}

// Percentiles are exact to within a 32nd, and every duration is in a bar.
func TestHistogram(t *testing.T) {
	for _, scale := range []time.Duration{1, 7, 1000, 1e6, 1e12} {
		var h histogram
		for i := range 1000 {
			h.add(time.Duration(i+1) * scale)
		}
		for _, p := range []float64{50, 90, 99} {
			want := time.Duration(p*10) * scale
			if have := h.percentile(p); have > want || have < want-want/32-1 {
				t.Errorf("percentile %v of 1 to 1000, times %d: %d, want %d", p, scale, have, want)
			}
		}
		sum := 0
		bars := h.bars()
		for i, b := range bars {
			sum += b.N
			if i > 0 && b.From <= bars[i-1].From {
				t.Errorf("times %d: bar %d begins at %d, not after %d", scale, i, b.From, bars[i-1].From)
			}
		}
		if sum != 1000 || len(bars) > mostBars || len(bars) < 3 {
			t.Errorf("times %d: %d durations in %d bars", scale, sum, len(bars))
		}
	}
	var h histogram
	for range 10 {
		h.add(50)
	}
	if bars := h.bars(); len(bars) != 1 || bars[0] != (bar{50, 10}) {
		t.Errorf("ten times 50 ns: %v", bars)
	}
	var b bytes.Buffer
	h.print(&b)
	if want := "Median 50 ns, 90th percentile 50 ns, 99th 50 ns:\n      50 ns+ 100 %  ████████████████████████████████████████\n"; b.String() != want {
		t.Errorf("%q", &b)
	}
}

// Both halves of a tee have all inputs, whichever is ahead, and pull each once.
func TestTee(t *testing.T) {
	pulled := 0
	a, b, stop := tee(func(yield func(input) bool) {
		for pulled < 1000 {
			if pulled++; !yield(input{n: pulled}) {
				return
			}
		}
	})
	defer stop()
	nextA, stopA := iter.Pull(a)
	defer stopA()
	nextB, stopB := iter.Pull(b)
	defer stopB()
	var have [2]int
	for i := 0; have[0] < 1000 || have[1] < 1000; i++ {
		side, next := i/7%2, nextA
		if side == 1 {
			next = nextB
		}
		for range i % 5 {
			in, ok := next()
			if have[side] == 1000 && !ok {
				break
			}
			have[side]++
			if !ok || in.n != have[side] {
				t.Fatalf("side %d: input %d, %v, want %d", side, in.n, ok, have[side])
			}
		}
		if pulled != max(have[0], have[1]) {
			t.Fatalf("%d pulled for %d", pulled, have)
		}
	}
}

// Maps and programs that the program does not refer to are not loaded.
func TestPrune(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpec(filepath.Join("testdata", "firewall_"+order()+".o"))
	if err != nil {
		t.Fatal(err)
	}
	prune(spec, "last")
	if len(spec.Programs) != 1 || len(spec.Maps) != 0 || len(spec.Variables) != 0 {
		t.Errorf("for a program that uses nothing: %d programs, %d maps, %d variables", len(spec.Programs), len(spec.Maps), len(spec.Variables))
	}
}

// -only matches the name of a verdict, or its end.
func TestMatches(t *testing.T) {
	for _, test := range []struct {
		name, want string
		is         bool
	}{
		{"XDP_DROP", "XDP_DROP", true}, {"XDP_DROP", "xdp_drop", true}, {"XDP_DROP", "drop", true}, {"XDP_DROP", "rop", false},
		{"XDP_DROP", "", false}, {"keep 42 bytes", "keep", true}, {"keep 42 bytes", "keep 42 bytes", true}, {"drop", "drop", true},
		{"TC_ACT_OK", "ok", true}, {"TC_ACT_OK", "act_ok", true}, {"error", "error", true},
	} {
		if matches(test.name, test.want) != test.is {
			t.Errorf("%s for %s: %v", test.name, test.want, !test.is)
		}
	}
}
