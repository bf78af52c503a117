package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

const (
	byInterval = "interval"
	byNoRate   = "progrun-no-rate"
)

// rates returns the points of live frames at a rate. They measure the time of a CPU at
// rates that leave it mostly asleep, and the speed at rates that are out of reach.
func (b *bench) rates() ([]point, error) {
	free, err := b.load(returns(ebpf.XDP, xdpDrop))
	if err != nil {
		return nil, err
	}
	held, err := b.loadHeld(returns(ebpf.XDP, xdpDrop))
	if err != nil {
		return nil, err
	}
	points := []point{b.cpuOfRate(free, 1000, 0.1), b.cpuOfRate(free, 3000, 0.25)}
	return append(points, point{
		name: "1,000,000,000/s", n: b.liveFrames(), share: 10,
		contenders: []contender{b.liveAt(1e9, held, byProgrun), b.liveAt(0, held, byNoRate)},
		claims:     []claim{{label: "of no rate", of: byNoRate, over: byProgrun, sense: atLeast, target: 0.95}},
	}), nil
}

// liveAt returns a run of live frames at a rate.
func (b *bench) liveAt(rate int, prog *ebpf.Program, by string) contender {
	return timed(by, func(n int) error {
		_, err := progrun.Live{
			Packet: frame(packetSize), Rate: rate, Frames: int64(n), CPUs: []int{b.cpu}, Hold: b.held[prog],
		}.Run(context.Background(), prog)
		return err
	})
}

// cpuOfRate compares the time of a CPU with the elapsed time. The floor sleeps until
// each frame is due and makes the system call.
func (b *bench) cpuOfRate(prog *ebpf.Program, rate int, most float64) point {
	interval := time.Second / time.Duration(rate)
	live := b.liveAt(rate, prog, byProgrun).run
	floor := func(n int) (time.Duration, error) { return 0, sleepAndCall(prog, n, interval) }
	return point{
		name: fmt.Sprintf("%d/s", rate), n: rate, share: 10,
		contenders: []contender{
			{by: byProgrun, run: cpuTimeOf(live)},
			{by: byGo, run: cpuTimeOf(floor)},
			{by: byInterval, run: func(n int) (time.Duration, error) { return time.Duration(n) * interval, nil }},
		},
		claims: []claim{
			{label: "of a CPU", of: byProgrun, over: byInterval, sense: atMost, target: most},
			{label: "the same of the floor", of: byGo, over: byInterval},
		},
	}
}

// sleepAndCall runs a frame at every interval.
func sleepAndCall(prog *ebpf.Program, n int, interval time.Duration) error {
	return onThread(func() error {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			return err
		}
		a := job{prog: prog, packet: frame(packetSize), ctx: bytesOf(&xdpMD{DataEnd: packetSize, IngressIfindex: 1}), flags: liveFrames}.attr()
		begin := time.Now()
		for i := range n {
			ts := unix.NsecToTimespec(int64(time.Duration(i)*interval - time.Since(begin)))
			_ = unix.Nanosleep(&ts, nil) // fails if the time has passed
			if err := a.call(0, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// cpuTimeOf makes a contender return how much time of a CPU it took, in place of how
// long.
func cpuTimeOf(run func(n int) (time.Duration, error)) func(n int) (time.Duration, error) {
	return func(n int) (time.Duration, error) {
		before, err := cpuTime()
		if err != nil {
			return 0, err
		}
		if _, err := run(n); err != nil {
			return 0, err
		}
		after, err := cpuTime()
		return after - before, err
	}
}

// cpuTime returns how much time of the CPUs this process has used.
func cpuTime() (time.Duration, error) {
	var usage unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}
