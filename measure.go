package progrun

import (
	"math"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// Timing is how long one run of a program takes, measured by the kernel in two
// ways. See [Measure].
type Timing struct {
	// PerRun is the mean over runs on one packet again and again, as by
	// Repeat: without what it costs to begin, but on a packet that the
	// program may have edited before.
	PerRun time.Duration
	// PerFreshRun is the mean over single runs, each on the packet of the
	// request. It includes reading the clock twice, some tens of nanoseconds.
	PerFreshRun time.Duration
	// Drifts is whether one run changed the packet or the context. Then the
	// two means are of different things, and PerFreshRun is the one that
	// tells how long the program takes for this packet. Else PerRun is the
	// more precise one.
	Drifts bool
	// Runs and FreshRuns are how often the program ran for the two means.
	Runs, FreshRuns int
	// Held is whether an XDP program was held meanwhile; see [Hold].
	Held bool
}

// Measured is what [Measure] measures: [XDP], [TC], [SocketFilter],
// [CGroupSKB], [LWT], [FlowDissector] and [Netfilter].
type Measured[Q, R any] interface {
	PacketRequest[Q, R]
	// repeated is the request with another Repeat, and with or without output.
	repeated(n int, noOutput bool) Q
	// timing is what a result says of its run: the mean time, and whether the
	// program changed its input.
	timing(R) (perRun time.Duration, changed bool)
}

// Measure finds out how long a program takes for req, in about twice the time
// d. It runs the program again and again in growing steps, around which an XDP
// program is held so that no step pays for the XDP dispatcher, and then as long
// on fresh copies of the packet. The Repeat, Out and NoOutput of req are not
// used. Contexts are fresh for every step.
func Measure[Q Measured[Q, R], R any](prog *ebpf.Program, req Q, d time.Duration) (Timing, error) {
	var t Timing
	first, err := req.repeated(1, false).Run(prog)
	if err != nil {
		return t, err
	}
	_, t.Drifts = req.timing(first)
	if prog.Type() == ebpf.XDP {
		if held, err := Hold(prog); err == nil {
			defer held.Close()
			t.Held = true
		}
	}
	if err := t.repeat(d, func(n int) (time.Duration, error) {
		res, err := req.repeated(n, true).Run(prog)
		mean, _ := req.timing(res)
		return mean, err
	}); err != nil {
		return t, err
	}
	fresh := req.repeated(1, true)
	var total time.Duration
	for begin := time.Now(); t.FreshRuns == 0 || time.Since(begin) < d; t.FreshRuns++ {
		res, err := fresh.Run(prog)
		if err != nil {
			return t, err
		}
		mean, _ := req.timing(res)
		total += mean
	}
	t.PerFreshRun = total / time.Duration(t.FreshRuns)
	return t, nil
}

// repeat grows the number of runs until they take d, and keeps the last mean.
func (t *Timing) repeat(d time.Duration, run func(n int) (time.Duration, error)) error {
	for n := 100; ; {
		mean, err := run(n)
		if err != nil {
			return err
		}
		t.Runs, t.PerRun = n, mean
		took := time.Duration(n) * mean
		if took >= d*9/10 || n == math.MaxInt32 {
			return nil
		}
		n = int(min(float64(d)/float64(max(mean, 1)), 100*float64(n), math.MaxInt32))
	}
}

func (r XDP) repeated(n int, noOutput bool) XDP {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r XDP) timing(res XDPResult) (time.Duration, bool) {
	return res.PerRun, !slices.Equal(r.Packet, res.Packet) || !slices.Equal(r.Metadata, res.Metadata)
}

func (r TC) repeated(n int, noOutput bool) TC {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r TC) timing(res TCResult) (time.Duration, bool) {
	return res.PerRun, !slices.Equal(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

func (r SocketFilter) repeated(n int, noOutput bool) SocketFilter {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r SocketFilter) timing(res SocketFilterResult) (time.Duration, bool) {
	return res.PerRun, l3Changed(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

func (r CGroupSKB) repeated(n int, noOutput bool) CGroupSKB {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r CGroupSKB) timing(res CGroupSKBResult) (time.Duration, bool) {
	return res.PerRun, l3Changed(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

func (r LWT) repeated(n int, noOutput bool) LWT {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

func (r LWT) timing(res LWTResult) (time.Duration, bool) {
	return res.PerRun, l3Changed(r.Packet, res.Packet) || r.Context.changed(&res.Context)
}

func (r FlowDissector) repeated(n int, _ bool) FlowDissector {
	r.Repeat = n
	return r
}

// timing of a flow dissector: it cannot edit the packet, and its keys are made
// anew for every run.
func (r FlowDissector) timing(res FlowDissectorResult) (time.Duration, bool) {
	return res.PerRun, false
}

func (r Netfilter) repeated(n int, _ bool) Netfilter {
	r.Repeat = n
	return r
}

// timing of a netfilter program: whether it edited the packet the kernel does
// not say.
func (r Netfilter) timing(res NetfilterResult) (time.Duration, bool) { return res.PerRun, false }

// l3Changed compares packets whose Ethernet header does not come back.
func l3Changed(in, out []byte) bool {
	return len(in) != len(out) || !slices.Equal(in[ethHLen:], out[ethHLen:])
}

// changed is whether a context came back as other than it went in, but for
// what the kernel fills in.
func (s SKB) changed(out *SKB) bool {
	if s.Ifindex == 0 {
		s.Ifindex = out.Ifindex
	}
	if s.WireLen == 0 {
		s.WireLen = out.WireLen
	}
	return s != *out
}
