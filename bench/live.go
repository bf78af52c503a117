package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

const (
	liveFrames = 1 << 1  // BPF_F_TEST_XDP_LIVE_FRAMES
	oneCall    = 1 << 20 // frames a call of the peers
	liveBatch  = 64
)

// One of each, with which two are compared.
const (
	byOne   = "progrun-1-worker"
	byGoOne = "go-1-goroutine"
)

// liveCase is a program on live frames.
type liveCase struct {
	name    string
	spec    *ebpf.ProgramSpec
	ifindex int
	faster  float64 // target of the ratio to the C loop that pays for the dispatcher; 0 for none
	sends   bool    // whether frames should arrive at the far end
	stack   bool    // whether the network stack's work dominates the cost
}

func (b *bench) liveCases() []liveCase {
	return []liveCase{
		{name: "XDP_DROP", spec: returns(ebpf.XDP, xdpDrop), ifindex: b.wire.ifindex, faster: 1.2},
		{name: "XDP_TX", spec: returns(ebpf.XDP, xdpTX), ifindex: b.wire.ifindex, faster: 1.13, sends: true},
		{name: "XDP_REDIRECT", spec: redirects(b.wire.ifindex), ifindex: 1, sends: true},
		{name: "XDP_PASS", spec: returns(ebpf.XDP, xdpPass), ifindex: b.wire.ifindex, stack: true},
	}
}

// live returns the points of live frames on one CPU.
func (b *bench) live() ([]point, error) {
	var points []point
	for _, c := range b.liveCases() {
		p, err := b.livePoint(c)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

// liveFrames returns how many frames make a turn: those of a few calls of the peers,
// each of which pays for the dispatcher.
func (b *bench) liveFrames() int {
	if b.quick {
		return oneCall
	}
	return 8 * oneCall
}

// livePoint returns the point with the ways to send frames from one CPU.
func (b *bench) livePoint(c liveCase) (point, error) {
	free, err := b.load(c.spec)
	if err != nil {
		return point{}, err
	}
	held, err := b.loadHeld(c.spec)
	if err != nil {
		return point{}, err
	}
	peer := job{prog: free, packet: frame(packetSize), repeat: oneCall, flags: liveFrames, batch: liveBatch, callRun: oneCall}
	peer.ctx = bytesOf(&xdpMD{DataEnd: packetSize, IngressIfindex: uint32(c.ifindex)})
	keptAttached := peer
	keptAttached.prog = held
	p := point{name: c.name, n: b.liveFrames(), share: 10}
	p.contenders = []contender{
		b.liveBy(byProgrun, free, c.ifindex, b.cpu),
		b.liveBy(byHeld, held, c.ifindex, b.cpu),
	}
	p.contenders = append(p.contenders, b.c.cFloor(peer)...)
	for _, f := range b.c.cFloor(keptAttached) {
		f.by = byCHeld
		p.contenders = append(p.contenders, f)
	}
	p.contenders = append(p.contenders, ciliumLive(free, c.ifindex))
	if c.sends {
		p.received = b.wire.received
	}
	p.claims = []claim{
		{label: "times the C loop", of: byC, over: byProgrun, target: c.faster},
		{label: "times Run", of: byCilium, over: byProgrun},
		{label: "C held, times the C loop", of: byC, over: byCHeld},
		{label: "of the C loop, both held", of: byCHeld, over: byHeld, sense: atLeast, target: 0.97},
	}
	if c.faster > 0 {
		p.claims[0].sense = atLeast
	}
	return p, nil
}

// liveBy returns progrun with a worker on each of the CPUs. The time is that of the
// whole Run, including the time to make and release its hold.
func (b *bench) liveBy(by string, prog *ebpf.Program, ifindex int, cpus ...int) contender {
	return timed(by, func(n int) error {
		stats, err := progrun.Live{
			Packet: frame(packetSize), Ifindex: ifindex, Frames: int64(n),
			CPUs: cpus, NetNS: b.wire.near, Hold: b.held[prog],
		}.Run(context.Background(), prog)
		if err == nil && stats.Frames != int64(n) {
			err = fmt.Errorf("%d of %d frames", stats.Frames, n)
		}
		return err
	})
}

func ciliumLive(prog *ebpf.Program, ifindex int) contender {
	opts := ebpf.RunOptions{
		Data: frame(packetSize), Context: &xdpMD{DataEnd: packetSize, IngressIfindex: uint32(ifindex)},
		Repeat: oneCall, Flags: liveFrames, BatchSize: liveBatch,
	}
	return timed(byCilium, func(n int) error {
		for range n / oneCall {
			if _, err := prog.Run(&opts); err != nil {
				return err
			}
		}
		return nil
	})
}

// liveFloor returns a raw loop on each of the CPUs. The program is held.
func (b *bench) liveFloor(by string, prog *ebpf.Program, ifindex int, cpus ...int) contender {
	const frames = oneCall / 2
	j := job{prog: prog, packet: frame(packetSize), repeat: frames, flags: liveFrames, batch: liveBatch}
	j.ctx = bytesOf(&xdpMD{DataEnd: packetSize, IngressIfindex: uint32(ifindex)})
	return timed(by, func(n int) error {
		var all sync.WaitGroup
		errs := make([]error, len(cpus))
		for i, cpu := range cpus {
			all.Go(func() {
				errs[i] = onThread(func() error {
					if err := errors.Join(unix.Setns(b.wire.near, unix.CLONE_NEWNET), pin(cpu)); err != nil {
						return err
					}
					defer blockSignals()()
					a := j.attr()
					for range n / frames / len(cpus) {
						if err := a.call(0, 0); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
}

// liveWorkers compares two workers on two queues with one, and does the same with raw
// loops. These show how far the machine itself keeps two from being twice as fast.
func (b *bench) liveWorkers() ([]point, error) {
	if len(b.cpus) < 2 {
		return nil, nil
	}
	var points []point
	for _, c := range b.liveCases() {
		prog, err := b.loadHeld(c.spec)
		if err != nil {
			return nil, err
		}
		p := point{name: c.name + ", two workers", n: b.liveFrames(), share: 10}
		p.contenders = []contender{
			b.liveBy(byOne, prog, c.ifindex, b.cpu),
			b.liveBy(byTwo, prog, c.ifindex, b.cpus[0], b.cpus[1]),
			b.liveFloor(byGoOne, prog, c.ifindex, b.cpu),
			b.liveFloor(byGoTwo, prog, c.ifindex, b.cpus[0], b.cpus[1]),
		}
		p.claims = []claim{
			{label: "times one worker", of: byOne, over: byTwo, sense: atLeast, target: 1.7},
			{label: "the same of the floor", of: byGoOne, over: byGoTwo},
			{label: "of two floors", of: byGoTwo, over: byTwo},
		}
		if c.sends {
			p.received = b.wire.received
		}
		points = append(points, p)
	}
	return points, nil
}

// What a call of live frames costs by itself.
const (
	byOneFrame    = "1-frame"
	byManyFrames  = "256-frames"
	byOneFrameC   = "1-frame-c"
	byManyFramesC = "256-frames-c"
)

// heldCalls compares a held call of 256 frames with one of a single frame, and does
// the same in C. The ratio in C is the kernel's share.
func (b *bench) heldCalls() ([]point, error) {
	var points []point
	for _, c := range b.liveCases() {
		prog, err := b.loadHeld(c.spec)
		if err != nil {
			return nil, err
		}
		raw := progrun.Raw{
			DataIn: frame(packetSize), Flags: liveFrames,
			CtxIn: bytesOf(&xdpMD{DataEnd: packetSize, IngressIfindex: uint32(c.ifindex)}),
		}
		call := func(by string, frames uint32) contender {
			raw := raw
			raw.Repeat = frames
			return each(by, func() error {
				_, err := raw.Run(prog)
				return err
			})
		}
		floor := func(by string, frames uint32) []contender {
			j := job{prog: prog, packet: raw.DataIn, ctx: raw.CtxIn, flags: raw.Flags, repeat: frames}
			contenders := b.c.cFloor(j)
			for i := range contenders {
				contenders[i].by = by
			}
			return contenders
		}
		p := point{name: c.name + ", a held call", contenders: []contender{call(byOneFrame, 1), call(byManyFrames, 256)}}
		p.contenders = append(p.contenders, floor(byOneFrameC, 1)...)
		p.contenders = append(p.contenders, floor(byManyFramesC, 256)...)
		p.claims = []claim{
			{label: "times a call of one frame", of: byManyFrames, over: byOneFrame},
			{label: "the same in C", of: byManyFramesC, over: byOneFrameC},
		}
		if !c.stack {
			p.claims[0].sense, p.claims[0].target = atMost, 5
		}
		points = append(points, p)
	}
	return points, nil
}
