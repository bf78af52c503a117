package progrun

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkRun measures one run of each type, and its system call alone. benchstat -col
// /by compares the two.
func BenchmarkRun(b *testing.B) {
	for _, c := range floorCases() {
		b.Run("case="+slug(c.name), func(b *testing.B) {
			o := c.load(b)
			b.Run("by=progrun", func(b *testing.B) {
				b.ReportAllocs()
				c.runMany(b, o.Program, b.N)
			})
			b.Run("by=floor", func(b *testing.B) { c.runFloor(b, b.N) })
		})
	}
}

// BenchmarkBatch measures batches of packets, with and without outputs, and a loop of
// the system call. Compare ns/input.
func BenchmarkBatch(b *testing.B) {
	o := load(b, "xdp", "xdp_pass")
	floor := floorCase{floor: newAttr(uint32(o.FD()), frame(64), nil, nil, nil, 0, 0)}
	for _, inputs := range []int{1, 10, 64, 100, 200, 300, 1000, 10_000} {
		perInput := func(b *testing.B, by string, run func()) {
			b.Run(fmt.Sprintf("inputs=%d/by=%s", inputs, by), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					run()
				}
				b.ReportMetric(float64(b.Elapsed())/float64(b.N*inputs), "ns/input")
			})
		}
		batch := func(req XDP, workers int) func() {
			return func() {
				for _, err := range Batch(o.Program, Packets(req, repeated(frame(64), inputs)), &BatchOptions{Workers: workers}) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		perInput(b, "progrun", batch(XDP{NoOutput: true}, 1))
		perInput(b, "progrun-output", batch(XDP{}, 1))
		perInput(b, "progrun-2-workers", batch(XDP{NoOutput: true}, 2))
		perInput(b, "floor", func() { floor.runFloor(b, inputs) })
	}
}

// BenchmarkLive runs b.N live frames, which are dropped. One worker runs them, with a
// held program.
func BenchmarkLive(b *testing.B) {
	need(b, HaveXDPLiveFrames())
	o := load(b, "xdp", "xdp_drop")
	hold, err := NewHold(o.Program)
	if err != nil {
		b.Fatal(err)
	}
	defer hold.Close()
	b.ResetTimer()
	stats, err := Live{Packet: frame(64), Frames: int64(b.N), Hold: hold}.Run(context.Background(), o.Program)
	if err != nil || stats.Frames != int64(b.N) {
		b.Fatalf("%d frames, %v", stats.Frames, err)
	}
}

func slug(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, ",", ""), " ", "-") }
