//go:build linux

package main

import (
	"context"
	"errors"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// sender has all that a run needs.
type sender struct {
	options
	load     *load
	path     path
	programs *programs
}

// live returns the request.
func (s *sender) live() progrun.Live {
	live := progrun.Live{
		Frames:        s.frames,
		Rate:          s.rate.of(s.load.mean()),
		BatchSize:     s.batch,
		CPUs:          s.cpus,
		CountVerdicts: true,
	}
	if t := s.load.template; t != nil {
		live.Packet = t.frame
		return live
	}
	live.Packets = s.load.packets
	if s.loops > 0 {
		live.Frames = s.loops * int64(len(live.Packets))
	}
	if s.speed > 0 {
		live.Times, live.Speed = s.load.times, s.speed
	}
	return live
}

func (s *sender) program() *ebpf.Program {
	if s.load.template != nil {
		return s.programs.Generate
	}
	return s.programs.Replay
}

// rehearse makes progrun check the request, and the kernel the size of its frames,
// before anything is made for the run. It sends no frame, since its context has ended.
func (s *sender) rehearse() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.live().Run(ctx, s.program())
	if ended(err) {
		return nil
	}
	return err
}

// send sends the frames and reports the outcome.
func (s *sender) send(ctx context.Context, r *report) error {
	if s.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.duration)
		defer cancel()
	}
	r.begin()
	live := s.live()
	live.NetNS, live.Ifindex = s.path.namespace(), s.path.entry()
	live.Progress = r.progress
	stats, err := live.Run(ctx, s.program())
	if err != nil && !ended(err) {
		return err
	}
	r.totals(stats)
	return nil
}

// ended reports whether an error only says that the context has ended.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
