// Package progruntest provides utilities for testing BPF programs with progrun, as
// net/http/httptest does for HTTP handlers. It loads programs, runs them, reads what
// they counted and wrote, times them, and runs tests in network namespaces. It
// closes what a test opens when the test ends.
//
//	func TestDropsTelnet(t *testing.T) {
//		spec, err := ebpf.LoadCollectionSpec("filter.o")
//		progruntest.Need(t, err)
//		coll := progruntest.NewCollection(t, spec)
//		dropped := progruntest.Records[event](t, coll.Maps["dropped"])
//
//		res := progruntest.Run(t, coll.Programs["filter"], progrun.XDP{Packet: telnet})
//		if res.Action != progrun.XDPDrop {
//			t.Errorf("got %s", res.Action)
//		}
//		if got := dropped(); len(got) != 1 || got[0].Port != 23 {
//			t.Errorf("records %+v", got)
//		}
//		if n := progruntest.Sum[uint64](t, coll.Maps["drops"], uint32(0)); n != 1 {
//			t.Errorf("counted %d drops", n)
//		}
//	}
//
// # Skips
//
// A test is skipped, with the reason, if the process lacks a privilege or the kernel
// lacks a feature. Any other error fails it. [Need] has the rules. Ask for features,
// not for versions of the kernel, since stable kernels backport features:
//
//	progruntest.Need(t, progrun.HaveNonLinearSKB())
//	progruntest.Need(t, features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes))
//
// A test that is skipped everywhere tests nothing. Set PROGRUN_REQUIRE=1 in the
// environment where tests run as root, and PROGRUN_REQUIRE=all on the newest kernel.
// Tests then fail instead of being skipped.
//
// # Coverage
//
// With PROGRUN_COVERDIR, programs that the package loads report which of their lines
// the tests reached; see [Cover] for options:
//
//	PROGRUN_COVERDIR=/tmp/cover go test -count=1 ./...
//	go run github.com/progrun/progrun/cover/bpfcover /tmp/cover
//
// # Recipes
//
// The package does not build packets, compare them or make veths, since other
// packages do.
//
// A packet, by github.com/gopacket/gopacket:
//
//	func tcp(t *testing.T, dst string, port uint16) []byte {
//		eth := &layers.Ethernet{SrcMAC: mac1, DstMAC: mac2, EthernetType: layers.EthernetTypeIPv4}
//		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP,
//			SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.ParseIP(dst)}
//		tcp := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(port), SYN: true}
//		tcp.SetNetworkLayerForChecksum(ip)
//		buf := gopacket.NewSerializeBuffer()
//		opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
//		if err := gopacket.SerializeLayers(buf, opts, eth, ip, tcp); err != nil {
//			t.Fatal(err)
//		}
//		return buf.Bytes()
//	}
//
// A difference between packets, by github.com/google/go-cmp/cmp, in lines of 16
// bytes. Clear bytes that may differ before:
//
//	dump := cmp.Transformer("dump", func(b []byte) []string { return strings.Split(hex.Dump(b), "\n") })
//	if diff := cmp.Diff(want, res.Packet, dump); diff != "" {
//		t.Errorf("packet (-want +got):\n%s", diff)
//	}
//
// A veth in a namespace, by github.com/vishvananda/netlink: see the example of
// [NetNS.Do].
//
// A fuzz target. If the program did not run and the error Is EINVAL, the kernel does
// not take such a packet:
//
//	func FuzzFilter(f *testing.F) {
//		prog := progruntest.NewCollection(f, spec).Programs["filter"]
//		f.Add(telnet)
//		f.Fuzz(func(t *testing.T, packet []byte) {
//			res, err := progrun.XDP{Packet: packet}.Run(prog)
//			var e *progrun.Error
//			if errors.As(err, &e) && e.Ran == progrun.RanNo && errors.Is(err, unix.EINVAL) {
//				t.Skip(err)
//			}
//			progruntest.Need(t, err)
//			if res.Action == progrun.XDPAborted {
//				t.Errorf("aborted on %x", packet)
//			}
//		})
//	}
//
// A golden file: the verdicts on the packets of a capture, compared with earlier
// ones. go test -update rewrites the file:
//
//	var update = flag.Bool("update", false, "rewrite golden files")
//
//	func TestCapture(t *testing.T) {
//		var got strings.Builder
//		for i, packet := range readCapture(t, "testdata/traffic.pcap") {
//			res := progruntest.Run(t, prog, progrun.XDP{Packet: packet})
//			fmt.Fprintln(&got, i+1, res.Action, len(res.Packet))
//		}
//		if *update {
//			progruntest.Need(t, os.WriteFile("testdata/traffic.golden", []byte(got.String()), 0o644))
//		}
//		want, err := os.ReadFile("testdata/traffic.golden")
//		progruntest.Need(t, err)
//		if diff := cmp.Diff(string(want), got.String()); diff != "" {
//			t.Errorf("verdicts (-want +got):\n%s", diff)
//		}
//	}
//
// Tests that share maps must restore their contents. Tests that load maps of their
// own, as above, need not. Loading takes some milliseconds.
package progruntest
