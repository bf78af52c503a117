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
)

// Live runs an XDP program on live frames: the kernel does with every frame
// what the program says. It is a traffic generator whose packets are made and
// steered by BPF. Since Linux 5.18: see [HaveXDPLiveFrames].
//
// # What becomes of a frame
//
// The program sees the packet as if it had come in on Ifindex.
//
//   - XDP_DROP and XDP_ABORTED drop it, as does any unknown action.
//   - XDP_PASS hands it to the network stack as received on Ifindex. It is
//     delivered locally if its destination MAC address is that of Ifindex.
//     Counters of the interface do not move, and a generic XDP program that is
//     attached to it runs on the frame as well.
//   - XDP_TX sends it out of Ifindex.
//   - XDP_REDIRECT sends it where bpf_redirect or bpf_redirect_map say. A
//     devmap may lead to other network namespaces.
//
// Actions take effect at the end of a batch. No frame that is lost on the way
// fails the run. A driver that cannot send, a target that is down and a frame
// over the MTU show in the tracepoint xdp:xdp_redirect_err; a full ring in
// xdp:xdp_devmap_xmit (its field drops). Of a veth the peer must take XDP
// frames: it must be up and have a native XDP program, if only one that passes
// all, or GRO switched on. Else frames are lost without an error. Its ring holds
// 256 frames, and is emptied between batches at the earliest, so that a
// BatchSize near 256 can overrun it.
//
// # Pages
//
// Frames are in pages that the kernel fills with the packet once and then uses
// again as soon as they are free. So a program that edits the packet meets its
// own edits, and those of the stack, within one call of the kernel; across
// calls, the content of a page is that of the request again or of an earlier
// run, unspecified which. Programs must write every byte that they depend on.
//
// # Exactness
//
// No frame is sent twice. The worker threads block all signals, so that none
// can cut a call short; [LiveStats.Frames] is then what the kernel ran. What
// cannot be blocked, a stop and continuation of the process, a debugger, the
// freezer and [syscall.AllThreadsSyscall], can end a call of more than one
// batch early, and the kernel does not say how early. The frames in doubt are
// counted in [LiveStats.Uncertain], and are not sent again. With PerCall of at
// most BatchSize there are none.
//
// # Speed
//
// A call of more than one frame takes the program into the kernel's XDP
// dispatcher and out again, tens of milliseconds, unless the program is there
// already. So where more than one call is coming, the run keeps it there: see
// [Hold]. Where that fails (it takes CAP_SYS_ADMIN and CAP_NET_ADMIN), the run
// makes long calls instead, and [LiveStats.NotHeld] says why.
type Live struct {
	// Packet is the frame, from its Ethernet header on: at least 14 bytes, at
	// most 3,408 with pages of 4 KiB, 3,368 before Linux 6.3 (EINVAL).
	Packet []byte
	// Metadata is what lies in front of the packet; see [XDP]. The kernel
	// keeps it with frames that pass.
	Metadata []byte
	// Ifindex is the interface that frames come in on, in NetNS; 0 means
	// loopback. Its receive queue is always 0.
	Ifindex int
	// Frames is how many frames to run, over all CPUs. 0 means until the
	// context ends, which it then must be able to.
	Frames int64
	// BatchSize is how many frames the kernel handles at a time: 0 means 64,
	// and 256 is the most (E2BIG).
	BatchSize int
	// PerCall is how many frames one call of the kernel runs; the last call,
	// and those at a Rate, may run fewer. A call under way goes on when the
	// context ends. 0 leaves it to the run, which makes calls of a few
	// milliseconds.
	PerCall int
	// Rate is how many frames a second to run, over all CPUs, at most
	// 1,000,000,000; 0 means as many as can be. Frames are spread evenly, in
	// bursts of at most one batch. A worker that was held up catches up at
	// 1.25 times its rate, if it was for 20 ms or less; frames that are later
	// than that are not run but counted in [LiveStats.Missed].
	Rate int
	// CPUs are those to run on, with one worker thread for each. None means
	// one worker wherever the scheduler puts it.
	CPUs []int
	// NetNS is the file descriptor of the network namespace to run in. 0
	// means that of the calling thread.
	NetNS int
	// Held is a hold on the program that the caller has. Without one, the run
	// makes one for itself where it pays.
	Held *Held
	// Progress, if set, is called every ProgressInterval on the goroutine
	// that called Run, while the workers go on.
	Progress func(LiveStats)
	// ProgressInterval is one second if it is 0.
	ProgressInterval time.Duration
}

// LiveStats is what a run did, or has done so far.
type LiveStats struct {
	// Frames is how many frames the program ran on. If Uncertain is not 0, it
	// may have been up to that many more.
	Frames, Uncertain int64
	// Missed is how many frames Rate asked for, up to the last that ran, that
	// could not be run in time.
	Missed int64
	// Batches is how many batches the kernel made of them, in how many Calls.
	Batches, Calls int64
	// Wall is the time from the first frame to the last.
	Wall time.Duration
	// PerFrame is the kernel's mean time of one frame, on one CPU.
	PerFrame time.Duration
	// Held is whether the program was in the XDP dispatcher all along, and
	// NotHeld why it was not: nil if there was no need.
	Held    bool
	NotHeld error
	// LimitedBy is what kept the run from being faster.
	LimitedBy LiveLimit
	// Workers is the share of each worker, in the order of the request's CPUs.
	Workers []LiveWorkerStats
}

// LiveWorkerStats is the part of a [LiveStats] that one worker had.
type LiveWorkerStats struct {
	CPU               int // -1 if it was not bound to one
	Frames, Uncertain int64
	Missed            int64
	Batches, Calls    int64
	Wall              time.Duration
	PerFrame          time.Duration
}

// FramesPerSecond is the mean rate of the run.
func (s *LiveStats) FramesPerSecond() float64 { return perSecond(s.Frames, s.Wall) }

// FramesPerSecond is the mean rate of the worker.
func (s *LiveWorkerStats) FramesPerSecond() float64 { return perSecond(s.Frames, s.Wall) }

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// LiveLimit is what keeps a run of live frames from being faster.
type LiveLimit uint8

const (
	LimitCPU        LiveLimit = iota // the kernel's work on each frame
	LimitRate                        // the request's Rate, of which at most 1 % was missed
	LimitDispatcher                  // entering and leaving the XDP dispatcher, for want of a hold
)

// String gives "CPU", "rate" or "XDP dispatcher".
func (l LiveLimit) String() string {
	return name(int64(l), "LiveLimit", "CPU", "rate", "XDP dispatcher")
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

var liveNames = fieldNames{
	"data_size_in": "Packet", "batch_size": "BatchSize", "ctx_size_in": "Metadata", "ctx.data": "Metadata",
	"ctx.data_end": "Packet", "ctx.ingress_ifindex": "Ifindex",
}

// Run runs prog, of type [ebpf.XDP], on frames until Frames of them are done
// or ctx ends: the last frame leaves at most 10 ms after that, or, where the
// program could not be held, at the end of a call of some 100 ms. The end of
// ctx is an error only if Frames were asked for. The stats are valid beside any
// error.
//
// Before the first frame, the request is checked as a whole; an [Error] of
// that time has Ran at RanNo.
func (l Live) Run(ctx context.Context, prog *ebpf.Program) (LiveStats, error) {
	_, err := xdpTypes.descriptor("Live", prog)
	if err == nil {
		err = l.check(ctx)
	}
	if err != nil {
		return LiveStats{}, err
	}
	// A descriptor of its own: the caller may close prog in the middle, and
	// the number could then be that of another program.
	prog, err = prog.Clone()
	if err != nil {
		return LiveStats{}, &Error{Request: "Live", Rule: "cannot duplicate the program's descriptor", Err: err}
	}
	defer prog.Close()
	if err := l.askKernel(prog); err != nil {
		return LiveStats{}, err
	}
	return newLiveRun(&l, ctx, prog).run()
}

// check refuses what the kernel cannot be asked about.
func (l *Live) check(ctx context.Context) error {
	if ctx == nil {
		return refuse("Live", "", "", "the context is nil", syscall.EINVAL)
	}
	if err := atLeastEthernet("Live", len(l.Packet)); err != nil {
		return err
	}
	if len(l.Packet)+len(l.Metadata) > maxPacket {
		return refuse("Live", "Packet", size(len(l.Packet)), "a live frame fits in a page", syscall.EINVAL)
	}
	if l.BatchSize > maxBatchSize {
		return refuse("Live", "BatchSize", strconv.Itoa(l.BatchSize), overMaxBatchSize, syscall.E2BIG)
	}
	if l.Frames < 0 {
		return refuse("Live", "Frames", strconv.FormatInt(l.Frames, 10), "it cannot be negative", syscall.EINVAL)
	}
	if l.Frames == 0 && ctx.Done() == nil {
		return refuse("Live", "Frames", "0", "the run would never end, for its context cannot", syscall.EINVAL)
	}
	for _, f := range []struct {
		field string
		n     int
		most  uint32
	}{
		{"Ifindex", l.Ifindex, math.MaxInt32},
		{"BatchSize", l.BatchSize, maxBatchSize},
		{"PerCall", l.PerCall, math.MaxUint32},
		{"Rate", l.Rate, 1e9},
		{"NetNS", l.NetNS, math.MaxInt32},
	} {
		if err := inRange("Live", f.field, f.n, f.most); err != nil {
			return err
		}
	}
	if l.ProgressInterval < 0 {
		return refuse("Live", "ProgressInterval", l.ProgressInterval.String(), "it cannot be negative", syscall.EINVAL)
	}
	return l.checkCPUs()
}

func (l *Live) checkCPUs() error {
	seen := make(map[int]bool)
	for _, cpu := range l.CPUs {
		if err := inRange("Live", "CPUs", cpu, math.MaxInt32); err != nil {
			return err
		}
		if seen[cpu] {
			return refuse("Live", "CPUs", strconv.Itoa(cpu), "a CPU cannot have two workers", syscall.EINVAL)
		}
		seen[cpu] = true
	}
	return nil
}

// askKernel finds out whether a run would be legal, without one: a kernel that
// has live frames refuses an interface that cannot exist, and only that.
func (l *Live) askKernel(prog *ebpf.Program) error {
	if !haveXDPLiveFrames(prog) {
		return &Error{Request: "Live", Rule: "this kernel has no live frames (Linux 5.18)", Err: unsupported{syscall.EINVAL}}
	}
	if l.Held != nil && !l.Held.holds(prog) {
		return refuse("Live", "Held", "", "the hold is on another program", syscall.EINVAL)
	}
	data, ctx := l.input()
	ctx.ingressIfindex = noIfindex
	a := l.attr(uint32(prog.FD()), data, &ctx)
	errno := a.ask()
	if errno == syscall.ENODEV {
		return nil
	}
	c := callOf("Live", liveNames, prog, &a)
	copy(c.ctx[:], view(&ctx))
	return explain(errno, c)
}

// input is the data and context of every call.
func (l *Live) input() ([]byte, xdpMD) {
	data := make([]byte, 0, len(l.Metadata)+len(l.Packet))
	data = append(append(data, l.Metadata...), l.Packet...)
	return data, xdpMD{data: uint32(len(l.Metadata)), dataEnd: uint32(len(data)), ingressIfindex: uint32(l.Ifindex)}
}

func (l *Live) attr(fd uint32, data []byte, ctx *xdpMD) attr {
	a := on(fd, data, nil, view(ctx), nil)
	a.flags, a.batchSize = testXDPLiveFrames, uint32(l.batch())
	return a
}

func (l *Live) batch() int {
	if l.BatchSize == 0 {
		return defaultBatchSize
	}
	return l.BatchSize
}

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
		errno := a.ask()
		end := time.Now()
		w.count(&a, n, errno, end.Sub(r.start))
		if errno != 0 && errno != syscall.EINTR {
			r.stopped.Store(true)
			c := callOf("Live", liveNames, r.prog, &a)
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
	case syscall.ENOMEM, syscall.EFAULT, syscall.ENOSPC, replaced:
		ran, doubtful = 0, n
	default: // refused before anything ran
		ran = 0
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
