//go:build linux

package progrun

import (
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// makeUp is how far a worker may be behind its Rate and still catch up.
	makeUp = 100 * time.Millisecond
	// catchUp is how many times faster than Rate a worker catches up.
	catchUp = 1.25
)

// pace spreads a worker's frames over time. Frames become due one by one. A worker
// that is behind catches up gradually, so that no two batches touch, and gives up
// frames that are too late.
type pace struct {
	worker   *liveWorker
	interval float64       // time between two frames, in ns
	perCall  int64         // frames in a call if the worker is on time
	due      float64       // when the next frame is due, in ns since the start
	next     float64       // when the next call may start, in ns since the start
	last     float64       // earliest time at which the last frames ran, in ns since the start
	usual    time.Duration // time of a call of one batch if nothing holds it up
	waited   time.Duration // how long recent calls waited for the dispatcher
	late     time.Duration // median of how late sleeps end
}

// pacer says when the frames of a worker run.
type pacer interface {
	// wait waits until frames are due, and returns how many, at most most.
	wait(most int64) int64
	// ran records a call that ended at a time.
	ran(c timedCall, end time.Duration)
	// over is called if the run ends before all frames ran.
	over()
}

// newPacer returns nil if frames run as fast as they can.
func newPacer(w *liveWorker) pacer {
	switch {
	case w.run.Rate > 0:
		return newPace(w)
	case w.run.Times != nil:
		return &schedule{pace: &pace{worker: w, late: 50 * time.Microsecond}}
	}
	return nil
}

func newPace(w *liveWorker) *pace {
	r := w.run
	return &pace{worker: w, interval: r.interval(), perCall: min(r.perPacedCall(), r.batch), late: 50 * time.Microsecond}
}

// wait sleeps until the frames of a call are due, and returns how many the call should
// have: at most a batch, or at most most if calls of one batch are too slow.
func (p *pace) wait(most int64) int64 {
	r := p.worker.run
	least := p.perCall
	if r.Frames > 0 {
		least = max(1, min(least, r.left.Load()))
	}
	// The first frame of a call is due at p.due. The call may start when its last
	// frame is due.
	at := max(p.next, p.due+float64(least-1)*p.interval)
	p.sleepUntil(r.start.Add(time.Duration(at)))
	now := float64(time.Since(r.start))
	if r.ended() {
		return 1 // which is not taken; a sleep that ended late must not count as missed
	}
	p.giveUp(now, max(r.batch, int64(float64(makeUp)/p.interval)))
	if r.perPacedCall() == 1 {
		return 1 // calls of one frame never wait for the dispatcher
	}
	if !p.tooSlow() {
		most = r.batch
	}
	return max(1, min(p.owed(now), most, r.perCall))
}

// tooSlow reports whether a worker cannot keep up with calls of one batch.
func (p *pace) tooSlow() bool {
	return float64(p.usual+p.waited) > float64(p.worker.run.batch)*p.interval/catchUp
}

// ran records a call that ended at a time.
func (p *pace) ran(c timedCall, end time.Duration) {
	took := c.took - c.waited
	if batch := p.worker.run.batch; c.frames > batch {
		took = took * time.Duration(batch) / time.Duration(c.frames)
	}
	// The extra time of a slow call may lie before its frames or between them, so
	// it does not count as distance to the next frames. A call that was held up
	// must not raise usual much, the first call least of all.
	p.usual = min(took, p.usual+max(p.usual/16, time.Microsecond))
	p.waited = max(c.waited, p.waited/2)
	p.due += float64(c.frames) * p.interval
	p.last = float64(end - c.waited)
	p.next = float64(end)
	if !p.tooSlow() {
		p.next += float64(c.frames)*p.interval/catchUp - float64(p.usual)
	}
}

// owed returns how many frames are due at a time.
func (p *pace) owed(at float64) int64 { return int64((at-p.due)/p.interval) + 1 }

// giveUp gives up frames that are due at a time, except but of them.
func (p *pace) giveUp(at float64, but int64) {
	if late := p.owed(at) - but; late > 0 {
		p.worker.missed.Add(late)
		p.due += float64(late) * p.interval
	}
}

// sleepUntil waits until a time, or until the run ends. It sleeps less by as much as
// sleeps end late, and spins for the rest.
func (p *pace) sleepUntil(at time.Time) {
	const nap = 5 * time.Millisecond // how often to check whether the run has ended
	begin := time.Now()
	slept := false
	for now := begin; now.Before(at) && !p.worker.run.ended(); now = time.Now() {
		if left := at.Sub(now) - p.late; left > 0 {
			left = min(left, nap)
			ts := unix.NsecToTimespec(int64(left))
			_ = unix.Nanosleep(&ts, nil) // a sleep that a signal cuts short is repeated
			p.learn(time.Since(now) - left)
			slept = true
		}
	}
	if slept {
		p.worker.sleeps = sleeps()
	} else {
		// Lower late, so that the worker tries to sleep again. Otherwise a worker
		// whose sleeps were once very late would spin for good.
		p.late -= time.Since(begin) / 16384
	}
}

// learn moves late towards how late a sleep was. Steps up and down have the same size,
// so late approaches the median.
func (p *pace) learn(late time.Duration) {
	step := max(p.late/64, 50*time.Nanosecond)
	if late > p.late {
		p.late += 3 * step
	} else {
		p.late -= step
	}
}

// over gives up the frames that are due.
func (p *pace) over() { p.giveUp(p.last, p.perCall) }

// schedule runs frames at the Times of the request. A late frame runs at once, and
// none is given up.
type schedule struct {
	*pace
	first int64 // number of the next frame
}

// due returns when a frame is due, from the start of the run.
func (s *schedule) due(n int64) time.Duration {
	r := s.worker.run
	packets := int64(len(r.Times))
	at := time.Duration(n/packets)*r.Times[packets-1] + r.Times[n%packets]
	return time.Duration(float64(at) / r.speed())
}

// wait sleeps until a frame is due, and returns how many frames are due.
func (s *schedule) wait(int64) int64 {
	r := s.worker.run
	s.sleepUntil(r.start.Add(s.due(s.first)))
	most := min(r.batch, r.perCall)
	if r.holdErr != nil {
		most = 1 // calls of one frame never wait for the dispatcher
	}
	now := time.Since(r.start)
	s.worker.late.Store(int64(now - s.due(s.first)))
	return max(1, int64(sort.Search(int(most), func(i int) bool { return s.due(s.first+int64(i)) > now })))
}

func (s *schedule) ran(c timedCall, _ time.Duration) { s.first += c.frames }

func (s *schedule) over() {}
