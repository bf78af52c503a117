package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/progrun/progrun"
	"github.com/progrun/progrun/progruntest"
)

const testdata = "../../testdata"

// object is the name of an object in testdata that fits this machine.
func object(name string) string {
	order := "bpfel"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = "bpfeb"
	}
	return filepath.Join(testdata, name+"_"+order+".o")
}

// lines runs the command and gives the lines of its output, with runs of
// spaces as one space.
func lines(t *testing.T, o options) []string {
	t.Helper()
	progruntest.Need(t, progrun.HaveProgramRun(ebpf.XDP))
	var out bytes.Buffer
	if err := run(o, &out); err != nil {
		t.Fatalf("%v, after:\n%s", err, &out)
	}
	t.Log("\n" + out.String())
	list := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, line := range list {
		list[i] = strings.Join(strings.Fields(line), " ")
	}
	return list
}

func expect(t *testing.T, have []string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(have, line) {
			t.Errorf("no line %q", line)
		}
	}
}

// The embedded filter on the embedded capture: the command as it runs without
// flags.
func TestDefault(t *testing.T) {
	have := lines(t, options{})
	expect(t, have,
		"xdp_filter (XDP) on traffic.pcap",
		"1 ARP 192.0.2.10 asks for 192.0.2.1 XDP_PASS 60 bytes",
		"16 IPv4 192.0.2.10:50001 > 198.51.100.20:23 TCP SYN XDP_DROP 66 bytes",
		"17 IPv4 192.0.2.10:40002 > 198.51.100.20:7 UDP XDP_TX 60 bytes, Ethernet destination, source; "+
			"IPv4 source, destination; UDP source port, destination port changed (bytes 5, 11, 26-37)",
		"19 IPv4 192.0.2.10:49152 > 198.51.100.20:4789 UDP XDP_PASS 101 bytes, IPv4 TTL, checksum changed (bytes 22, 24)",
		"20 VLAN 100 IPv4 192.0.2.10:40004 > 198.51.100.20:5000 UDP XDP_PASS 57 -> 53 bytes, VLAN tag 100 removed",
		"39 IPv4 192.0.2.10 > 198.51.100.20 UDP, first fragment XDP_DROP 1514 bytes",
		"46 packets: 33 XDP_PASS, 5 XDP_DROP, 4 XDP_ABORTED, 4 XDP_TX",
	)
	last := have[len(have)-1]
	if !regexp.MustCompile(`^Time per run: \d+ ns, the mean of \d+ single runs; an empty program takes \d+ ns$`).MatchString(last) {
		t.Errorf("the last line is %q", last)
	}
}

// One program of each type that takes packets.
func TestTypes(t *testing.T) {
	for _, test := range []struct{ object, program, want string }{
		{"xdp", "xdp_meta", "1 ARP 192.0.2.10 asks for 192.0.2.1 XDP_PASS 60 bytes, 8 bytes of metadata: 1111111122222222"},
		{"xdp", "xdp_grow_head", "1 ARP 192.0.2.10 asks for 192.0.2.1 XDP_PASS 60 -> 76 bytes, 16 bytes added before byte 0"},
		{"tc", "tc_rewrite", "4 IPv4 192.0.2.53:53 > 192.0.2.10:40001 UDP TC_ACT_OK 91 bytes, " +
			"IPv4 checksum, destination; UDP checksum changed (bytes 25, 33, 41)"},
		{"tc", "act_verdict", "46 packets: 45 TC_ACT_OK, 1 errors"},
		{"socket_filter", "", "4 IPv4 192.0.2.53:53 > 192.0.2.10:40001 UDP keep 42 bytes 91 bytes"},
		{"cgroup_skb", "cgroup_egress", "3 IPv4 192.0.2.10:40001 > 192.0.2.53:53 UDP allow 75 bytes"},
		{"lwt", "lwt_push", "3 IPv4 192.0.2.10:40001 > 192.0.2.53:53 UDP BPF_LWT_REROUTE 75 -> 95 bytes, 20 bytes added before byte 14"},
		{"flow_dissector", "flow_dissect", "3 IPv4 192.0.2.10:40001 > 192.0.2.53:53 UDP BPF_OK " +
			"192.0.2.10:40001 > 192.0.2.53:53, type 0x0800, protocol 17, headers at 14 and 34"},
		{"netfilter", "", "3 IPv4 192.0.2.10:40001 > 192.0.2.53:53 UDP NF_ACCEPT"},
	} {
		t.Run(test.object+"/"+test.program, func(t *testing.T) {
			expect(t, lines(t, options{object: object(test.object), program: test.program}), test.want)
		})
	}
}

// Frames that cannot be run are errors in the list, and no more.
func TestShortFrame(t *testing.T) {
	frame := make([]byte, 60)
	for _, format := range []string{"pcap", "pcapng"} {
		t.Run(format, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "short."+format)
			writeCapture(t, name, frame[:10], frame)
			expect(t, lines(t, options{pcap: name}),
				"1 malformed or cut short error: progrun: input 1: XDP.Packet: 10 bytes: a packet begins with a 14-byte Ethernet header: invalid argument",
				"2 packets: 1 XDP_PASS, 1 errors")
		})
	}
}

func writeCapture(t *testing.T, name string, frames ...[]byte) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var w interface {
		WritePacket(gopacket.CaptureInfo, []byte) error
	}
	if filepath.Ext(name) == ".pcapng" {
		ng, err := pcapgo.NewNgWriter(f, layers.LinkTypeEthernet)
		if err != nil {
			t.Fatal(err)
		}
		defer ng.Flush()
		w = ng
	} else {
		classic := pcapgo.NewWriter(f)
		if err := classic.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		w = classic
	}
	for _, frame := range frames {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(0, 0), CaptureLength: len(frame), Length: len(frame)}
		if err := w.WritePacket(info, frame); err != nil {
			t.Fatal(err)
		}
	}
}

// Mistakes end in one sentence, before anything is loaded.
func TestMistakes(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		o    options
		want string
	}{
		{"no such program", options{object: object("socket_filter"), program: "nope"},
			"there is no program nope; the object has socket_filter (SocketFilter)"},
		{"several programs", options{object: object("cgroup_skb")},
			"choose a program with -program: the object has cgroup_egress (CGroupSKB), cgroup_ingress (CGroupSKB)"},
		{"no packets", options{object: object("syscall"), program: "syscall_add"},
			"syscall_add is a Syscall program, which takes no packets; none of the object's programs takes packets"},
		{"not a capture", options{pcap: empty}, empty + ": neither a pcap nor a pcapng file: EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := run(test.o, new(bytes.Buffer))
			if err == nil || err.Error() != test.want {
				t.Errorf("have %v\nwant %s", err, test.want)
			}
		})
	}
	if err := run(options{object: "nope.o"}, new(bytes.Buffer)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that does not exist: %v", err)
	}
}

// The copies that are embedded are those of testdata.
func TestCopies(t *testing.T) {
	for original, embedded := range map[string][]byte{
		object("xdp"): filterObject, filepath.Join(testdata, "traffic.pcap"): trafficCapture,
	} {
		want, err := os.ReadFile(original)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(embedded, want) {
			t.Errorf("the copy of %s differs: testdata/Makefile renews it", original)
		}
	}
}

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
	} {
		d := compare([]byte(test.in), []byte(test.out))
		if d.at != test.at || d.size != test.size || d.added != (len(test.out) > len(test.in)) || !slices.Equal(d.changed, test.changed) {
			t.Errorf("%s to %s: %+v, want %d bytes at %d, and %v changed", test.in, test.out, d, test.size, test.at, test.changed)
		}
	}
}

// The list of types and the requests of judge are the same.
func TestTakesPackets(t *testing.T) {
	for typ := ebpf.ProgramType(1); typ < 40; typ++ {
		spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Type: typ}}}
		if _, err := choose(spec, "p"); (err == nil) != slices.Contains(takesPackets, typ) {
			t.Errorf("%s: %v", typ, err)
		}
	}
}
