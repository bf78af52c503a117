package progruntest

import (
	"reflect"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// Benchmark reports how long one run of prog takes for req, by the kernel's
// clock: ns/op is without the system call. It is the whole of a benchmark, and
// makes b.N runs in all:
//
//	func BenchmarkFilter(b *testing.B) {
//		progruntest.Benchmark(b, prog, progrun.XDP{Packet: packet})
//	}
//
// A program that edits its packet or context would be timed on others from the
// second run on. Benchmark then makes each run on a fresh packet, in a call of
// its own, and says so in the benchmark's log; the time includes reading the
// clock twice, some tens of nanoseconds.
//
// Some thousand runs come before those, to find out. Repeat, Out and NoOutput
// of req are not used. An XDP program is held meanwhile; see [progrun.NewHold].
// Errors go to [Need].
func Benchmark[Q progrun.PacketRequest[Q, R], R any](b *testing.B, prog *ebpf.Program, req Q) {
	b.Helper()
	checkNetNS(b)
	const call = time.Millisecond // short enough for b.Loop to see how long runs take
	if prog.Type() == ebpf.XDP {
		if held, err := progrun.NewHold(prog); err == nil {
			defer held.Close()
		}
	}
	before, err := progrun.Measure(prog, req, call)
	Need(b, err)
	perCall := max(1, int(call/max(before.PerRun, 1)))
	if before.Drifts {
		perCall = 1
		b.Log("the program edits its input, so each run is timed alone, on a fresh one")
	}
	run := repeater(prog, req)
	var total time.Duration
	left := 0
	flush := func() {
		mean, err := run(left)
		Need(b, err)
		total += time.Duration(left) * mean
		left = 0
	}
	for b.Loop() {
		if left++; left == perCall {
			flush()
		}
	}
	if left > 0 {
		flush()
	}
	b.ReportMetric(float64(total)/float64(b.N), "ns/op")
}

// repeater returns a function that runs req n times in one call, and returns
// the mean time of a run. All requests that Measure takes have these fields.
func repeater[Q progrun.PacketRequest[Q, R], R any](prog *ebpf.Program, req Q) func(n int) (time.Duration, error) {
	var res R
	of, in := reflect.ValueOf(&req).Elem(), reflect.ValueOf(&res).Elem()
	repeat := of.FieldByName("Repeat").Addr().Interface().(*int)
	perRun := in.FieldByName("PerRun").Addr().Interface().(*time.Duration)
	if noOutput := of.FieldByName("NoOutput"); noOutput.IsValid() {
		noOutput.SetBool(true)
		of.FieldByName("Out").SetZero()
	}
	return func(n int) (_ time.Duration, err error) {
		*repeat = n
		res, err = req.Run(prog)
		return *perRun, err
	}
}
