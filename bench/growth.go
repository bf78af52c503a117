package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// ofFloor is the claim of a step. It has no target, since what matters is that the
// ratio does not grow.
var ofFloor = []claim{{label: "of the Go floor", of: byProgrun, over: byGo}}

// sizes are packets up to the largest of a kernel with pages of 4 KiB: 3,520
// bytes are linear, and fragments of a page each follow.
var sizes = []int{64, 256, 1024, 1500, 3520, 3521, 9000, 16384, 32768, 65536, 73152}

// bySize measures how the cost of XDP grows with the packet.
func (b *bench) bySize() ([]point, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	const roomForAll = 128 << 10
	var points []point
	for _, size := range sizes {
		packet := frame(size)
		ctx := bytesOf(&xdpMD{DataEnd: uint32(size)})
		verdict := progrun.XDP{Packet: packet, NoOutput: true}
		output := progrun.XDP{Packet: packet, Out: make([]byte, 0, roomForAll)}
		snug := progrun.XDP{Packet: packet, Out: make([]byte, 0, size)}
		points = append(points,
			step("XDP, verdict only", size, "%d bytes",
				each(byProgrun, func() error { _, err := verdict.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet})),
			step("XDP, output and contexts", size, "%d bytes",
				each(byProgrun, func() error { _, err := output.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet, out: roomForAll, ctx: ctx, ctxOut: len(ctx)})),
			step("XDP, Out of the packet's size", size, "%d bytes",
				each(byProgrun, func() error { _, err := snug.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet, out: scratchSize, ctx: ctx, ctxOut: len(ctx)})))
	}
	return points, nil
}

// step returns a point of a growth. format puts x in words.
func step(series string, x int, format string, contenders ...contender) point {
	return point{
		name: series + ", " + fmt.Sprintf(format, x), series: series, x: float64(x),
		contenders: contenders, claims: ofFloor,
	}
}

// byInputs measures how the cost of an input changes with the number of inputs.
func (b *bench) byInputs() ([]point, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	packets := manyPackets(inputs)
	var points []point
	for _, n := range []int{1, 10, 64, 100, 200, 300, 1000, 10_000, 100_000, 1_000_000} {
		if n > b.most(1_000_000) {
			break
		}
		// A small batch is repeated.
		total := max(n, 1000)
		again := func(by string, f func(int) error) contender {
			return timed(by, func(int) error {
				for range total / n {
					if err := f(n); err != nil {
						return err
					}
				}
				return nil
			})
		}
		batch := func(by string, workers int) contender {
			of := batchBy(by, prog, packets, true, workers)
			return again(by, func(n int) error { _, err := of.run(n); return err })
		}
		one := step("Batch", n, "%d inputs", batch(byProgrun, 1),
			again(byGo, func(n int) error { return floorBatch(prog, cycle(packets, n), 0) }))
		two := step("Batch, 2 workers", n, "%d inputs", batch(byTwo, 2), batch(byProgrun, 1))
		two.claims = []claim{{label: "of one worker", of: byTwo, over: byProgrun, sense: atMost, target: 1.05}}
		for _, p := range []*point{&one, &two} {
			p.n, p.share = total, 100
			if total > 10_000 {
				p.share = 10
			}
			points = append(points, *p)
		}
	}
	return points, nil
}

// most returns the end of a growth. Quick runs end a step or two earlier.
func (b *bench) most(n int) int {
	if b.quick {
		return n / 10
	}
	return n
}

// byGoroutines measures calls by many goroutines at once.
func (b *bench) byGoroutines() ([]point, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	var points []point
	for g := 1; g <= 64; g *= 2 {
		p := step("XDP", g, "%d goroutines",
			timed(byProgrun, func(n int) error {
				return inParallel(g, func() error {
					req := progrun.XDP{Packet: packet, NoOutput: true}
					for range n / g {
						if _, err := req.Run(prog); err != nil {
							return err
						}
					}
					return nil
				})
			}),
			timed(byGo, func(n int) error {
				return inParallel(g, func() error {
					a := job{prog: prog, packet: packet}.attr()
					for range n / g {
						if err := a.call(0, 0); err != nil {
							return err
						}
					}
					return nil
				})
			}))
		p.n, p.share = 200*64, 30
		points = append(points, p)
	}
	return points, nil
}
