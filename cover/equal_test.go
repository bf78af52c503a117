package cover

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/progrun/progrun"
)

// TestUnchanged runs every XDP and TC program of the module's test data with and
// without probes, on mutated packets. Verdict, packet, context and maps must be the
// same. PROGRUN_COVER_PACKETS is the number of packets for each program.
func TestUnchanged(t *testing.T) {
	needPrivilege(t)
	packets := 500
	if emulated {
		packets = 100
	}
	if text := os.Getenv("PROGRUN_COVER_PACKETS"); text != "" {
		var err error
		if packets, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	corpus := readTraffic(t)
	objects, err := filepath.Glob(object("../testdata/*"))
	if err != nil || len(objects) == 0 {
		t.Fatal("no test data", err)
	}
	ran := 0
	for _, file := range append(objects, object("testdata/lines")) {
		spec := loadSpec(t, file)
		for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
			typ := spec.Programs[name].Type
			if typ != ebpf.XDP && typ != ebpf.SchedCLS && typ != ebpf.SchedACT {
				continue
			}
			ran++
			for _, branches := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s,branches=%v", filepath.Base(file), name, branches), func(t *testing.T) {
					compare(t, spec, name, branches, packets/2, corpus)
				})
			}
		}
	}
	if ran < 20 {
		t.Errorf("the test data has %d programs", ran)
	}
}

// only copies a spec and leaves it a single program. A program that looks at the time
// gets a clock that stands still, at zero: the values of per-CPU maps are compared by
// their sums, and the runs need not all be on the same CPUs.
func only(spec *ebpf.CollectionSpec, name string) *ebpf.CollectionSpec {
	spec = spec.Copy()
	maps.DeleteFunc(spec.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return n != name })
	insns := spec.Programs[name].Instructions
	for i := range insns {
		if insns[i].IsBuiltinCall() && helper(&insns[i]) == asm.FnKtimeGetNs {
			insns[i] = asm.Mov.Imm(asm.R0, 0).WithMetadata(insns[i].Metadata)
		}
	}
	return spec
}

func compare(t *testing.T, spec *ebpf.CollectionSpec, name string, branches bool, packets int, corpus [][]byte) {
	t.Helper()
	plainSpec, probedSpec := only(spec, name), only(spec, name)
	counters, err := Instrument(probedSpec, &Options{Branches: branches})
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	plain, err := ebpf.NewCollection(plainSpec)
	if err != nil {
		t.Skip("this kernel does not load the program without probes either:", err)
	}
	defer plain.Close()
	probed := newCollection(t, probedSpec)

	rng := rand.New(rand.NewPCG(5, 6))
	for n := range packets {
		if n%16 == 0 { // programs take their orders from maps
			setParameters(t, rng, plain, probed)
		}
		packet := mutate(rng, corpus)
		want, got := outcome(plain.Programs[name], packet), outcome(probed.Programs[name], packet)
		if want != got {
			t.Fatalf("packet %d, %x:\n%s\nbut with probes\n%s", n, packet, want, got)
		}
	}
	for m := range plain.Maps {
		if want, got := contents(t, plain.Maps[m]), contents(t, probed.Maps[m]); want != got {
			t.Errorf("map %s has\n%s\nbut with probes\n%s", m, want, got)
		}
	}
}

// outcome returns all results of a run, as text.
func outcome(p *ebpf.Program, packet []byte) string {
	if p.Type() == ebpf.XDP {
		res, err := progrun.XDP{Packet: packet}.Run(p)
		return fmt.Sprintf("%v %x %x %v", res.Action, res.Packet, res.Metadata, err)
	}
	res, err := progrun.TC{Packet: packet}.Run(p)
	return fmt.Sprintf("%v %x %+v %v", res.Verdict, res.Packet, res.Context, err)
}

// mutate returns a packet of the corpus with some bytes changed.
func mutate(rng *rand.Rand, corpus [][]byte) []byte {
	packet := bytes.Clone(corpus[rng.IntN(len(corpus))])
	for range rng.IntN(4) {
		i := rng.IntN(min(len(packet), 80)) // the part with the headers
		switch rng.IntN(3) {
		case 0:
			packet[i] = byte(rng.Uint32())
		case 1:
			packet[i] ^= 1 << rng.IntN(8)
		case 2:
			packet[i] += byte(rng.IntN(3) - 1)
		}
	}
	if rng.IntN(8) == 0 {
		packet = packet[:14+rng.IntN(len(packet)-14)]
	}
	return packet
}

// setParameters writes the same random numbers into the arrays that hold the parameters
// of both programs.
func setParameters(t *testing.T, rng *rand.Rand, collections ...*ebpf.Collection) {
	t.Helper()
	for name, limit := range map[string]int32{"verdict": 6, "delta": 40} {
		value := rng.Int32N(limit)
		if name == "delta" {
			value -= 20
		}
		for _, coll := range collections {
			if m := coll.Maps[name]; m != nil {
				if err := m.Put(uint32(0), value); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// contents returns the contents of a map, as text.
func contents(t *testing.T, m *ebpf.Map) string {
	t.Helper()
	if m.Type() != ebpf.Array && m.Type() != ebpf.PerCPUArray {
		return ""
	}
	var out bytes.Buffer
	for key := range m.MaxEntries() {
		if m.Type() == ebpf.Array {
			var value []byte
			if err := m.Lookup(key, &value); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "%d: %x\n", key, value)
			continue
		}
		// The test may move to another CPU, so only the sum is the same.
		var values [][]byte
		if err := m.Lookup(key, &values); err != nil {
			t.Fatal(err)
		}
		sum := make([]uint64, m.ValueSize()/8)
		for _, value := range values {
			for i := range sum {
				sum[i] += binary.NativeEndian.Uint64(value[8*i:])
			}
		}
		fmt.Fprintf(&out, "%d: %v\n", key, sum)
	}
	return out.String()
}

// readTraffic reads the packets of the module's capture, a classic
// little-endian one.
func readTraffic(t *testing.T) (packets [][]byte) {
	t.Helper()
	file, err := os.ReadFile("../testdata/traffic.pcap")
	if err != nil {
		t.Fatal(err)
	}
	for rest := file[24:]; len(rest) > 0; {
		n := 16 + int(binary.LittleEndian.Uint32(rest[8:]))
		packets = append(packets, rest[16:n:n])
		rest = rest[n:]
	}
	return packets
}
