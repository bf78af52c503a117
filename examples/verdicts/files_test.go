package main

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// shared is the testdata directory of the whole repository.
const shared = "../../testdata"

// files makes a directory with the objects and captures of testdata, and with others
// made from them.
func files(t *testing.T) string {
	t.Helper()
	f := fixtures{t, t.TempDir()}
	for _, pattern := range []string{shared + "/*_" + order() + ".o", shared + "/*.pcap", "testdata/*_" + order() + ".o", "testdata/*.json", "testdata/*.pcap"} {
		names, err := filepath.Glob(pattern)
		f.check(err)
		for _, name := range names {
			f.write(strings.Replace(filepath.Base(name), "_"+order(), "", 1), f.read(name))
		}
	}
	f.write("other.o", f.read(otherOrder()))
	f.objects()
	f.captures()
	f.links()
	f.damaged()
	f.json()
	return f.dir
}

// order is the byte order in the names of objects for this machine.
func order() string {
	if littleEndian {
		return "bpfel"
	}
	return "bpfeb"
}

// objectFile returns the name of an object of testdata for this machine.
func objectFile(name string) string { return filepath.Join(shared, name+"_"+order()+".o") }

// otherOrder returns the name of an object that is not for this machine.
func otherOrder() string {
	if littleEndian {
		return filepath.Join(shared, "xdp_bpfeb.o")
	}
	return filepath.Join(shared, "xdp_bpfel.o")
}

type fixtures struct {
	t   *testing.T
	dir string
}

func (f fixtures) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f fixtures) read(name string) []byte {
	f.t.Helper()
	b, err := os.ReadFile(name)
	f.check(err)
	return b
}

func (f fixtures) write(name string, b []byte) {
	f.t.Helper()
	f.check(os.WriteFile(filepath.Join(f.dir, name), b, 0o644))
}

// objects makes two builds of a filter. The new one has a bug: it drops port 22 instead of
// 23.
func (f fixtures) objects() {
	b := f.read(filepath.Join(f.dir, "xdp.o"))
	f.write("old.o", b)
	f.write("truncated.o", b[:len(b)/2])
	file, err := elf.NewFile(bytes.NewReader(b))
	f.check(err)
	section := file.Section("xdp")
	code := b[section.Offset : section.Offset+section.Size]
	telnet := uint32(binary.NativeEndian.Uint16([]byte{0, 23}))
	ssh := uint32(binary.NativeEndian.Uint16([]byte{0, 22}))
	found := 0
	for ; len(code) > 0; code = code[8:] {
		if jump := code[0]&7 == 5 || code[0]&7 == 6; jump && binary.NativeEndian.Uint32(code[4:]) == telnet {
			binary.NativeEndian.PutUint32(code[4:], ssh)
			found++
		}
	}
	if found == 0 {
		f.t.Fatal("the filter does not compare a port with 23")
	}
	f.write("new.o", b)
}

// captures makes captures in other formats, and of packets of odd sizes.
func (f fixtures) captures() {
	traffic := f.read(filepath.Join(f.dir, "traffic.pcap"))
	f.gzip("traffic.pcap.gz", traffic)
	packets := f.packets("traffic.pcap")
	f.pcapng("traffic.pcapng", layers.LinkTypeEthernet, packets...)
	f.pcap("short.pcap", layers.LinkTypeEthernet, packets[0][:10], packets[0][:13], packets[0][:14], packets[0])
	f.pcapng("short.pcapng", layers.LinkTypeEthernet, packets[0][:13], packets[0])
	f.pcap("tiny.pcap", layers.LinkTypeEthernet, packets[0][:13])
	f.pcap("none.pcap", layers.LinkTypeEthernet)
	jumbo := append(bytes.Clone(packets[3][:14+20+8]), make([]byte, 9000-42)...)
	binary.BigEndian.PutUint16(jumbo[16:], uint16(len(jumbo)-14))
	binary.BigEndian.PutUint16(jumbo[38:], uint16(len(jumbo)-34))
	f.pcap("jumbo.pcap", layers.LinkTypeEthernet, jumbo, packets[3])
}

// links makes captures of other link types. Those of Linux cooked headers were
// recorded.
func (f fixtures) links() {
	packets := f.packets("traffic.pcap")
	ip4, ip6 := packets[2][14:], packets[27][14:]
	with := func(header string, b []byte) []byte { return append([]byte(header), b...) }
	f.pcap("raw.pcap", layers.LinkTypeRaw, ip4, ip6, []byte{0x50})
	f.pcap("null.pcap", layers.LinkTypeNull, with("\x02\x00\x00\x00", ip4), with("\x1e\x00\x00\x00", ip6), []byte("\x02\x00"))
	f.pcap("loop.pcap", layers.LinkTypeLoop, with("\x00\x00\x00\x02", ip4), with("\x00\x00\x00\x18", ip6))
	f.pcap("ppp.pcap", layers.LinkTypePPP, with("\xff\x03\x00\x21", ip4), with("\x00\x57", ip6), []byte("\xff\x03\xc0\x21\x01\x01"))
	f.pcap("wifi.pcap", layers.LinkTypeIEEE80211Radio, ip4)
	f.mixed("mixed.pcapng", layers.LinkTypeRaw, packets[2], ip4)
	f.mixed("wifi.pcapng", layers.LinkTypeIEEE802_11, packets[2], ip4)
}

// damaged makes files that end too early, or are not captures.
func (f fixtures) damaged() {
	for _, name := range []string{"traffic.pcap", "traffic.pcapng", "traffic.pcap.gz"} {
		b := f.read(filepath.Join(f.dir, name))
		f.write("truncated"+name[len("traffic"):], b[:len(b)*3/4])
	}
	traffic := f.read(filepath.Join(f.dir, "traffic.pcap"))
	f.write("header.pcap", traffic[:20])
	f.write("empty.pcap", nil)
	f.write("magic.pcap", append([]byte("\xd4\xc3\xb2\xa2"), traffic[4:]...))
}

// json makes the files for -golden and -map.
func (f fixtures) json() {
	before := command(f.t, f.dir, "", "-json").stdout
	f.write("before.json", []byte(before))
	lines := bytes.SplitAfter([]byte(before), []byte("\n"))
	f.write("short.json", bytes.Join(lines[:10], nil))
	f.write("error.json", bytes.Replace([]byte(before), []byte(`"verdict":"XDP_PASS","code":2`), []byte(`"error":"out of memory"`), 1))
	longer := command(f.t, f.dir, "", "-pcap", "short.pcapng", "-json").stdout
	f.write("longer.json", append([]byte(longer), lines[2]...))
	tc := command(f.t, f.dir, "", "-object", "tc.o", "-program", "tc_rewrite", "-json").stdout
	tc = string(bytes.Replace([]byte(tc), []byte(`"context":{`), []byte(`"context":{"mark":7,`), 1))
	f.write("tc.json", []byte(tc))

	f.write("dump.json", []byte(`[{"key":["0x18","0x00","0x00","0x00","0xc0","0x00","0x02","0x00"],"value":["0x01","0x00","0x00","0x00"],"formatted":{"key":{},"value":1}}]`))
	f.write("number.json", []byte("1000"))
	f.write("field.json", []byte(`[{"key": {"adress": "192.0.2.1"}, "value": 1}]`))
	f.write("rule.json", []byte(`[{"key": {"address": "192.0.2.1"}, "value": "RULE_DENY"}]`))
	f.write("program.json", []byte(`{"0": "nope"}`))
	f.write("size.json", []byte(`[{"key": ["0x18","0x00"], "value": 1}]`))
	f.write("value.json", []byte(`[{"key": "10.0.0.0/8"}]`))
	f.write("index.json", []byte(`{"300": 1}`))
	f.write("cpu.json", []byte(`[{"key": 1, "values": [{"cpu": 65536, "value": 1}]}]`))
	f.write("inner.json", []byte(`{"198.51.100.20": {"99999": true}}`))
}

func (f fixtures) gzip(name string, b []byte) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(b)
	f.check(err)
	f.check(w.Close())
	f.write(name, packed.Bytes())
}

// packets reads a capture of the directory.
func (f fixtures) packets(name string) (packets [][]byte) {
	f.t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(f.read(filepath.Join(f.dir, name))))
	f.check(err)
	for {
		b, _, err := r.ReadPacketData()
		if err != nil {
			return packets
		}
		packets = append(packets, b)
	}
}

func info(b []byte, iface int) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: time.Unix(0, 0), CaptureLength: len(b), Length: len(b), InterfaceIndex: iface}
}

func (f fixtures) pcap(name string, link layers.LinkType, packets ...[]byte) {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	f.check(w.WriteFileHeader(65535, link))
	for _, packet := range packets {
		f.check(w.WritePacket(info(packet, 0), packet))
	}
	f.write(name, b.Bytes())
}

func (f fixtures) pcapng(name string, link layers.LinkType, packets ...[]byte) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, link)
	f.check(err)
	for _, packet := range packets {
		f.check(w.WritePacket(info(packet, 0), packet))
	}
	f.check(w.Flush())
	f.write(name, b.Bytes())
}

// mixed makes a capture of two interfaces, one of them Ethernet.
func (f fixtures) mixed(name string, link layers.LinkType, ethernet, other []byte) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	f.check(err)
	second, err := w.AddInterface(pcapgo.NgInterface{Name: "other", LinkType: link, SnapLength: 65535})
	f.check(err)
	f.check(w.WritePacket(info(ethernet, 0), ethernet))
	f.check(w.WritePacket(info(other, second), other))
	f.check(w.Flush())
	f.write(name, b.Bytes())
}
