package progrun

import (
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/cilium/ebpf"
)

// Timing says how long one run of a program takes, measured by the kernel in two
// ways: over runs on one packet again and again, and over single runs on fresh
// packets. See [Measure]. Times marshal to JSON as integers, in nanoseconds.
type Timing struct {
	// PerRun is the mean over runs on one packet again and again, as by
	// Repeat. It leaves out what it costs to begin a call, but the packet is
	// one that the program may have edited before.
	PerRun time.Duration `json:"per_run_ns"`
	// PerFreshRun is the mean over single runs, each on the packet of the
	// request. It includes reading the clock twice, some tens of nanoseconds.
	PerFreshRun time.Duration `json:"per_fresh_run_ns"`
	// Median is what half of the single runs did not exceed. It is within 3 %
	// of what was measured, as P90 and P99 are.
	Median time.Duration `json:"median_ns"`
	// P90 is what 90 % of the single runs did not exceed.
	P90 time.Duration `json:"p90_ns"`
	// P99 is what 99 % of the single runs did not exceed.
	P99 time.Duration `json:"p99_ns"`
	// Drifts reports whether repeated runs do something else than single ones:
	// because the packet or the context came out changed after one run or
	// after two, or because PerRun is more than twice PerFreshRun, as when a
	// program finds what it left in a part of the context that the kernel does
	// not hand back. Then PerFreshRun tells how long the program takes for this
	// packet. Otherwise PerRun is the more precise one.
	Drifts bool `json:"drifts"`
	// Runs is how often the program ran for PerRun.
	Runs int `json:"runs"`
	// FreshRuns is how often it ran for PerFreshRun and the percentiles.
	FreshRuns int `json:"fresh_runs"`
	// Held reports whether an XDP program was held meanwhile; see [Hold].
	Held bool `json:"held"`
	// HoldErr is why an XDP program could not be held. Then each call that
	// repeated it took tens of milliseconds more, which are in none of the
	// times.
	HoldErr error `json:"hold_err,omitempty"`

	fresh time.Duration // the sum of all single runs
	hist  histogram     // of single runs
}

// String returns the timing in words, such as "12ns a run; 58ns fresh, 90% within
// 63ns, 99% within 80ns".
func (t Timing) String() string {
	return fmt.Sprintf("%s a run; %s fresh, 90%% within %s, 99%% within %s", t.PerRun, t.Median, t.P90, t.P99)
}

// Buckets returns an iterator over how long single runs took, shortest first, for
// those who draw it: how many were at least as long as From and shorter than To.
// Buckets without a run are left out.
func (t *Timing) Buckets() iter.Seq[TimingBucket] { return t.hist.buckets() }

// Add merges another timing into t: means and percentiles are then those over the
// runs of both, Drifts holds if it did for one of them, and Held if it did for
// both. The zero Timing is one to start from.
func (t *Timing) Add(o Timing) {
	if t.FreshRuns == 0 {
		*t = o
		return
	}
	if o.FreshRuns == 0 {
		return
	}
	sum := float64(t.PerRun)*float64(t.Runs) + float64(o.PerRun)*float64(o.Runs)
	t.Runs += o.Runs
	t.PerRun = time.Duration(sum / float64(t.Runs))
	t.FreshRuns += o.FreshRuns
	t.fresh += o.fresh
	t.hist.add(&o.hist)
	t.Drifts = t.Drifts || o.Drifts
	t.Held = t.Held && o.Held
	if t.HoldErr == nil {
		t.HoldErr = o.HoldErr
	}
	t.summarize()
}

// Measure finds out how long a program takes for req, in about twice the time d,
// and at most in 2.5 times d and one run. It runs the program again and again in
// growing steps, around which an XDP program is held so that no step pays for the
// XDP dispatcher, and then as long on fresh copies of the packet. Contexts are
// fresh for every step. The Repeat, Out and NoOutput of req are not used. A
// program that takes more than half of d runs only once.
func Measure[Q PacketRequest[Q, R], R any](prog *ebpf.Program, req Q, d time.Duration) (Timing, error) {
	var t Timing
	run := func(n int, noOutput bool) (time.Duration, error) {
		res, err := req.repeated(n, noOutput).Run(prog)
		if err != nil {
			return 0, err
		}
		perRun, changed := req.timing(res)
		t.Drifts = t.Drifts || changed && !noOutput
		return perRun, nil
	}
	perRun, err := run(1, false)
	if err != nil {
		return t, err
	}
	t.Runs, t.PerRun = 1, perRun
	t.addFresh(perRun)
	if perRun < d/2 {
		err = t.measure(prog, d, run)
	}
	t.summarize()
	return t, err
}

// measure does what is to be done after the first run.
func (t *Timing) measure(prog *ebpf.Program, d time.Duration, run func(n int, noOutput bool) (time.Duration, error)) error {
	if prog.Type() == ebpf.XDP {
		held, err := NewHold(prog)
		if t.HoldErr = err; err == nil {
			defer held.Close()
			t.Held = true
		}
	}
	if err := t.repeat(d, run); err != nil {
		return err
	}
	for begin := time.Now(); time.Since(begin) < d; {
		perRun, err := run(1, true)
		if err != nil {
			return err
		}
		t.addFresh(perRun)
	}
	return nil
}

// repeat grows the number of runs in a call until they take at least half of d,
// and keeps the last mean. The first call, of two runs, also tells whether they
// drift. A step takes no more than d even if the mean grows as the number of runs
// does, as where each run makes the packet longer.
func (t *Timing) repeat(d time.Duration, run func(n int, noOutput bool) (time.Duration, error)) error {
	for n := 2; ; {
		perRun, err := run(n, n > 2)
		if err != nil {
			return err
		}
		t.Runs, t.PerRun = n, perRun
		took := float64(n) * float64(max(perRun, 1))
		if took >= float64(d)/2 || n == math.MaxInt32 {
			return nil
		}
		n = int(min(math.Ceil(float64(n)*math.Sqrt(float64(d)/took)), math.MaxInt32))
	}
}

func (t *Timing) addFresh(perRun time.Duration) {
	t.FreshRuns++
	t.fresh += perRun
	t.hist.count(perRun)
}

// summarize works out what follows from the single runs.
func (t *Timing) summarize() {
	t.PerFreshRun = t.fresh / time.Duration(t.FreshRuns)
	t.Median, t.P90, t.P99 = t.hist.percentile(50), t.hist.percentile(90), t.hist.percentile(99)
	t.Drifts = t.Drifts || t.PerRun > 2*t.PerFreshRun
}
