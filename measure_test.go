package progrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"golang.org/x/sys/unix"
)

func TestMeasure(t *testing.T) {
	for _, c := range []struct {
		name, program string
		drifts        bool
	}{
		{"passes", "xdp_pass", false},
		{"cuts the head off", "xdp_shrink_head", true},
		{"edits a byte", "xdp_increment", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, "xdp", c.program)
			eventually(t, "tells whether runs drift", func() bool {
				got, err := Measure(o.Program, XDP{Packet: frame(1000)}, 20*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				if got.PerRun <= 0 || got.PerFreshRun <= 0 || got.FreshRuns < 1 || !got.Held {
					t.Errorf("got %+v", got)
				}
				wantNothingHeld(t, o)
				return got.Drifts == c.drifts && got.Runs >= 100
			})
		})
	}
}

// TestMeasureGrowsCheaply measures an XDP program in many steps, none of which pays for
// the XDP dispatcher.
func TestMeasureGrowsCheaply(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	atBest(t, "2 ms of measuring take at most 200 ms", func() bool {
		begin := time.Now()
		got, err := Measure(o.Program, XDP{Packet: frame(64)}, time.Millisecond)
		need(t, err)
		// A first run that takes longer than a millisecond is the only one.
		return got.Held && time.Since(begin) < 200*time.Millisecond
	})
}

func TestMeasureContext(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	for _, c := range []struct {
		mark   uint32
		drifts bool
	}{{7, true}, {9, false}} {
		eventually(t, fmt.Sprintf("mark %d: drifts %v", c.mark, c.drifts), func() bool {
			got, err := Measure(o.Program, TC{Packet: frame(64), Context: SKB{Mark: c.mark}}, time.Millisecond)
			if err != nil || got.Held {
				t.Errorf("mark %d: got %+v, %v", c.mark, got, err)
			}
			return got.Drifts == c.drifts
		})
	}
	flow := load(t, "flow_dissector", "flow_dissect")
	eventually(t, "a flow dissector does not drift", func() bool {
		got, err := Measure(flow.Program, FlowDissector{Packet: udp4(somewhere, 53)}, time.Millisecond)
		if err != nil {
			t.Error(err)
		}
		return !got.Drifts
	})
}

func TestMeasureFails(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	_, err := Measure(o.Program, XDP{Packet: frame(13)}, time.Second)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.EINVAL) || e.Field != "Packet" {
		t.Errorf("got %v", err)
	}
}

// slowOnceMarked returns a TC program that writes a field of its context that the
// kernel does not return. The program takes long if it finds the field written.
func slowOnceMarked(t *testing.T) *ebpf.Program {
	t.Helper()
	needPrivilege(t)
	const queueMapping = 12
	insns := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, queueMapping, asm.Word),
		asm.Mov.Imm(asm.R3, 5),
		asm.StoreMem(asm.R1, queueMapping, asm.R3, asm.Word), // old kernels store only registers here
		asm.Mov.Imm(asm.R0, 0),
		asm.JEq.Imm(asm.R2, 0, "end"),
	}
	for range 3000 {
		insns = append(insns, asm.Mul.Imm(asm.R2, 3))
	}
	insns = append(insns, asm.Return().WithSymbol("end"))
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: insns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

// TestMeasureHiddenDrift measures programs whose second run differs, although the first
// run returns its input unchanged.
func TestMeasureHiddenDrift(t *testing.T) {
	tag := load(t, "tc", "tc_vlan")
	programs := map[string]*ebpf.Program{"a VLAN tag beside the packet": tag.Program}
	if !emulated { // in emulation a few instructions take as long as many
		programs["queue_mapping"] = slowOnceMarked(t)
	}
	for name, prog := range programs {
		req := TC{Packet: udp4(somewhere, 53)}
		res, err := req.Run(prog)
		if _, changed := req.timing(res); err != nil || changed {
			t.Fatalf("%s: shows in the first run, %v", name, err)
		}
		got, err := Measure(prog, req, 20*time.Millisecond)
		if err != nil || !got.Drifts {
			t.Errorf("%s: no drift: %v, %+v, %v", name, got.Drifts, got, err)
		}
	}
}

// TestMeasureSlowProgram measures a program of which one run takes longer than the
// given time. It runs once.
func TestMeasureSlowProgram(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	got, err := Measure(o.Program, TC{Packet: frame(64)}, 1)
	if err != nil || got.Runs != 1 || got.FreshRuns != 1 || runs(t, o) != 1 {
		t.Errorf("%+v, %v; ran %d times", got, err, runs(t, o))
	}
}

// TestMeasureInTime checks that the steps stay within the given time, even if every run
// takes a microsecond longer than the one before.
func TestMeasureInTime(t *testing.T) {
	for name, perRun := range map[string]func(i int) time.Duration{
		"constant": func(int) time.Duration { return 20 },
		"long":     func(int) time.Duration { return 4 * time.Millisecond },
		"growing":  func(i int) time.Duration { return time.Duration(i+1) * time.Microsecond },
	} {
		var timing Timing
		var total time.Duration
		const d = 10 * time.Millisecond
		err := timing.repeat(d, func(n int, _ bool) (time.Duration, error) {
			var took time.Duration
			for i := range n {
				took += perRun(i)
			}
			total += took
			return took / time.Duration(n), nil
		})
		if took := time.Duration(timing.Runs) * timing.PerRun; err != nil || total > 3*d/2 || took < d/2-time.Microsecond {
			t.Errorf("%s: %d runs take %v of %v in all, %v", name, timing.Runs, took, total, err)
		}
	}
}

// TestMeasurePercentiles checks that percentiles lie between the fastest and the
// slowest run.
func TestMeasurePercentiles(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	got, err := Measure(o.Program, TC{Packet: frame(64)}, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	buckets := slices.Collect(got.Buckets())
	n := 0
	for i, b := range buckets {
		n += b.Runs
		if b.Runs < 1 || b.From >= b.To || i > 0 && b.From < buckets[i-1].To {
			t.Errorf("bucket %s behind %s", b, buckets[max(0, i-1)])
		}
	}
	if n != got.FreshRuns {
		t.Errorf("%d runs in the buckets, %d in all", n, got.FreshRuns)
	}
	if got.Median < buckets[0].From || got.Median > got.P90 || got.P90 > got.P99 || got.P99 >= buckets[len(buckets)-1].To || got.Median == 0 {
		t.Errorf("got %s of %v", got, buckets)
	}
	if !raceEnabled {
		if n := mallocs(func() { _, err = Measure(o.Program, TC{Packet: frame(64)}, 20*time.Millisecond) }); n > 20 || err != nil {
			t.Errorf("%d allocations, %v", n, err)
		}
	}
}

// TestHistogram compares percentiles with exact ones.
func TestHistogram(t *testing.T) {
	for i := range len(histogram{}) {
		from, to := bucketFrom(i), bucketFrom(i+1)
		if bucketOf(from) != i || bucketOf(to-1) != i || to-from > max(1, from/16) {
			t.Fatalf("bucket %d is from %d to %d", i, from, to)
		}
	}
	if last := len(histogram{}) - 1; bucketOf(1<<32-1) != last || bucketOf(1<<40) != last || bucketOf(-1) != 0 {
		t.Error("times out of range are not in the outermost buckets")
	}
	var h histogram
	var all []time.Duration
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		d := time.Duration(random.ExpFloat64() * 1000)
		all = append(all, d)
		h.count(d)
	}
	slices.Sort(all)
	for _, p := range []int{1, 50, 90, 99, 100} {
		want := all[len(all)*p/100-1]
		if got := h.percentile(float64(p)); float64(max(got-want, want-got)) > 0.032*float64(want)+0.5 {
			t.Errorf("percentile %d is %d, want %d", p, got, want)
		}
	}
}

// TestTimingAdd merges timings, from the zero one on.
func TestTimingAdd(t *testing.T) {
	timing := func(perRun time.Duration, runs int, fresh ...time.Duration) Timing {
		made := Timing{PerRun: perRun, Runs: runs, Held: true}
		for _, d := range fresh {
			made.addFresh(d)
		}
		made.summarize()
		return made
	}
	var sum Timing
	for _, each := range []Timing{timing(10, 100, 20, 20, 20), {}, timing(20, 300, 30)} {
		sum.Add(each)
	}
	if sum.PerRun != 17 || sum.Runs != 400 || sum.FreshRuns != 4 || sum.PerFreshRun != 22 || sum.Median != 20 || sum.P99 != 30 || sum.Drifts || !sum.Held {
		t.Errorf("got %+v, %d runs", sum, sum.Runs)
	}
	unheld := timing(1, 1, 1)
	unheld.Held, unheld.HoldErr, unheld.Drifts = false, errors.New("no room"), true
	if sum.Add(unheld); sum.Held || sum.HoldErr == nil || !sum.Drifts {
		t.Errorf("held %v, %v, drifts %v", sum.Held, sum.HoldErr, sum.Drifts)
	}
}

// TestTimingInWords checks how a timing prints and marshals.
func TestTimingInWords(t *testing.T) {
	got := Timing{PerRun: 12, Runs: 3}
	got.addFresh(40)
	got.addFresh(60)
	got.summarize()
	if s, want := got.String(), "12ns a run; 40ns fresh, 90% within 60ns, 99% within 60ns"; s != want {
		t.Errorf("got %q, want %q", s, want)
	}
	b, err := json.Marshal(got)
	want := `{"per_run_ns":12,"per_fresh_run_ns":50,"median_ns":40,"p90_ns":60,"p99_ns":60,"drifts":false,"runs":3,"fresh_runs":2,"held":false}`
	if err != nil || string(b) != want {
		t.Errorf("got %s, %v", b, err)
	}
	got.HoldErr = holdError("attach the program", unix.EPERM)
	if b, err := json.Marshal(got); err != nil || !strings.Contains(string(b), `"hold_err":"progrun: `) {
		t.Errorf("got %s, %v", b, err)
	}
}

// TestMeasureSaysWhyNotHeld measures a program that no interface accepts.
func TestMeasureSaysWhyNotHeld(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	held, err := Measure(o.Program, XDP{Packet: frame(64)}, time.Millisecond)
	if err != nil || !held.Held || held.HoldErr != nil {
		t.Errorf("held %v, %v, %v", held.Held, held.HoldErr, err)
	}
	devmap, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDPDevMap, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		skipOnThisKernel(t, "programs of devmaps", err)
	}
	defer devmap.Close()
	if got, err := Measure(devmap, XDP{Packet: frame(64)}, time.Millisecond); err == nil && (got.Held || got.HoldErr == nil) {
		t.Errorf("held %v, %v", got.Held, got.HoldErr)
	}
}
