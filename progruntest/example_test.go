package progruntest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"github.com/progrun/progrun/cover"
	"github.com/progrun/progrun/progruntest"
	"github.com/vishvananda/netlink"
)

// exampleT takes the place of a test's *testing.T. It prints errors of the test.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (*exampleT) Helper()                      {}
func (*exampleT) Name() string                 { return "Example" }
func (*exampleT) Log(args ...any)              { fmt.Println(args...) }
func (*exampleT) Fatal(args ...any)            { log.Panic(args...) }
func (*exampleT) Fatalf(f string, args ...any) { log.Panicf(f, args...) }
func (*exampleT) Errorf(f string, args ...any) { fmt.Printf(f+"\n", args...) }
func (*exampleT) Skipf(f string, args ...any)  { log.Panicf(f, args...) }
func (t *exampleT) Cleanup(f func())           { t.cleanups = append(t.cleanups, f) }

func (t *exampleT) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

// spec reads the object file that fits this machine, as the functions that
// bpf2go writes do, and leaves one program in it.
func spec(name, program string) *ebpf.CollectionSpec {
	file := "../testdata/" + name + "_bpfel.o"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		file = "../testdata/" + name + "_bpfeb.o"
	}
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		log.Panic(err)
	}
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	return spec
}

var packet = make([]byte, 64)

// In a test, t is its *testing.T.
func Example() {
	t := new(exampleT)
	defer t.end()

	coll := progruntest.NewCollection(t, spec("xdp", "xdp_filter"))
	packet := append([]byte{12: 0x08, 13: 0x00}, make([]byte, 50)...) // IPv4, but without an IP version
	res := progruntest.Run(t, coll.Programs["xdp_filter"], progrun.XDP{Packet: packet})
	if res.Action != progrun.XDPAborted {
		t.Errorf("got %s", res.Action)
	}
	fmt.Println(res.Action)
	// Output: XDP_ABORTED
}

func ExampleLoadAndAssign() {
	t := new(exampleT)
	defer t.end()

	var objs struct { // or the struct that bpf2go wrote
		Mark *ebpf.Program `ebpf:"tc_mark"`
		Runs *ebpf.Map     `ebpf:"runs"`
	}
	progruntest.LoadAndAssign(t, spec("tc", "tc_mark"), &objs)
	res := progruntest.Run(t, objs.Mark, progrun.TC{Packet: packet, Context: progrun.SKB{Mark: 7}})
	fmt.Println(res.Verdict, res.Context.Mark)
	// Output: TC_ACT_SHOT 8
}

func ExampleRecords() {
	t := new(exampleT)
	defer t.end()

	coll := progruntest.NewCollection(t, spec("events", "xdp_ring"))
	type event struct {
		Number uint64
		Type   ebpf.ProgramType
		_      [4]byte
	}
	since := progruntest.Records[event](t, coll.Maps["ring"])

	fmt.Println(len(since()), "records before the run")
	progruntest.Need(t, coll.Maps["how_many"].Put(uint32(0), uint32(2)))
	progruntest.Run(t, coll.Programs["xdp_ring"], progrun.XDP{Packet: packet})
	for _, e := range since() {
		fmt.Println(e.Number, e.Type)
	}
	// Output:
	// 0 records before the run
	// 0 XDP
	// 1 XDP
}

func ExampleSum() {
	t := new(exampleT)
	defer t.end()

	coll := progruntest.NewCollection(t, spec("events", "tc_ring"))
	type counts struct {
		Records uint64
		ByType  [4]uint32
		Less    int64
	}
	progruntest.Need(t, coll.Maps["how_many"].Put(uint32(0), uint32(5)))
	for range 10 {
		progruntest.Run(t, coll.Programs["tc_ring"], progrun.TC{Packet: packet})
	}
	fmt.Printf("%+v\n", progruntest.Sum[counts](t, coll.Maps["counts"], uint32(7)))
	// Output: {Records:50 ByType:[0 0 0 50] Less:-50}
}

// This makes a veth pair in a namespace of the test's own.
func ExampleNetNS_Do() {
	t := new(exampleT)
	defer t.end()

	coll := progruntest.NewCollection(t, spec("tc", "tc_mark"))
	progruntest.NewNetNS(t).Do(t, func(t testing.TB) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "near"
		progruntest.Need(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far"}))
		near, err := netlink.LinkByName("near")
		progruntest.Need(t, err)
		progruntest.Need(t, netlink.LinkSetUp(near))

		req := progrun.TC{Packet: packet, Context: progrun.SKB{Ifindex: near.Attrs().Index}}
		fmt.Println(progruntest.Run(t, coll.Programs["tc_mark"], req).Verdict)
	})
	// Output: TC_ACT_OK
}

// Live frames run in the namespace, whichever namespace the thread of the test is in.
func ExampleNetNS_Fd() {
	t := new(exampleT)
	defer t.end()

	ns := progruntest.NewNetNS(t)
	coll := progruntest.NewCollection(t, spec("xdp", "xdp_drop"))
	stats, err := progrun.Live{Packet: packet, Frames: 100, NetNS: ns.Fd()}.Run(context.Background(), coll.Programs["xdp_drop"])
	progruntest.Need(t, err)
	fmt.Println(stats.Frames, progruntest.Sum[uint64](t, coll.Maps["frames"], uint32(0)))
	// Output: 100 100
}

// Call Cover in TestMain, before the tests run.
func ExampleCover() {
	progruntest.Cover(cover.Options{Branches: true, Skip: []string{"huge"}})
}

func ExampleBenchmark() {
	result := testing.Benchmark(func(b *testing.B) { // func BenchmarkFilter(b *testing.B)
		coll := progruntest.NewCollection(b, spec("tc", "act_verdict"))
		progruntest.Benchmark(b, coll.Programs["act_verdict"], progrun.TC{Packet: packet})
	})
	fmt.Println(strings.Fields(result.String())[2], result.Extra["ns/op"] > 0)
	// Output: ns/op true
}
