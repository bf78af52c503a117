package progrun

import (
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/cilium/ebpf"
)

// Timing says how long one run of a program takes, by the kernel's clock. It is
// measured in two ways: by repeated runs on one packet, and by single runs on fresh
// packets. See [Measure]. In JSON, times are integers of nanoseconds.
type Timing struct {
	// PerRun is the mean time of repeated runs on one packet, as by Repeat. It
	// leaves out the cost of starting a call. An earlier run may have edited the
	// packet.
	PerRun time.Duration `json:"per_run_ns"`
	// PerFreshRun is the mean time of single runs, each on the request's packet. It
	// includes reading the clock twice, some tens of nanoseconds.
	PerFreshRun time.Duration `json:"per_fresh_run_ns"`
	// Median is the time that half of the single runs did not exceed, to within
	// 3 %.
	Median time.Duration `json:"median_ns"`
	// P90 is the time that 90 % of the single runs did not exceed, to within 3 %.
	P90 time.Duration `json:"p90_ns"`
	// P99 is the time that 99 % of the single runs did not exceed, to within 3 %.
	P99 time.Duration `json:"p99_ns"`
	// Drifts reports whether repeated runs differ from single ones. It is set if
	// the packet or the context came out changed after one run or after two. It is
	// also set if PerRun is more than twice PerFreshRun, which happens when a
	// program finds what it left in a part of the context that the kernel does not
	// return. If Drifts is set, PerFreshRun is the time that the program takes for
	// this packet. Otherwise PerRun is more precise.
	Drifts bool `json:"drifts"`
	// Runs is how often the program ran for PerRun.
	Runs int `json:"runs"`
	// FreshRuns is how often the program ran for PerFreshRun and the percentiles.
	FreshRuns int `json:"fresh_runs"`
	// Held reports whether an XDP program was held during the measurement; see
	// [Hold].
	Held bool `json:"held"`
	// HoldErr says why an XDP program could not be held. If it is set, each call
	// that repeated the program took tens of milliseconds more. The times here do
	// not include these.
	HoldErr error `json:"hold_err,omitempty"`

	fresh time.Duration // the sum of all single runs
	hist  histogram     // of single runs
}

// String returns the timing in words, such as "12ns a run; 58ns fresh, 90% within
// 63ns, 99% within 80ns".
func (t Timing) String() string {
	return fmt.Sprintf("%s a run; %s fresh, 90%% within %s, 99%% within %s", t.PerRun, t.Median, t.P90, t.P99)
}

// Buckets returns an iterator over a histogram of the single runs, shortest first.
// It leaves out empty buckets.
func (t *Timing) Buckets() iter.Seq[TimingBucket] { return t.hist.buckets() }

// Add merges another timing into t. Means and percentiles are then those of the
// runs of both. Drifts is set if it was set in either, Held if it was set in both.
// Adding to the zero Timing copies o.
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

// Measure measures how long a program takes for req. It takes about twice d, and at
// most 2.5 times d plus the time of one run.
//
// Measure repeats the program on one packet in growing steps, which together take
// about d. Then it runs the program on fresh copies of the packet for d. Each step
// has a fresh context. An XDP program is held, so that no step pays for the XDP
// dispatcher: see [Hold]. A program that takes half of d or more runs only once.
//
// Measure ignores the Repeat, Out and NoOutput of req.
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

// measure makes the runs after the first one.
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
// and keeps the last mean. The first call, of two runs, also finds out whether they
// drift. A step takes at most d even if the mean grows with the number of runs, as
// it does if each run makes the packet longer.
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

// summarize sets the fields that derive from the single runs.
func (t *Timing) summarize() {
	t.PerFreshRun = t.fresh / time.Duration(t.FreshRuns)
	t.Median, t.P90, t.P99 = t.hist.percentile(50), t.hist.percentile(90), t.hist.percentile(99)
	t.Drifts = t.Drifts || t.PerRun > 2*t.PerFreshRun
}
