package progrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun/internal/carrier"
)

// withPause makes a pause in which the carrier of a batch is surely made.
func withPause[T any](workers int, items iter.Seq[T]) iter.Seq[T] {
	pause := 500 * time.Millisecond
	if emulated {
		pause *= 6
	}
	return func(yield func(T) bool) {
		n := 0
		for item := range items {
			if n++; n == carryFrom(workers)+groupSize*20 {
				time.Sleep(pause)
			}
			if !yield(item) {
				return
			}
		}
	}
}

func isCarrier(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && strings.HasPrefix(info.Name, "progrun_carrier")
}

// mixed returns requests most of which can be carried.
func mixed(t *testing.T, n int) []XDP {
	packets := traffic(t)
	requests := make([]XDP, n)
	for i := range requests {
		r := XDP{Packet: packets[i%len(packets)]}
		switch {
		case i%97 == 1:
			r.Packet = bytes.Repeat([]byte{byte(i)}, 5000)
		case i%89 == 1:
			r.Packet = r.Packet[:13]
		case i%83 == 1:
			r.Metadata = []byte{1, 2, 3, 4, byte(i), 6, 7, 8}
		case i%79 == 1:
			r.Out = make([]byte, 5)
		case i%73 == 1:
			r.NoOutput = true
		case i%71 == 1:
			r.Repeat = 1
		case i%67 == 1:
			r.Metadata = []byte{1, 2, 3}
		case i%61 == 1:
			r.IngressIfindex = 1
		case i%59 == 1:
			r.Packet = bytes.Repeat([]byte{byte(i), 8}, (i%3508+13)/2+1)
		case i%53 == 1:
			r.Packet = make([]byte, xdpLinear+1)
		}
		requests[i] = r
	}
	return requests
}

// needCarrier skips a test if nothing is carried.
func needCarrier(t *testing.T, stats BatchStats) {
	t.Helper()
	if stats.Carried == 0 && stats.CarryErr != nil && (errors.Is(stats.CarryErr, ebpf.ErrNotSupported) || errors.Is(stats.CarryErr, os.ErrPermission)) {
		t.Skip(stats.CarryErr)
	}
}

// TestBatchCarried checks that a batch that carries yields the same as single runs.
func TestBatchCarried(t *testing.T) {
	requests := mixed(t, carryFrom(3)+8000)
	for _, program := range []string{"xdp_filter", "xdp_meta", "xdp_grow_head"} {
		for n, workers := range []int{1, 3, 1, 3} {
			o := load(t, "xdp", program)
			var stats BatchStats
			opts := &BatchOptions{KeepGoing: true, Workers: workers, Ahead: 600, NoCopy: n > 1, Stats: &stats}
			i := 0
			for res, err := range Batch(o.Program, withPause(workers, slices.Values(requests)), opts) {
				r := requests[i]
				own := bytes.Clone(r.Out)
				if r.Out != nil {
					r.Out = own
				}
				alone, aloneErr := r.Run(o.Program)
				if !sameError(err, aloneErr) || err != nil && err.(*Error).Input != i+1 {
					t.Fatalf("%s, input %d: %v, alone %v", program, i, err, aloneErr)
				}
				got := res.Result
				if res.Input != i+1 || !bytes.Equal(res.Request.Packet, r.Packet) || !bytes.Equal(res.Request.Metadata, r.Metadata) {
					t.Fatalf("%s, input %d: number %d, request %x", program, i, res.Input, res.Request.Packet)
				}
				if got.Action != alone.Action || !bytes.Equal(got.Packet, alone.Packet) || !bytes.Equal(got.Metadata, alone.Metadata) ||
					got.LinearSize != alone.LinearSize || got.Sight != alone.Sight || (got.Packet == nil) != (alone.Packet == nil) {
					t.Fatalf("%s, input %d: %+v, alone %+v", program, i, got, alone)
				}
				i++
			}
			if i != len(requests) || stats.Inputs != int64(i) {
				t.Errorf("%s: %d results of %d, stats %+v", program, i, len(requests), stats)
			}
			needCarrier(t, stats)
			if stats.Carried > 0 && errors.Is(stats.CarryErr, syscall.EBUSY) {
				t.Logf("%s, %d workers: %+v", program, workers, stats) // others are in the dispatcher
				continue
			}
			if stats.Carried < 4560 || stats.CarryErr != nil {
				t.Errorf("%s, %d workers: %+v", program, workers, stats)
			}
		}
	}
}

// TestBatchCopies checks that inputs may lie in memory that the next one overwrites, and
// that they stay where they are if the caller asks for that.
func TestBatchCopies(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	for _, c := range []struct {
		workers int
		noCopy  bool
	}{{1, false}, {3, false}, {100, false}, {1, true}, {3, true}} {
		inputs := carryFrom(c.workers) + 8000
		packets := make([][]byte, inputs)
		source := func(yield func([]byte) bool) {
			all := udp4(somewhere, 7, make([]byte, 100)...)
			for i := range packets {
				if c.noCopy {
					all = bytes.Clone(all)
				}
				binary.NativeEndian.PutUint32(all[42:], uint32(i))
				packets[i] = all[:64+i%50]
				if !yield(packets[i]) {
					return
				}
			}
		}
		var stats BatchStats
		opts := &BatchOptions{Workers: c.workers, Ahead: 600, NoCopy: c.noCopy, Stats: &stats}
		for res, err := range Batch(o.Program, Packets(XDP{}, withPause(c.workers, source)), opts) {
			if err != nil {
				t.Fatal(err)
			}
			i := res.Input - 1
			for what, p := range map[string][]byte{"request": res.Request.Packet, "result": res.Result.Packet} {
				if len(p) != 64+i%50 || binary.NativeEndian.Uint32(p[42:]) != uint32(i) {
					t.Fatalf("%+v, %s %d: %x", c, what, i, p)
				}
			}
			if c.noCopy && &res.Request.Packet[0] != &packets[i][0] {
				t.Fatalf("%+v: packet %d was copied", c, i)
			}
		}
		needCarrier(t, stats)
		if stats.Carried == 0 {
			t.Errorf("%+v: %+v", c, stats)
		}
	}
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	_, text, _ := strings.Cut(a.Error(), "input ")
	_, text, _ = strings.Cut(text, ": ")
	return "progrun: "+text == b.Error()
}

// TestBatchAhead checks that a batch never pulls more inputs than it may.
func TestBatchAhead(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	for _, workers := range []int{1, 2} {
		inputs := carryFrom(workers) + 8000
		for _, ahead := range []int{1, 20, 100, 1000} {
			pulled, yielded, most := 0, 0, 0
			source := func(yield func([]byte) bool) {
				for range inputs {
					pulled++
					most = max(most, pulled-yielded)
					if !yield(frame(64 + pulled%100)) {
						return
					}
				}
			}
			var stats BatchStats
			for res, err := range Batch(o.Program, Packets(XDP{}, withPause(workers, source)), &BatchOptions{Ahead: ahead, Workers: workers, Stats: &stats}) {
				if yielded++; err != nil || res.Input != yielded || len(res.Result.Packet) != 64+yielded%100 {
					t.Fatalf("result %d: %+v, %v", yielded, res, err)
				}
			}
			if yielded != inputs || most > ahead {
				t.Errorf("%d workers, ahead %d: %d results, up to %d ahead", workers, ahead, yielded, most)
			}
			if wanted := ahead >= leastCarried; wanted != (stats.Carried > 0) {
				needCarrier(t, stats)
				t.Errorf("%d workers, ahead %d: %+v", workers, ahead, stats)
			}
		}
	}
}

// TestCarryFrom checks that a carrier is made later if that takes a processor from the
// workers.
func TestCarryFrom(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []struct{ procs, workers, want int }{
		{1, 0, 4 * carryAfter}, {1, 2, 4 * carryAfter}, {2, 0, carryAfter}, {2, 1, carryAfter},
		{2, 2, 2 * carryAfter}, {4, 3, carryAfter}, {4, 8, 2 * carryAfter},
	} {
		runtime.GOMAXPROCS(c.procs)
		if got := carryFrom(c.workers); got != c.want {
			t.Errorf("%d workers on %d processors: %d inputs, want %d", c.workers, c.procs, got, c.want)
		}
	}
}

// TestCarrierSize checks that a carrier's memory is bounded however many workers there
// are.
func TestCarrierSize(t *testing.T) {
	prog := load(t, "xdp", "xdp_pass").Program
	for _, c := range []struct {
		opts BatchOptions
		want carrier.Options
	}{
		{BatchOptions{Ahead: 16}, carrier.Options{Chunks: 1, Packets: 16, Slabs: 1}},
		{BatchOptions{Ahead: 1 << 20}, carrier.Options{Chunks: 1, Packets: 1024, Slabs: 1}},
		{BatchOptions{Ahead: 1 << 20, NoCopy: true}, carrier.Options{Chunks: 1, Packets: 1024}},
		{BatchOptions{Ahead: 64, Workers: 2}, carrier.Options{Chunks: 2, Packets: 16, Slabs: 4}},
		{BatchOptions{Ahead: 16384, Workers: 2}, carrier.Options{Chunks: 2, Packets: 1024, Slabs: 8}},
		{BatchOptions{Ahead: 1 << 20, Workers: 1024}, carrier.Options{Chunks: 64, Packets: 1024, Slabs: 70}},
	} {
		if got := newCarriage[XDP, XDPResult](prog, c.opts); got.options != c.want || got.err != nil {
			t.Errorf("%+v: %+v, %v, want %+v", c.opts, got.options, got.err, c.want)
		}
	}
}

// TestBatchAheadAlone checks that inputs that cannot be carried, and may be large, are
// pulled in small groups also once a batch carries.
func TestBatchAheadAlone(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	needCarrierOf(t, o)
	small := carryFrom(1) + 2000
	pulled, yielded, most := 0, 0, 0
	source := func(yield func([]byte) bool) {
		for range small + 2000 {
			pulled++
			size := 64
			if pulled > small+1024 {
				most = max(most, pulled-yielded)
			}
			if pulled > small {
				size = xdpLinear + 1
			}
			if !yield(frame(size)) {
				return
			}
		}
	}
	var stats BatchStats
	for _, err := range Batch(o.Program, Packets(XDP{NoOutput: true}, withPause(1, source)), &BatchOptions{Ahead: 1024, Stats: &stats}) {
		if yielded++; err != nil {
			t.Fatal(err)
		}
	}
	needCarrier(t, stats)
	if stats.Carried == 0 || most > groupSize {
		t.Errorf("up to %d ahead, want at most %d; %+v", most, groupSize, stats)
	}
}

// TestBatchCarriedSpeed compares a batch that may run ahead with one that may not, and
// two workers with one.
func TestBatchCarriedSpeed(t *testing.T) {
	if emulated || raceEnabled {
		t.Skip("speed is asserted on the machine itself, without the race detector")
	}
	o := load(t, "xdp", "xdp_filter")
	batch := func(inputs, workers, ahead int) time.Duration {
		var stats BatchStats
		begin := time.Now()
		packets := Packets(XDP{NoOutput: true}, again(udp4(somewhere, 7, 1, 2, 3), inputs))
		for _, err := range Batch(o.Program, packets, &BatchOptions{Workers: workers, Ahead: ahead, NoCopy: true, Stats: &stats}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		took := time.Since(begin)
		if ahead > 0 {
			needCarrier(t, stats)
		}
		return took
	}
	atBest(t, "packets run ahead in a seventh of the time", func() bool {
		return 7*batch(1_000_000, 1, 1024) < batch(1_000_000, 1, 0)
	})
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("two workers need two processors")
	}
	atBest(t, "two workers carry 1.5 times as fast as one", func() bool {
		return 15*batch(4_000_000, 2, 16384) < 10*batch(4_000_000, 1, 1024)
	})
}

// TestBatchCarrierEnds leaves loops early. Their results stay valid, and nothing of the
// carrier is left.
func TestBatchCarrierEnds(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	var stats BatchStats
	loop := func(last int, leave func()) (found BatchResult[XDP, XDPResult]) {
		for res, err := range Batch(o.Program, Packets(XDP{}, withPause(1, again(udp4(somewhere, 7, 1, 2, 3), 1<<20))), &BatchOptions{Ahead: 100, Stats: &stats}) {
			if found = res; err != nil {
				t.Fatal(err)
			}
			if res.Input >= last {
				leave()
				break
			}
		}
		return found
	}
	after := carryFrom(1)
	for _, last := range []int{1, after, after + 1, after + 100, after + 2000} {
		found := loop(last, func() {})
		want := bytes.Clone(found.Result.Packet)
		request := bytes.Clone(found.Request.Packet)
		loop(10, func() {})
		if !bytes.Equal(found.Result.Packet, want) || !bytes.Equal(found.Request.Packet, request) {
			t.Errorf("what was found after %d changed", last)
		}
	}
	func() {
		defer func() { _ = recover() }()
		loop(after+2000, func() { panic("left") })
	}()
	waitForCarriers(t)
}

// carriers is how many carriers this process has.
func carriers(t *testing.T) (n int) {
	t.Helper()
	for o := range objectsOf(t, "self", nil) {
		if o.kind == "prog" && isCarrier(ebpf.ProgramID(o.id)) {
			n++
		}
	}
	return n
}

// TestBatchCannotCarry checks the reasons why a batch does not carry.
func TestBatchCannotCarry(t *testing.T) {
	var stats BatchStats
	for range Batch(load(t, "tc", "tc_mark").Program, Packets(TC{}, again(frame(64), 10)), &BatchOptions{Ahead: 100, Stats: &stats}) {
	}
	const text = "progrun: Batch: only packets of XDP programs are carried: not supported"
	if stats.Inputs != 10 || stats.CarryErr == nil || stats.CarryErr.Error() != text {
		t.Errorf("got %+v, want %s", stats, text)
	}
	for range Batch(load(t, "xdp", "xdp_pass").Program, Packets(XDP{}, again(frame(64), 10)), &BatchOptions{Ahead: 3, Stats: &stats}) {
	}
	if stats.Inputs != 10 || stats.CarryErr == nil || !strings.Contains(stats.CarryErr.Error(), "Batch.Ahead: 3: less than the 16") {
		t.Errorf("got %+v", stats)
	}
}

// again returns an iterator over one packet, n times.
func again(packet []byte, n int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for range n {
			if !yield(packet) {
				return
			}
		}
	}
}
