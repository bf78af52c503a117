package progruntest

import (
	"reflect"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// Benchmark reports how long one run of prog takes for req, by the kernel's clock.
// ns/op does not include the system call. Benchmark makes b.N runs, and is the whole
// body of a benchmark function:
//
//	func BenchmarkFilter(b *testing.B) {
//		progruntest.Benchmark(b, prog, progrun.XDP{Packet: packet})
//	}
//
// If the program edits its packet or context, its second run would be on another
// input. Benchmark then makes each run in a call of its own, on a fresh packet, and
// says so in the benchmark's log. The time then includes reading the clock twice,
// some tens of nanoseconds.
//
// To find out, Benchmark first makes some thousand runs that it does not count. It
// ignores the Repeat, Out and NoOutput of req. It holds an XDP program; see
// [progrun.Hold]. Errors go to [Need].
func Benchmark[Q progrun.PacketRequest[Q, R], R any](b *testing.B, prog *ebpf.Program, req Q) {
	b.Helper()
	checkNetNS(b)
	const call = time.Millisecond // short enough for b.Loop to see how long runs take
	if prog != nil && prog.Type() == ebpf.XDP {
		if held, err := progrun.NewHold(prog); err == nil {
			defer held.Close()
		}
	}
	before, err := progrun.Measure(prog, req, call)
	for try := 1; try < 3 && before.Drifts; try++ { // it may seem so if others take the CPU
		before, err = progrun.Measure(prog, req, call)
	}
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

// repeater returns a function that runs req n times in one call, and returns the
// mean time of a run. All requests that progrun.Measure takes have these fields.
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
