//go:build linux

package progrun

import (
	"time"

	"golang.org/x/sys/unix"
)

// pace spreads a worker's frames over time. Frames fall due one by one. A worker
// that has fallen behind catches up little by little, so that no two batches
// touch, and gives up what is too late for that.
type pace struct {
	run      *liveRun
	interval float64       // ns a frame
	due      float64       // when the next frame is, in ns since the start
	next     float64       // when the next call may begin, likewise
	late     time.Duration // what sleeps have been late lately
	usual    time.Duration // what a call takes if nothing holds it up
}

func newPace(r *liveRun) pace {
	if r.Rate == 0 {
		return pace{}
	}
	return pace{run: r, interval: 1e9 * float64(len(r.workers)) / float64(r.Rate)}
}

// wait sleeps until a call's worth of frames is due, and says how many are.
func (p *pace) wait(w *liveWorker) int64 {
	r := p.run
	least := r.paced
	if r.Frames > 0 {
		least = max(1, min(least, r.left.Load()))
	}
	// The first frame of a call is due at p.due, and the last one when the
	// call may begin.
	at := max(p.next, p.due+float64(least-1)*p.interval)
	p.sleepUntil(r.start.Add(time.Duration(at)))
	now := float64(time.Since(r.start))
	p.giveUp(w, now, max(r.batch, int64(float64(makeUp)/p.interval)))
	n := min(p.owed(now), r.batch, r.perCall)
	if !r.held {
		n = 1 // any more would cost the dispatcher's time
	}
	return max(1, n)
}

// ran books a call of n frames that ended at a time and took so long.
func (p *pace) ran(n int64, end, took time.Duration) {
	// What a call takes longer than usual may have been before its frames or
	// amidst them, and is no distance to the next ones. One that was held up
	// is none to learn from, the first least of all.
	p.usual = min(took, p.usual+max(p.usual/16, time.Microsecond))
	p.due += float64(n) * p.interval
	p.next = float64(end-p.usual) + float64(n)*p.interval/catchUp
}

// owed is how many frames are due at a time.
func (p *pace) owed(at float64) int64 { return int64((at-p.due)/p.interval) + 1 }

// giveUp forgets the frames that are due at a time, but for some.
func (p *pace) giveUp(w *liveWorker, at float64, but int64) {
	if late := p.owed(at) - but; late > 0 {
		w.missed.Add(late)
		p.due += float64(late) * p.interval
	}
}

// sleepUntil waits for a moment, or less if the run ends before. The last bit
// is spent spinning: as much as sleeps are late here, which can be a tick of
// the kernel.
func (p *pace) sleepUntil(at time.Time) {
	const (
		nap  = 5 * time.Millisecond // how often to look whether the run has ended
		spin = 60 * time.Microsecond
	)
	for !p.run.ended() {
		begin := time.Now()
		left := at.Sub(begin)
		if left <= 0 {
			return
		}
		if left -= max(p.late, spin); left > 0 {
			left = min(left, nap)
			ts := unix.NsecToTimespec(int64(left))
			_ = unix.Nanosleep(&ts, nil) // cut short by a signal, it is tried again
			p.late = max(time.Since(begin)-left, p.late-p.late/16)
		}
	}
}
