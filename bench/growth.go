package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// ofFloor is the claim of a step: no target for one, since what matters is that
// it does not grow.
var ofFloor = []claim{{label: "of the Go floor", of: byProgrun, over: byGo}}

// sizes are packets up to the largest of a kernel with pages of 4 KiB: 3,520
// bytes are linear, and fragments of a page each follow.
var sizes = []int{64, 256, 1024, 1500, 3520, 3521, 9000, 16384, 32768, 65536, 73152}

// bySize is how the cost of XDP grows with the packet.
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
		points = append(points,
			step("XDP, verdict only", size, "%d bytes",
				each(byProgrun, func() error { _, err := verdict.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet})),
			step("XDP, output and contexts", size, "%d bytes",
				each(byProgrun, func() error { _, err := output.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet, out: roomForAll, ctx: ctx, ctxOut: len(ctx)})))
	}
	return points, nil
}

// step is a point on the way of a growth. The format puts x in words.
func step(series string, x int, format string, contenders ...contender) point {
	return point{
		name: series + ", " + fmt.Sprintf(format, x), series: series, x: float64(x),
		contenders: contenders, claims: ofFloor,
	}
}

// byContext is TC with and without contexts, at two sizes.
func (b *bench) byContext() ([]point, error) {
	prog, err := b.load(returns(ebpf.SchedCLS, 0))
	if err != nil {
		return nil, err
	}
	var points []point
	for _, size := range []int{64, 512, 1500, 3712} {
		packet := frame(size)
		ctx := bytesOf(&skBuff{Mark: 7, Priority: 5, CB: skbInput.CB, TStamp: 1000, WireLen: uint32(size)})
		in := skbInput
		in.WireLen = size
		verdict := progrun.TC{Packet: packet, NoOutput: true}
		contexts := progrun.TC{Packet: packet, Context: in, Out: make([]byte, 0, ample)}
		points = append(points,
			step("TC, verdict only", size, "%d bytes",
				each(byProgrun, func() error { _, err := verdict.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet})),
			step("TC, output and contexts", size, "%d bytes",
				each(byProgrun, func() error { _, err := contexts.Run(prog); return err }),
				goFloor(job{prog: prog, packet: packet, out: ample, ctx: ctx, ctxOut: len(ctx)})))
	}
	return points, nil
}

// byInputs is how the cost of an input changes with their number.
func (b *bench) byInputs() ([]point, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	packets := manyPackets(inputs)
	var points []point
	for n := 1; n <= b.most(1_000_000); n *= 10 {
		// A batch of few is made again and again.
		total := max(n, 1000)
		again := func(f func(int) error) func(int) error {
			return func(int) error {
				for range total / n {
					if err := f(n); err != nil {
						return err
					}
				}
				return nil
			}
		}
		for _, workers := range []int{1, 2} {
			batch := batchBy(byProgrun, prog, packets, true, workers)
			p := step([]string{"Batch", "Batch, 2 workers"}[workers-1], n, "%d inputs",
				timed(byProgrun, again(func(n int) error { _, err := batch.run(n); return err })),
				timed(byGo, again(func(n int) error { return floorBatch(prog, cycle(packets, n), 0) })))
			p.n, p.share = total, 100
			if total > 10_000 {
				p.share = 10
			}
			points = append(points, p)
		}
	}
	return points, nil
}

// most is the end of a growth: quick runs end a step or two before.
func (b *bench) most(n int) int {
	if b.quick {
		return n / 10
	}
	return n
}

// byGoroutines is how calls go with many goroutines that make them.
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
