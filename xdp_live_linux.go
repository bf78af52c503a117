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

	"github.com/progrun/progrun/internal/carrier"
)

// openNetNS opens the namespace of a request. 0 means that of the calling thread.
func openNetNS(fd int) (netNS, error) {
	if fd == 0 {
		return currentNetNS(), nil
	}
	ns, err := netNSOf(fd)
	if err != nil {
		return ns, &Error{Request: "Live", Field: "NetNS", Value: strconv.Itoa(fd), Rule: "no such file is open", Err: errnoOf(err)}
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return ns, refuse("Live", "NetNS", strconv.Itoa(fd), "not a network namespace", syscall.EINVAL)
	}
	return ns, nil
}

// becomeWorker prepares the calling thread for a worker. It does not restore the
// thread, which ends with the run.
func (r *liveRun) becomeWorker(ns netNS, cpu int) error {
	if err := ns.enter(); err != nil {
		e := &Error{Request: "Live", Rule: "cannot move a thread into the network namespace", Err: err}
		if r.NetNS != 0 {
			e.Field, e.Value = "NetNS", strconv.Itoa(r.NetNS)
		}
		if errors.Is(err, unix.EPERM) {
			e.Rule = cannotMove
		}
		return e
	}
	if cpu >= 0 {
		if err := pin(cpu); err != nil {
			return err
		}
	}
	if errno := setSignals(allSignals(), nil); errno != 0 {
		return &Error{Request: "Live", Rule: "cannot block the signals of a thread", Err: errno}
	}
	// The default slack of 50 µs is a long time between frames.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return nil
}

func pin(cpu int) error {
	var one, now unix.CPUSet
	one.Set(cpu)
	err := unix.SchedSetaffinity(0, &one)
	if err == nil {
		err = unix.SchedGetaffinity(0, &now)
	}
	if err != nil || now != one || cpu >= maxCPUs {
		return offlineCPU(cpu)
	}
	return nil
}

// maxCPUs is how many CPUs a CPUSet can hold.
const maxCPUs = len(unix.CPUSet{}) * strconv.IntSize

func offlineCPU(cpu int) error {
	return refuse("Live", "CPUs", strconv.Itoa(cpu), noSuchCPU+", or this process may not use it", unix.EINVAL)
}

const (
	// spread is the least time between two calls at a Rate. A call itself takes
	// about 10 µs.
	spread = 50 * time.Microsecond
	// spreadUnheld replaces spread if only calls of one frame are quick.
	spreadUnheld = 20 * time.Microsecond
)

// liveRun is a run under way.
type liveRun struct {
	*Live
	ctx      context.Context
	prog     *ebpf.Program
	deadline time.Time // of ctx
	batch    int64
	perCall  int64 // largest number of frames in a call

	hold    *Hold // the caller's or the run's own, or nil
	holdErr error // why a hold that is needed could not be made

	carrier *liveCarrier // nil if the program runs by itself

	left    atomic.Int64 // frames that no worker has taken
	stopped atomic.Bool
	start   time.Time
	workers []*liveWorker
}

func newLiveRun(l *Live, ctx context.Context, prog *ebpf.Program) *liveRun {
	r := &liveRun{Live: l, ctx: ctx, prog: prog, batch: int64(l.batch()), perCall: math.MaxUint32}
	r.deadline, _ = ctx.Deadline()
	if l.PerCall > 0 {
		r.perCall = int64(l.PerCall)
	}
	r.left.Store(r.frames())
	cpus := l.CPUs
	if len(cpus) == 0 {
		cpus = []int{-1}
	}
	for _, cpu := range cpus {
		r.workers = append(r.workers, &liveWorker{run: r, cpu: cpu})
	}
	return r
}

// interval returns the time between two frames of a worker at Rate, in ns.
func (r *liveRun) interval() float64 { return 1e9 * float64(len(r.workers)) / float64(r.Rate) }

// perPacedCall returns how many frames a call runs at Rate if the worker is on time.
func (r *liveRun) perPacedCall() int64 {
	apart := spread
	if r.holdErr != nil {
		apart = spreadUnheld
	}
	return min(max(1, int64(float64(apart)/r.interval())), r.perCall)
}

// needsHold reports whether the run makes calls of more than one frame, and either
// several of them, or one that may have to end early.
func (r *liveRun) needsHold() bool {
	if r.perCall == 1 || r.Frames == 1 || r.Rate > 0 && r.perPacedCall() == 1 {
		return false
	}
	if r.Times != nil {
		return true
	}
	first := firstBatches * r.batch
	if r.PerCall > 0 {
		first = r.perCall
	}
	return r.Frames == 0 || r.Frames > first || r.ctx.Done() != nil || len(r.workers) > 1
}

// takeHold decides what holds the program, and returns a function that releases it. It
// does not rely on a hold that may have found the dispatcher full. Another one costs
// little even if it is not needed.
func (r *liveRun) takeHold() (release func() error) {
	if r.carrier == nil { // a carrier is another program
		r.hold = r.Hold
	}
	if r.hold == nil && !r.needsHold() || r.hold != nil && r.hold.entered {
		return func() error { return nil }
	}
	r.hold, r.holdErr = NewHold(r.prog)
	return r.hold.Close
}

// run makes the whole run. It cleans up even if Progress panics.
func (r *liveRun) run() (LiveStats, error) {
	release, err := r.carry()
	if err != nil {
		return LiveStats{}, err
	}
	defer release()
	defer r.takeHold()()
	ns, err := openNetNS(r.NetNS)
	if err != nil {
		return r.stats(0), err
	}
	defer ns.close()

	ready := make(chan error, len(r.workers))
	start := make(chan struct{})
	var done sync.WaitGroup
	for _, w := range r.workers {
		done.Go(func() {
			onThread(func() bool {
				w.work(ns, ready, start)
				return false
			})
		})
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

// watch waits for the workers, and calls Progress meanwhile. It stops the workers even
// if Progress does not return.
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

// finish returns the stats and the error of the run. err says why the workers could not
// start.
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

// firstError returns the first of joined errors.
func firstError(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 0 {
		return firstError(all.Unwrap()[0])
	}
	return err
}

// stats adds up what the workers have done.
func (r *liveRun) stats(wall time.Duration) LiveStats {
	var all LiveWorkerStats
	var waited time.Duration
	s := LiveStats{Held: r.hold != nil, HoldErr: r.holdErr}
	for _, w := range r.workers {
		ws := w.stats()
		all.add(ws)
		waited += time.Duration(w.waited.Load())
		s.Workers = append(s.Workers, ws)
	}
	s.setSums(all)
	s.Wall = wall
	switch {
	case r.Rate > 0 && s.Missed <= s.Frames/100, r.Times != nil && r.workers[0].late.Load() <= int64(makeUp):
		s.LimitedBy = LimitRate
	case waited > all.Wall/20, r.Rate > 0 && r.holdErr != nil:
		s.LimitedBy = LimitDispatcher
	}
	r.doubtHold(&s)
	return s
}

// doubtHold corrects the stats if the hold was closed during the run, or turns out to
// have found the dispatcher full.
func (r *liveRun) doubtHold(s *LiveStats) {
	if r.hold == nil {
		return
	}
	if s.HoldErr = r.hold.closed(); s.HoldErr == nil && !r.hold.entered && s.LimitedBy == LimitDispatcher {
		s.HoldErr = &Error{Request: "Hold", Rule: "the XDP dispatcher was full, with 48 programs, when the hold was made", Err: unix.ENOSPC}
	}
	s.Held = s.HoldErr == nil
}

// liveWorker is one thread's part of a run. The thread writes the counters, and
// Progress reads them.
type liveWorker struct {
	run *liveRun
	cpu int // or -1

	frames, uncertain, missed, batches, calls atomic.Int64
	bytes                                     atomic.Int64 // size of the frames
	nanos                                     atomic.Int64 // the kernel's time on frames
	waited                                    atomic.Int64 // ns that calls waited for the dispatcher
	wall                                      atomic.Int64 // from the start of the run to the last call's end
	late                                      atomic.Int64 // ns by which the last call was behind Times
	sleeps                                    int64        // last result of sleeps
	slot                                      carrier.Slot // set if there is a carrier
	ran                                       int64        // frames that have run, by the slot
	cut                                       int64        // frames that were taken, but that no call has reached yet
	next                                      int64        // number of the next frame
	err                                       error        // written before the thread is done
}

func (w *liveWorker) stats() LiveWorkerStats {
	s := LiveWorkerStats{
		CPU: w.cpu, Frames: w.frames.Load(), Uncertain: w.uncertain.Load(), Missed: w.missed.Load(),
		Batches: w.batches.Load(), Calls: w.calls.Load(), Wall: time.Duration(w.wall.Load()),
		Bytes: w.bytes.Load(), Verdicts: w.verdicts(),
	}
	if w.run.carrier != nil {
		s.Frames = s.Verdicts.Total()
	}
	if s.Frames > 0 {
		s.PerFrame = time.Duration(w.nanos.Load() / s.Frames)
	}
	return s
}

// work does all that a worker does, on a thread of its own.
func (w *liveWorker) work(ns netNS, ready chan<- error, start <-chan struct{}) {
	err := w.run.becomeWorker(ns, w.cpu)
	ready <- err
	<-start
	if err == nil {
		w.loop()
	}
}

// loop makes calls until the run ends. It checks for the end itself, because on a busy
// machine it could take long to be told.
func (w *liveWorker) loop() {
	r := w.run
	call := r.call(r.prog)
	if len(r.Packets) > 0 {
		call.setFrame(nil, r.carrier.Frame(), "Packets")
	}
	calls := newCallSizer(r)
	pace := newPacer(w)
	w.sleeps = sleeps()
	for {
		want := calls.next()
		if pace != nil {
			want = pace.wait(want)
		}
		n := w.take(want)
		if n == 0 {
			if pace != nil && r.left.Load() > 0 {
				pace.over()
			}
			return
		}
		a := call.attr(uint32(n))
		begin := time.Now()
		errno := a.probe()
		end := time.Now()
		ran := w.count(&a, n, errno, end.Sub(r.start))
		if errno != 0 && errno != syscall.EINTR {
			r.stopped.Store(true)
			w.err = call.explain(errno, &a)
			return
		}
		if errno == 0 && w.cut > 0 {
			r.stopped.Store(true)
			w.err = &Error{Request: "Live", Field: "Packets", Rule: "the carrier could not write a frame", Err: syscall.EINVAL}
			return
		}
		c := timedCall{frames: ran, took: end.Sub(begin), running: time.Duration(a.duration) * time.Duration(n)}
		c.waited = w.waitedIn(c.took - c.running)
		if errno == 0 {
			calls.learn(c)
		}
		if pace != nil {
			pace.ran(c, end.Sub(r.start))
		}
	}
}

// ended reports whether no more frames may leave.
func (r *liveRun) ended() bool {
	return r.stopped.Load() || r.ctx.Err() != nil || !r.deadline.IsZero() && !time.Now().Before(r.deadline)
}

// take returns the worker's next share of the frames, at most n, or 0 at the end.
func (w *liveWorker) take(n int64) int64 {
	for !w.run.ended() {
		if w.cut > 0 {
			n = min(n, w.cut)
			w.cut -= n
			return n
		}
		left := w.run.left.Load()
		if left == 0 {
			return 0
		}
		if n := min(n, left); w.run.left.CompareAndSwap(left, left-n) {
			w.seek(w.run.frames() - left)
			return n
		}
	}
	w.run.left.Add(w.cut)
	return 0
}

// seek makes frame n of the run the worker's next one.
func (w *liveWorker) seek(n int64) {
	w.next = n
	if packets := int64(len(w.run.Packets)); packets > 0 {
		w.slot.Seek(uint32(n % packets))
	}
}

// count adds a call of n frames to the counters, and returns how many of them ran. The
// kernel writes back the size of the frame once all have run. If the call failed
// nevertheless, something else replaced its result.
func (w *liveWorker) count(a *attr, n int64, errno syscall.Errno, wall time.Duration) (ran int64) {
	batch := w.run.batch
	doubtful := int64(0)
	ran = n
	switch {
	case w.run.carrier != nil: // the carrier counts exactly
		ran = w.carried(n)
		w.nanos.Add(int64(a.duration) * n)
	case errno == 0 || a.dataSizeOut != 0: // all frames have run
		w.nanos.Add(int64(a.duration) * n)
	case errno == syscall.EINTR: // at least one batch has run, but not the last
		ran = min(batch, n)
		doubtful = n - ran
	case errno == syscall.ENOMEM, errno == syscall.EFAULT, errno == syscall.ENOSPC:
		ran, doubtful = 0, n
	default: // the kernel refused the call, and nothing ran
		ran = 0
	}
	w.calls.Add(1)
	w.frames.Add(ran)
	w.bytes.Add(w.run.bytes(w.next, ran))
	w.next += ran
	w.uncertain.Add(doubtful)
	w.batches.Add((ran + batch - 1) / batch)
	w.wall.Store(int64(wall))
	return ran
}

// frames returns how many frames the run has.
func (r *liveRun) frames() int64 {
	if r.Frames == 0 {
		return math.MaxInt64
	}
	return r.Frames
}

// bytes returns how many bytes n frames have, from frame first on.
func (r *liveRun) bytes(first, n int64) int64 {
	if len(r.Packets) == 0 {
		return n * int64(len(r.Packet))
	}
	return r.carrier.bytesBefore(first+n) - r.carrier.bytesBefore(first)
}

// waitedIn returns how long a call waited for the XDP dispatcher. beside is what the
// call took beyond its frames. A thread that waits for the dispatcher sleeps, whereas
// one that only had to leave its CPU to another does not.
func (w *liveWorker) waitedIn(beside time.Duration) time.Duration {
	if beside < dispatcherWait {
		return 0
	}
	before := w.sleeps
	if w.sleeps = sleeps(); w.sleeps == before {
		return 0
	}
	w.waited.Add(int64(beside))
	return beside
}

// sleeps returns how often the calling thread has gone to sleep.
func sleeps() int64 {
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &usage) // cannot fail
	return int64(usage.Nvcsw)
}

// timedCall is a call that was made.
type timedCall struct {
	frames  int64
	took    time.Duration
	running time.Duration // time of the frames, by the kernel's clock
	waited  time.Duration // time of waiting for the dispatcher
}

const (
	// callTime is the time that a call should take. It is short enough that a run
	// ends within 10 ms of its context even if the machine is suddenly half as fast.
	// It is long enough that the fixed cost of a call, some 50 µs with the first use
	// of its pages, does not matter.
	callTime = 5 * time.Millisecond
	// longestCall is the longest time that a call should take if calls wait for the
	// dispatcher.
	longestCall = 250 * time.Millisecond
	// firstBatches is how many batches the first call of a worker has.
	firstBatches = 4
	// firstUnheld is how many frames the first call that waits may have.
	firstUnheld = 1 << 20
)

// callSizer finds how many frames make a call of the right length.
type callSizer struct {
	run    *liveRun
	size   int64
	each   float64       // time of a frame in ns, or 0 if unknown
	last   time.Duration // how long the last call waited for the dispatcher
	waited time.Duration // how long recent calls waited, not counting single outliers
	single int           // calls of one frame to come
}

func newCallSizer(r *liveRun) *callSizer {
	switch {
	case r.PerCall > 0:
		return &callSizer{run: r, size: r.perCall}
	case r.hold == nil:
		return &callSizer{run: r, size: 1, single: 4, each: math.Inf(1), last: longestCall, waited: longestCall}
	}
	return &callSizer{run: r, size: firstBatches * r.batch}
}

// next returns how many frames the next call should have, fewer if the context
// is about to end.
func (c *callSizer) next() int64 {
	if c.run.deadline.IsZero() || c.run.PerCall > 0 || c.each == 0 {
		return c.size
	}
	return min(c.size, max(c.run.batch, int64(float64(time.Until(c.run.deadline))/c.each)))
}

func (c *callSizer) learn(call timedCall) {
	if c.run.PerCall > 0 {
		return
	}
	if c.single > 0 && call.frames == 1 {
		c.learnFromSingle(call)
		return
	}
	c.each = float64(call.took-call.waited) / float64(call.frames)
	c.waited = max(min(call.waited, c.last), c.waited/2)
	c.last = call.waited
	aim := min(max(callTime, 10*c.waited), longestCall)
	c.size = max(int64(float64(aim)/c.each)/c.run.batch, 1) * c.run.batch
}

// learnFromSingle learns from calls of one frame, which do not wait, before the first
// call that waits. Even with the simplest program, a single frame takes about half as
// long as the rest of its call. So only the time beyond that counts.
func (c *callSizer) learnFromSingle(call timedCall) {
	c.each = min(c.each, max(1, float64(call.running-(call.took-call.running)/2)))
	if c.single--; c.single == 0 {
		c.size = min(firstUnheld, int64(float64(longestCall)/c.each))
	}
}

// start runs the request, which is known to be legal.
func (l *Live) start(ctx context.Context, prog *ebpf.Program) (LiveStats, error) {
	return newLiveRun(l, ctx, prog).run()
}
