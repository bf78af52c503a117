package main

import (
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// inputs is the number of packets of a batch. There are many, so that the workers
// start long before the end. byInputs measures fewer.
const inputs = 100_000

// Batches by several workers, and the name of the floor with as many goroutines.
const (
	byTwo   = "progrun-2-workers"
	byGoTwo = "go-2-goroutines"
)

// batches returns the points of batches of many packets.
func (b *bench) batches() ([]point, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	packets := manyPackets(inputs)
	verdict := point{name: "XDP, verdict only", contenders: b.batchContenders(prog, packets, true)}
	output := point{name: "XDP, with output", contenders: b.batchContenders(prog, packets, false)}
	for _, p := range []*point{&verdict, &output} {
		p.n, p.share = inputs, 30
		p.claims = []claim{
			{label: "of the floor's rate", of: byGo, over: byProgrun, sense: atLeast, target: 0.95},
			{label: "of the floor's rate by 2 workers", of: byGo, over: byTwo, sense: atLeast, target: 1.7},
			{label: "of the floor's rate by 2 floors", of: byGo, over: byGoTwo},
			{label: "times as fast as Run", of: byCilium, over: byProgrun},
		}
	}
	return []point{verdict, output}, nil
}

func (b *bench) batchContenders(prog *ebpf.Program, packets [][]byte, verdictOnly bool) []contender {
	out := ample
	if verdictOnly {
		out = 0
	}
	all := []contender{
		batchBy(byProgrun, prog, packets, verdictOnly, 1),
		timed(byGo, func(n int) error { return floorBatch(prog, cycle(packets, n), out) }),
	}
	if len(b.cpus) > 1 {
		all = append(all, batchBy(byTwo, prog, packets, verdictOnly, 2),
			timed(byGoTwo, func(n int) error {
				return inParallel(2, func() error { return floorBatch(prog, cycle(packets, n/2), out) })
			}))
	}
	return append(all, timed(byCilium, func(n int) error {
		room := make([]byte, out)
		for packet := range cycle(packets, n) {
			opts := ebpf.RunOptions{Data: packet}
			if !verdictOnly {
				opts.DataOut, opts.Context, opts.ContextOut = room, &xdpMD{DataEnd: uint32(len(packet))}, new(xdpMD)
			}
			if _, err := prog.Run(&opts); err != nil {
				return err
			}
		}
		return nil
	}))
}

func batchBy(by string, prog *ebpf.Program, packets [][]byte, verdictOnly bool, workers int) contender {
	return batchWith(by, prog, packets, verdictOnly, progrun.BatchOptions{Workers: workers})
}

func batchWith(by string, prog *ebpf.Program, packets [][]byte, verdictOnly bool, opts progrun.BatchOptions) contender {
	return timed(by, func(n int) error {
		req, ran := progrun.XDP{NoOutput: verdictOnly}, 0
		for _, err := range progrun.Batch(prog, progrun.Packets(req, cycle(packets, n)), &opts) {
			if err != nil {
				return err
			}
			ran++
		}
		if ran != n {
			return fmt.Errorf("%d results of %d packets", ran, n)
		}
		return nil
	})
}

// floorBatch makes the calls of a batch's floor: one attr in which only the packet
// changes.
func floorBatch(prog *ebpf.Program, packets iter.Seq[[]byte], out int) error {
	ctx := &xdpMD{DataEnd: packetSize}
	j := job{prog: prog, out: out}
	if out > 0 {
		j.ctx, j.ctxOut = bytesOf(ctx), len(bytesOf(ctx))
	}
	a := j.attr()
	for packet := range packets {
		a.dataIn, a.dataSizeIn = pointer(packet), uint32(len(packet))
		if err := a.call(uint32(j.out), uint32(j.ctxOut)); err != nil {
			return err
		}
	}
	runtime.KeepAlive(j)
	return nil
}

// manyPackets returns n packets, each in memory of its own.
func manyPackets(n int) [][]byte {
	packets := make([][]byte, n)
	for i := range packets {
		packets[i] = frame(packetSize)
	}
	return packets
}

// cycle returns an iterator over n packets. It starts again at the first one if there
// are fewer.
func cycle(packets [][]byte, n int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for n > 0 {
			for _, p := range packets[:min(n, len(packets))] {
				if !yield(p) {
					return
				}
			}
			n -= min(n, len(packets))
		}
	}
}

// inParallel runs f in several goroutines and waits for all.
func inParallel(goroutines int, f func() error) error {
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	for range goroutines {
		all.Go(func() {
			if err := f(); err != nil {
				failed.Store(&err)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// elsewhere makes the turns of contenders run on a goroutine that is free to move. A
// goroutine that is locked to its thread pays a switch of threads for each hand-over.
func elsewhere(points []point) []point {
	for _, p := range points {
		for i, c := range p.contenders {
			run := c.run
			p.contenders[i].run = func(n int) (took time.Duration, err error) {
				done := make(chan struct{})
				go func() {
					defer close(done)
					took, err = run(n)
				}()
				<-done
				return took, err
			}
		}
	}
	return points
}
