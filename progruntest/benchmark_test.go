package progruntest

import (
	"flag"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/progrun/progrun"
)

func BenchmarkPass(b *testing.B) {
	prog, _ := load(b, "xdp", "xdp_pass")
	Benchmark(b, prog, progrun.XDP{Packet: packet()})
}

func BenchmarkShrink(b *testing.B) {
	prog, _ := load(b, "xdp", "xdp_shrink_head")
	Benchmark(b, prog, progrun.XDP{Packet: make([]byte, 1000)})
}

func BenchmarkMark(b *testing.B) {
	prog, _ := load(b, "tc", "tc_mark")
	Benchmark(b, prog, progrun.TC{Packet: packet(), Context: progrun.SKB{Mark: 7}})
}

func BenchmarkFlowDissector(b *testing.B) {
	prog, _ := load(b, "flow_dissector", "flow_dissect")
	Benchmark(b, prog, progrun.FlowDissector{Packet: packet()})
}

func BenchmarkFails(b *testing.B) {
	if os.Getenv(asChild) == "" {
		b.Skip("a part of TestBenchmark")
	}
	prog, _ := load(b, "xdp", "xdp_pass")
	Benchmark(b, prog, progrun.XDP{Packet: make([]byte, 13)})
}

// TestBenchmark checks what benchmarks print.
func TestBenchmark(t *testing.T) {
	needPrivilege(t)
	for _, c := range []struct {
		name, benchtime, n string
		drifts             bool
	}{
		{"Pass", "1000x", "1000", false},
		{"Pass", "20ms", `\d+`, false}, // as many as the machine makes in that time
		{"Shrink", "1000x", "1000", true},
		{"Shrink", "20ms", `\d+`, true},
		{"Mark", "7x", "7", true},
		{"FlowDissector", "10ms", `\d+`, false},
	} {
		t.Run(c.name+"/"+c.benchtime, func(t *testing.T) {
			out := child(t, "-test.run=^$", "-test.bench=^Benchmark"+c.name+"$", "-test.benchtime="+c.benchtime, "-test.count=2")
			line := regexp.MustCompile(`(?m)^Benchmark` + c.name + `(-\d+)?\s+` + c.n + `\s+[1-9][\d.]* ns/op$`)
			if n := len(line.FindAllString(out, -1)); n != 2 {
				t.Errorf("%d lines of results", n)
			}
			want := 0
			if c.drifts {
				want = 2 // one for each run of the benchmark
			}
			if n := strings.Count(out, "the program edits its input"); n != want {
				t.Errorf("says %d times that the program edits its input", n)
			}
		})
	}
	out := child(t, "-test.run=^$", "-test.bench=^BenchmarkFails$")
	if !strings.Contains(out, "--- FAIL: BenchmarkFails") || !strings.Contains(out, "progrun: XDP.Packet: 13 bytes") {
		t.Error("it does not fail")
	}
}

// TestBenchmarkIsMeasure compares Benchmark with progrun.Measure, by the shortest time
// that each finds. A system call, which neither may count, takes several times as long
// as a run.
func TestBenchmarkIsMeasure(t *testing.T) {
	if emulated() {
		t.Skip("compares times")
	}
	benchtime := flag.Lookup("test.benchtime").Value
	defer benchtime.Set(benchtime.String())
	if err := benchtime.Set("50ms"); err != nil {
		t.Fatal(err)
	}
	for name, drifts := range map[string]bool{"xdp_pass": false, "xdp_filter": false, "xdp_shrink_head": true} {
		t.Run(name, func(t *testing.T) {
			prog, _ := load(t, "xdp", name)
			req := progrun.XDP{Packet: make([]byte, 1000)}
			got, want := math.Inf(1), math.Inf(1)
			apart := func() float64 { return max(got/want, want/got) }
			for try := 0; try < 3 || try < 8 && apart() > 1.05; try++ { // other processes may disturb
				m, err := progrun.Measure(prog, req, 50*time.Millisecond)
				Need(t, err)
				if drifts {
					m.PerRun = m.PerFreshRun
				}
				want = min(want, float64(m.PerRun))
				res := testing.Benchmark(func(b *testing.B) { Benchmark(b, prog, req) })
				got = min(got, res.Extra["ns/op"])
			}
			t.Logf("Benchmark %.1f ns, Measure %.0f ns", got, want)
			if apart() > 1.5 {
				t.Errorf("they differ by a factor of %.2f", apart())
			}
		})
	}
}
