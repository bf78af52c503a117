package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// The same contenders with the program held in the XDP dispatcher.
const (
	byHeld   = "progrun-held"
	byGoHeld = "go-held"
	byCHeld  = "c-held"
)

// byBlocked is progrun on a thread whose signals the caller has already blocked.
const byBlocked = "progrun-blocked"

func blocked(prog *ebpf.Program, req progrun.TC) contender {
	return timed(byBlocked, func(n int) error {
		defer blockSignals()()
		for range n {
			if _, err := req.Run(prog); err != nil {
				return err
			}
		}
		return nil
	})
}

// repeats measures how the time of a call grows with Repeat: of XDP, whose calls pay
// for the dispatcher unless the program is held, and of TC.
func (b *bench) repeats() ([]point, error) {
	free, err := b.load(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	held, err := b.loadHeld(returns(ebpf.XDP, xdpPass))
	if err != nil {
		return nil, err
	}
	tc, err := b.load(returns(ebpf.SchedCLS, 0))
	if err != nil {
		return nil, err
	}
	packet := frame(packetSize)
	floor := func(by string, prog *ebpf.Program, n int) contender {
		c := goFloor(job{prog: prog, packet: packet, repeat: uint32(n)})
		c.by = by
		return c
	}
	xdp := func(by string, prog *ebpf.Program, n int) contender {
		req := progrun.XDP{Packet: packet, Repeat: n, NoOutput: true}
		return each(by, func() error { _, err := req.Run(prog); return err })
	}
	var points []point
	for _, n := range []int{1, 2, 10, 100, 1000, 10_000, 100_000} {
		p := step("XDP", n, "Repeat %d", xdp(byProgrun, free, n), floor(byGo, free, n))
		p.n, p.share = 1, 10
		points = append(points, p)
	}
	for _, n := range []int{1, 2, 10, 100, 1000, 10_000, 100_000} {
		p := step("XDP, held", n, "Repeat %d", xdp(byHeld, held, n), floor(byGoHeld, held, n))
		p.claims = []claim{{label: "of the Go floor", of: byHeld, over: byGoHeld}}
		req := progrun.TC{Packet: packet, Repeat: n, NoOutput: true}
		q := step("TC", n, "Repeat %d",
			each(byProgrun, func() error { _, err := req.Run(tc); return err }), floor(byGo, tc, n), blocked(tc, req))
		q.claims = append(q.claims[:1:1], claim{label: "of the Go floor, signals blocked before", of: byBlocked, over: byGo})
		points = append(points, p, q)
	}
	return points, nil
}

// loadHeld loads an XDP program and keeps it in the dispatcher.
func (b *bench) loadHeld(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	prog, err := b.load(spec)
	if err != nil {
		return nil, err
	}
	held, err := progrun.NewHold(prog)
	if err != nil {
		return nil, fmt.Errorf("hold a program: %w", err)
	}
	b.held[prog] = held
	return prog, nil
}
