package progrun

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// openNetNS opens the namespace of a request: 0 is that of the calling thread.
func openNetNS(fd int) (netNS, error) {
	if fd == 0 {
		ns, err := currentNetNS()
		if err != nil {
			return netNS{}, &Error{Request: "Live", Rule: "cannot open this thread's network namespace", Err: err}
		}
		return ns, nil
	}
	ns := netNS{fd: fd}
	if err := ns.stat(); err != nil {
		return netNS{}, &Error{Request: "Live", Field: "NetNS", Value: strconv.Itoa(fd), Rule: "no such file is open", Err: errnoOf(err)}
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return netNS{}, refuse("Live", "NetNS", strconv.Itoa(fd), "not a network namespace", syscall.EINVAL)
	}
	return ns, nil
}

// liveThread is what a worker changes about its thread, and puts back.
type liveThread struct {
	movedThread
	blocked bool
	signals unix.Sigset_t
	pinned  bool
	cpus    unix.CPUSet
	slack   int
}

// enter makes the calling thread a worker's.
func (t *liveThread) enter(ns netNS, cpu int) error {
	if err := t.move(ns); err != nil {
		return &Error{Request: "Live", Field: "NetNS", Rule: cannotMove, Err: err}
	}
	if cpu >= 0 {
		if err := t.pin(cpu); err != nil {
			return err
		}
	}
	if errno := setSignals(allSignals(), &t.signals); errno != 0 {
		return &Error{Request: "Live", Rule: "cannot block the signals of a thread", Err: errno}
	}
	t.blocked = true
	// The default of 50 µs is a long time between frames.
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil {
		t.slack = slack
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	}
	return nil
}

func (t *liveThread) pin(cpu int) error {
	if err := unix.SchedGetaffinity(0, &t.cpus); err != nil {
		return &Error{Request: "Live", Field: "CPUs", Rule: "cannot read the CPUs of a thread", Err: err}
	}
	var one, now unix.CPUSet
	one.Set(cpu)
	t.pinned = true
	err := unix.SchedSetaffinity(0, &one)
	if err == nil {
		err = unix.SchedGetaffinity(0, &now)
	}
	if err == nil && now != one {
		err = unix.EINVAL
	}
	if err != nil || cpu >= len(one)*strconv.IntSize {
		return &Error{Request: "Live", Field: "CPUs", Value: strconv.Itoa(cpu),
			Rule: "no such CPU is online, or this process may not use it", Err: unix.EINVAL}
	}
	return nil
}

// leave undoes enter, and reports whether all is as it was.
func (t *liveThread) leave() bool {
	ok := true
	if t.slack > 0 {
		ok = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(t.slack), 0, 0, 0) == nil
	}
	if t.pinned {
		var now unix.CPUSet
		ok = unix.SchedSetaffinity(0, &t.cpus) == nil && unix.SchedGetaffinity(0, &now) == nil && now == t.cpus && ok
	}
	ok = t.moveBack() && ok
	if t.blocked {
		ok = setSignals(&t.signals, nil) == 0 && ok
	}
	return ok
}

const (
	// callTime is what a call aims at: short enough that a run ends within 10
	// ms of its context even where the machine is suddenly half as fast, long
	// enough that what a call takes by itself and for the first use of its
	// pages, some 50 µs, does not matter.
	callTime = 5 * time.Millisecond
	// longCallTime takes its place where every call costs tens of ms.
	longCallTime = 100 * time.Millisecond
	// largestCall bounds a call whose frames take no time.
	largestCall = 1 << 20
	// spread is the least time between two calls at a Rate: a call takes
	// about 10 µs by itself.
	spread = 50 * time.Microsecond
	// makeUp is how far behind its Rate a worker may be and still catch up,
	// and catchUp how many times faster than Rate that is done.
	makeUp  = 20 * time.Millisecond
	catchUp = 1.25
)

// liveRun is a run under way.
type liveRun struct {
	*Live
	ctx      context.Context
	prog     *ebpf.Program
	deadline time.Time // of ctx
	batch    int64
	perCall  int64 // frames a call, at most
	paced    int64 // frames a call at Rate, or 0

	held    bool
	notHeld error

	left    atomic.Int64 // frames that no worker has taken
	stopped atomic.Bool
	start   time.Time
	workers []*liveWorker
}

func newLiveRun(l *Live, ctx context.Context, prog *ebpf.Program) *liveRun {
	r := &liveRun{Live: l, ctx: ctx, prog: prog, batch: int64(l.batch()), perCall: largestCall}
	r.deadline, _ = ctx.Deadline()
	if l.PerCall > 0 {
		r.perCall = int64(l.PerCall)
	}
	if l.Rate > 0 {
		each := spread.Seconds() * float64(l.Rate) / float64(max(1, len(l.CPUs)))
		r.paced = min(max(1, int64(each)), r.batch, r.perCall)
	}
	r.left.Store(l.Frames)
	if l.Frames == 0 {
		r.left.Store(math.MaxInt64)
	}
	cpus := l.CPUs
	if len(cpus) == 0 {
		cpus = []int{-1}
	}
	for _, cpu := range cpus {
		r.workers = append(r.workers, &liveWorker{run: r, cpu: cpu})
	}
	return r
}

// needsHold is whether calls of more than one frame are coming, and more than
// one of them, or one that may have to end early.
func (r *liveRun) needsHold() bool {
	if r.perCall == 1 || r.paced == 1 || r.Frames == 1 {
		return false
	}
	first := r.firstCall()
	if r.PerCall > 0 {
		first = r.perCall
	}
	return r.Frames == 0 || r.Frames > first || r.ctx.Done() != nil || len(r.workers) > 1
}

// firstCall is how many frames a worker begins with, to learn what they cost.
func (r *liveRun) firstCall() int64 { return 4 * r.batch }

// run does it all, and leaves nothing behind, even if Progress panics.
func (r *liveRun) run() (LiveStats, error) {
	if r.Held != nil {
		r.held = true
	} else if r.needsHold() {
		held, err := Hold(r.prog)
		if err == nil {
			defer held.Close()
		}
		r.held, r.notHeld = err == nil, err
		if !r.held && r.paced > 1 {
			r.paced = 1 // a longer call could not keep the time
		}
	}
	ns, err := openNetNS(r.NetNS)
	if err != nil {
		return r.stats(0), err
	}
	defer ns.close()

	ready := make(chan error, len(r.workers))
	start := make(chan struct{})
	var done sync.WaitGroup
	for _, w := range r.workers {
		done.Add(1)
		go func() {
			defer done.Done()
			onThread(func() bool { return w.work(ns, ready, start) })
		}()
	}
	for range r.workers {
		err = errors.Join(err, <-ready)
	}
	if err != nil {
		r.stopped.Store(true)
	}
	r.start = time.Now()
	close(start)
	r.watch(&done)
	return r.finish(err)
}

// watch waits for the workers, and calls Progress meanwhile. If that does not
// return, the workers are stopped all the same.
func (r *liveRun) watch(done *sync.WaitGroup) {
	defer done.Wait()
	defer r.stopped.Store(true)
	all := make(chan struct{})
	go func() {
		done.Wait()
		close(all)
	}()
	var tick <-chan time.Time
	if r.Progress != nil {
		interval := r.ProgressInterval
		if interval == 0 {
			interval = time.Second
		}
		t := time.NewTicker(interval)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-all:
			return
		case <-tick:
			r.Progress(r.stats(time.Since(r.start)))
		}
	}
}

// finish sums up. err is what kept the workers from beginning.
func (r *liveRun) finish(err error) (LiveStats, error) {
	var last time.Duration
	for _, w := range r.workers {
		last = max(last, time.Duration(w.wall.Load()))
	}
	stats := r.stats(last)
	if err != nil {
		return stats, firstError(err)
	}
	for _, w := range r.workers {
		var e *Error
		if errors.As(w.err, &e) {
			if stats.Frames > 0 {
				e.Ran = RanYes
			}
			return stats, e
		}
	}
	if r.Frames > 0 && r.left.Load() > 0 {
		why := r.ctx.Err()
		if why == nil { // the workers look at the clock, and may be ahead of the context
			why = context.DeadlineExceeded
		} else if cause := context.Cause(r.ctx); cause != why {
			why = fmt.Errorf("%w: %w", why, cause)
		}
		return stats, &Error{Request: "Live", Field: "Frames", Value: strconv.FormatInt(r.Frames, 10),
			Rule: fmt.Sprintf("the context ended after %d", stats.Frames), Ran: ranIf(stats.Frames > 0), Err: why}
	}
	return stats, nil
}

func ranIf(ran bool) Ran {
	if ran {
		return RanYes
	}
	return RanNo
}

// firstError is the first of joined errors.
func firstError(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 0 {
		return firstError(all.Unwrap()[0])
	}
	return err
}

// stats adds up what the workers have done.
func (r *liveRun) stats(wall time.Duration) LiveStats {
	s := LiveStats{Wall: wall, Held: r.held, NotHeld: r.notHeld}
	var nanos float64
	for _, w := range r.workers {
		ws := w.stats()
		s.Frames += ws.Frames
		s.Uncertain += ws.Uncertain
		s.Missed += ws.Missed
		s.Batches += ws.Batches
		s.Calls += ws.Calls
		nanos += float64(ws.PerFrame) * float64(ws.Frames)
		s.Workers = append(s.Workers, ws)
	}
	if s.Frames > 0 {
		s.PerFrame = time.Duration(nanos / float64(s.Frames))
	}
	switch {
	case r.Rate > 0 && s.Missed <= s.Frames/100:
		s.LimitedBy = LimitRate
	case s.NotHeld != nil:
		s.LimitedBy = LimitDispatcher
	}
	return s
}

// liveWorker is one thread's part of a run. Counters are written by the thread
// and read by Progress.
type liveWorker struct {
	run *liveRun
	cpu int // or -1

	frames, uncertain, missed, batches, calls atomic.Int64
	nanos                                     atomic.Int64 // the kernel's time on frames
	wall                                      atomic.Int64 // from the start of the run to the last call's end
	err                                       error        // written before the thread is done
}

func (w *liveWorker) stats() LiveWorkerStats {
	s := LiveWorkerStats{
		CPU: w.cpu, Frames: w.frames.Load(), Uncertain: w.uncertain.Load(), Missed: w.missed.Load(),
		Batches: w.batches.Load(), Calls: w.calls.Load(), Wall: time.Duration(w.wall.Load()),
	}
	if s.Frames > 0 {
		s.PerFrame = time.Duration(w.nanos.Load() / s.Frames)
	}
	return s
}

// work is a worker's life, on a thread of its own. It reports whether the
// thread is as it was before.
func (w *liveWorker) work(ns netNS, ready chan<- error, start <-chan struct{}) bool {
	var t liveThread
	err := t.enter(ns, w.cpu)
	ready <- err
	<-start
	if err == nil {
		w.loop()
	}
	return t.leave()
}

// loop makes calls until there is nothing left to do. It checks for the end
// itself rather than wait to be told: on a busy machine that could take long.
func (w *liveWorker) loop() {
	r := w.run
	data, ctx := r.input()
	calls := callSizer{run: r, next: r.firstCall()}
	if r.PerCall > 0 {
		calls.next = r.perCall
	}
	pace := newPace(r)
	for {
		want := calls.next
		if r.paced > 0 {
			want = pace.wait(w)
		}
		n := w.take(want)
		if n == 0 {
			if r.paced > 0 && r.left.Load() > 0 {
				pace.giveUp(w, float64(w.wall.Load()), r.paced)
			}
			return
		}
		a := r.attr(uint32(r.prog.FD()), data, &ctx)
		a.repeat = uint32(n)
		begin := time.Now()
		errno := a.probe()
		end := time.Now()
		w.count(&a, n, errno, end.Sub(r.start))
		if errno != 0 && errno != syscall.EINTR {
			r.stopped.Store(true)
			c := newCall("Live", liveNames, r.prog, &a)
			copy(c.ctx[:], view(&ctx))
			w.err = explain(errno, c)
			return
		}
		if r.paced > 0 {
			pace.ran(n, end.Sub(r.start), end.Sub(begin))
		} else if errno == 0 {
			calls.learn(n, end.Sub(begin), time.Duration(a.duration)*time.Duration(n))
		}
	}
}

// ended is whether no further frame may leave.
func (r *liveRun) ended() bool {
	return r.stopped.Load() || r.ctx.Err() != nil || !r.deadline.IsZero() && !time.Now().Before(r.deadline)
}

// take is the worker's next share of the frames, at most n, or 0 at the end.
func (w *liveWorker) take(n int64) int64 {
	for !w.run.ended() {
		left := w.run.left.Load()
		if left == 0 {
			return 0
		}
		if n := min(n, left); w.run.left.CompareAndSwap(left, left-n) {
			return n
		}
	}
	return 0
}

// count books a call of n frames.
func (w *liveWorker) count(a *attr, n int64, errno syscall.Errno, wall time.Duration) {
	batch := w.run.batch
	ran, doubtful := n, int64(0)
	switch errno {
	case 0:
		w.nanos.Add(int64(a.duration) * n)
	case syscall.EINTR: // after a batch or more, but before the last
		ran = min(batch, n)
		doubtful = n - ran
	case syscall.ENOMEM, syscall.EFAULT, syscall.ENOSPC:
		ran, doubtful = 0, n
	default: // refused before anything ran, if it is an errno
		ran = 0
		if errno > maxErrno {
			doubtful = n
		}
	}
	w.calls.Add(1)
	w.frames.Add(ran)
	w.uncertain.Add(doubtful)
	w.batches.Add((ran + batch - 1) / batch)
	w.wall.Store(int64(wall))
}

// callSizer finds how many frames make a call of the right length.
type callSizer struct {
	run  *liveRun
	next int64
}

// learn looks at a call of n frames that took so long, and its frames so much
// of that.
func (c *callSizer) learn(n int64, took, frames time.Duration) {
	if c.run.PerCall > 0 {
		return
	}
	aim := callTime
	if !c.run.held {
		aim, took = longCallTime, frames
	}
	fits := int64(largestCall)
	if took > 0 {
		fits = int64(float64(n) * float64(aim) / float64(took))
	}
	fits = min(fits, 4*n, largestCall)
	c.next = max(fits/c.run.batch, 1) * c.run.batch
}

// start runs the request, which is known to be legal.
func (l *Live) start(ctx context.Context, prog *ebpf.Program) (LiveStats, error) {
	return newLiveRun(l, ctx, prog).run()
}
