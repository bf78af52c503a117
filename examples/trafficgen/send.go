//go:build linux

package main

import (
	"context"
	"errors"
	"sort"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

// sender has all that a run needs.
type sender struct {
	options
	load     *load
	path     path
	programs *programs
}

// prepare gets ready for what o asks for. It makes nothing before it has checked all
// of o.
func prepare(o options) (*sender, error) {
	s := &sender{options: o}
	for _, step := range []func() error{
		progrun.HaveXDPLiveFrames, rlimit.RemoveMemlock,
		s.findPath, s.makeLoad, s.loadPrograms, s.fit, s.rehearse, // up to here, it only checks
		s.openPath, s.watchLoss,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *sender) findPath() (err error) {
	s.path, err = s.options.path()
	return err
}

func (s *sender) makeLoad() (err error) {
	s.load, err = s.options.load(s.path)
	return err
}

func (s *sender) loadPrograms() (err error) {
	s.programs, err = loadPrograms(s.load, s.path)
	return err
}

func (s *sender) fit() error { return s.load.fit(s.limit()) }

func (s *sender) openPath() error {
	return s.path.open(max(1, len(s.cpus)), s.load.largest(), s.programs.Receive)
}

func (s *sender) watchLoss() error { return s.programs.watchLoss() }

// close removes what the run has made.
func (s *sender) close() error {
	if s.programs != nil {
		s.programs.close()
	}
	if s.path == nil {
		return nil
	}
	return s.path.close()
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

// limit returns the size of the largest frame that can be sent and arrive.
func (s *sender) limit() limit {
	most := s.path.limit()
	sendable := func(size int) bool {
		return !errors.Is(dryRun(progrun.Live{Packet: make([]byte, size), Frames: 1}, s.programs.Replay), unix.EINVAL)
	}
	if sendable(most.bytes) {
		return most
	}
	over := sort.Search(most.bytes, func(size int) bool { return size >= ethernetHeader && !sendable(size) })
	return limit{over - 1, "the page of a live frame"}
}

// rehearse makes progrun check the request, before anything is made for the run.
func (s *sender) rehearse() error { return dryRun(s.live(), s.program()) }

// dryRun makes progrun and the kernel check a request. No frame is sent, since the
// context has ended.
func dryRun(live progrun.Live, prog *ebpf.Program) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := live.Run(ctx, prog)
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
	stats, err := s.run(ctx, r.progress)
	if err != nil && !ended(err) {
		return errors.Join(err, r.totals(stats))
	}
	return r.totals(stats)
}

// run sends the frames.
func (s *sender) run(ctx context.Context, progress func(progrun.LiveStats)) (progrun.LiveStats, error) {
	live := s.live()
	live.NetNS, live.Ifindex = s.path.namespace(), s.path.entry()
	live.Progress = progress
	return live.Run(ctx, s.program())
}

// ended reports whether an error only says that the context has ended.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
