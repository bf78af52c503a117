package carrier_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/internal/carrier"
)

// linear is how much of a packet is linear: what the headroom and the kernel's own data
// leave of a page. Architectures where they leave less have no carriers.
var linear = os.Getpagesize() - 256 - 320

// call makes the system call of a carrier as the root package does.
func call(prog *ebpf.Program, data []byte, repeat int) (time.Duration, syscall.Errno) {
	res, err := progrun.Raw{DataIn: data, Repeat: uint32(repeat)}.Run(prog)
	var errno syscall.Errno
	errors.As(err, &errno)
	return res.Duration, errno
}

// carry makes a carrier, and holds it until the test ends.
func carry(t testing.TB, target *ebpf.Program, opts carrier.Options) *carrier.Carrier {
	t.Helper()
	c := makeCarrier(t, target, opts)
	held, err := progrun.NewHold(c.Program())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		held.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func makeCarrier(t testing.TB, target *ebpf.Program, opts carrier.Options) *carrier.Carrier {
	t.Helper()
	needCarriers(t)
	c, err := carrier.New(target, opts)
	need(t, err)
	return c
}

// need skips a test if the kernel has no carriers.
func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// needCarriers skips a test if no program can copy packets.
func needCarriers(t testing.TB) {
	t.Helper()
	need(t, features.HaveProgramHelper(ebpf.XDP, asm.FnXdpStoreBytes))
}

// input is a packet of a test.
type input struct{ packet, metadata []byte }

// all returns the packet with the metadata in front.
func (in input) all() []byte { return slices.Concat(in.metadata, in.packet) }

// compare runs inputs on two instances of a program, alone and carried, and reports
// whether all results are the same.
func compare(t testing.TB, single *ebpf.Program, c *carrier.Carrier, inputs []input) bool {
	t.Helper()
	return compareChunk(t, single, c.Chunk(0), inputs)
}

func compareChunk(t testing.TB, single *ebpf.Program, b *carrier.Chunk, inputs []input) bool {
	t.Helper()
	at, ok := 0, true
	out := make([]byte, 1<<17)
	var results carrier.Results
	flush := func() {
		for results.Len() < b.Len() {
			ran, err := b.Run(call, &results)
			if err != nil {
				t.Fatal(err)
			}
			if ran == 0 {
				in := inputs[at+results.Len()]
				t.Fatalf("packet %d of %d bytes and %d bytes of metadata cannot be carried", at+results.Len(), len(in.packet), len(in.metadata))
			}
		}
		for i := range b.Len() {
			ok = same(t, single, inputs[at], out, result(&results, i), at) && ok
			at++
		}
		b.Reset()
		results.Reset()
	}
	for _, in := range inputs {
		if !b.Add(in.all(), len(in.metadata)) {
			flush()
			if !b.Add(in.all(), len(in.metadata)) {
				t.Fatalf("no room for a packet of %d bytes", len(in.packet))
			}
		}
	}
	flush()
	return ok
}

func same(t testing.TB, single *ebpf.Program, in input, out []byte, got carrier.Result, n int) bool {
	t.Helper()
	want, err := progrun.XDP{Packet: in.packet, Metadata: in.metadata, Out: out}.Run(single)
	if err != nil {
		t.Fatal(err)
	}
	if uint32(want.Action) != got.Verdict || !bytes.Equal(want.Packet, got.Packet) || !bytes.Equal(want.Metadata, got.Metadata) || want.LinearSize != got.Linear {
		t.Errorf("packet %d, %d bytes and %d of metadata: %v, linear %d\n%x | %x\ncarried %v, linear %d\n%x | %x", n, len(in.packet), len(in.metadata),
			want.Action, want.LinearSize, want.Metadata, want.Packet,
			progrun.XDPAction(got.Verdict), got.Linear, got.Metadata, got.Packet)
		return false
	}
	return true
}

// program loads a new instance of a program of testdata.
func program(t testing.TB, file, name string) *ebpf.Collection {
	t.Helper()
	spec := spec(t, file)
	for n := range spec.Programs {
		if n != name {
			delete(spec.Programs, n)
		}
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func spec(t testing.TB, file string) *ebpf.CollectionSpec {
	t.Helper()
	order := "el"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = "eb"
	}
	spec, err := ebpf.LoadCollectionSpec("../../testdata/" + file + "_bpf" + order + ".o")
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestPrograms carries packets of all sizes, with and without metadata, through every
// XDP program of testdata.
func TestPrograms(t *testing.T) {
	needCarriers(t)
	for _, file := range []string{"xdp", "xdp_frags"} {
		for name := range spec(t, file).Programs {
			t.Run(name, func(t *testing.T) {
				single, target := program(t, file, name), program(t, file, name)
				c := carry(t, target.Programs[name], carrier.Options{Chunks: 3, Packets: 700, Output: true})
				for _, delta := range []int32{-100, -1, 0, 1, 64, 3000} {
					if !set(t, "delta", delta, single, target) && delta != 0 {
						continue
					}
					if !compare(t, single.Programs[name], c, sizes(uint32(delta))) {
						t.Fatalf("delta %d", delta)
					}
				}
				equal(t, single, target)
			})
		}
	}
}

// sizes returns packets of every size, some with metadata.
func sizes(seed uint32) []input {
	var all []input
	for n := 14; n <= 3520; n++ {
		in := input{packet: make([]byte, n)}
		if n%3 == 0 {
			in.metadata = make([]byte, n%9*4)
		}
		for i := range in.metadata {
			in.metadata[i] = byte(i + n)
		}
		copy(in.packet, udp(max(n, 60), []uint16{7, 9, 4789, 443}[n%4]))
		if n%5 == 0 {
			seed = seed*1664525 + 1013904223
			for i := range in.packet {
				in.packet[i] = byte(seed>>8) + byte(i)
			}
		}
		all = append(all, in)
	}
	return all
}

// set sets an entry of a map of each instance, and reports whether there is such a map.
func set[T any](t testing.TB, name string, value T, programs ...*ebpf.Collection) bool {
	t.Helper()
	for _, c := range programs {
		m := c.Maps[name]
		if m == nil {
			return false
		}
		if err := m.Put(uint32(0), value); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// equal checks that two instances left the same contents in their maps.
func equal(t *testing.T, a, b *ebpf.Collection) {
	t.Helper()
	for name, m := range a.Maps {
		if strings.HasPrefix(name, ".") || m.Type() != ebpf.Array && m.Type() != ebpf.PerCPUArray || name == "burst" {
			continue
		}
		for key := range m.MaxEntries() {
			if got, want := total(t, b.Maps[name], key), total(t, m, key); got != want {
				t.Errorf("map %s, entry %d: %d, want %d", name, key, got, want)
			}
		}
	}
}

// total returns the sum of an entry over all CPUs.
func total(t *testing.T, m *ebpf.Map, key uint32) (sum uint64) {
	t.Helper()
	var values [][]byte
	var err error
	if m.Type() == ebpf.PerCPUArray {
		err = m.Lookup(key, &values)
	} else {
		values = [][]byte{nil}
		err = m.Lookup(key, &values[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		sum += binary.NativeEndian.Uint64(append(v, make([]byte, 8)...))
	}
	return sum
}

// result returns one of the results.
func result(all *carrier.Results, i int) (r carrier.Result) {
	all.Read(i, &r)
	return r
}
