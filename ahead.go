package progrun

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun/internal/carrier"
)

const (
	groupSize   = 32 // inputs in a group
	groupsAhead = 4  // groups for each worker: one that it runs, and some that wait
)

// ahead runs the inputs of a batch in groups, ahead of the one that was yielded
// last. The caller's goroutine pulls inputs, queues them in groups, and yields the
// oldest group when there is no room for another. It is one of the workers: instead
// of waiting for a group, it runs those that are queued.
type ahead[Q Request[Q, R], R any] struct {
	prog  *ebpf.Program
	opts  BatchOptions
	yield func(BatchResult[Q, R], error) bool

	carrying bool // whether the groups are carried
	filling  *group[Q, R]
	waiting  []*group[Q, R] // queued groups, in the order of their inputs
	spare    *group[Q, R]   // a group that was yielded, to be used again
	size     int            // number of inputs of a group that is not carried
	most     int            // how many of these groups may wait
	carriage *carriage[Q, R]

	work    chan *group[Q, R]
	stopped atomic.Bool
	workers sync.WaitGroup
	started int // number of workers, with the caller
	caller  *worker[Q, R]
	home    netNS
}

// group is a group of consecutive inputs and their results. Its memory is reused for
// later inputs.
type group[Q Request[Q, R], R any] struct {
	size   int            // number of inputs, at most
	inputs []input[Q, R]  // those that run by themselves
	cargo  *cargo         // the others, or nil if there can be none
	kind   *carried[Q, R] // how to load the cargo
	done   chan struct{}
}

type input[Q Request[Q, R], R any] struct {
	BatchResult[Q, R]
	err       error
	data, out []byte // memory of the request and of the output
}

func newGroup[Q Request[Q, R], R any](size int) *group[Q, R] {
	return &group[Q, R]{size: size, done: make(chan struct{}, 1)}
}

func runAhead[Q Request[Q, R], R any](prog *ebpf.Program, opts BatchOptions, c *carriage[Q, R], yield func(BatchResult[Q, R], error) bool) *ahead[Q, R] {
	a := &ahead[Q, R]{
		prog: prog, opts: opts, yield: yield, carriage: c,
		size: groupSize, most: groupsAhead * opts.Workers,
		started: 1, home: currentNetNS(),
	}
	if opts.Ahead > 0 {
		a.size = min(a.size, opts.Ahead)
		a.most = min(a.most, opts.Ahead/a.size)
	}
	a.work = make(chan *group[Q, R], max(a.most, c.most(), 1))
	a.caller = newWorker(a, 0)
	return a
}

// add adds an input. It reports whether to go on.
func (a *ahead[Q, R]) add(n int, req *Q, carry bool) bool {
	if carry != a.carrying {
		if !a.finish() { // both kinds together would be too far ahead
			return false
		}
		a.carrying = carry
	}
	if a.filling == nil {
		a.filling = a.freeGroup()
	}
	a.filling.add(n, req, a.opts.NoCopy)
	return !a.filling.full() || a.handOut()
}

// add adds an input, with a copy of what it points to unless noCopy is set. The group must
// have room for it.
func (g *group[Q, R]) add(n int, req *Q, noCopy bool) {
	if g.cargo != nil {
		g.cargo.first = n - len(g.cargo.places)
		if g.kind.load(req, g.cargo) {
			return
		}
	}
	in := g.another()
	in.Input, in.Request = n, *req
	if !noCopy {
		in.Request = (*req).keep(&in.data)
	}
	if g.cargo != nil {
		g.cargo.places = append(g.cargo.places, g.last())
	}
}

// another returns another input that runs by itself.
func (g *group[Q, R]) another() *input[Q, R] {
	g.inputs = slices.Grow(g.inputs, 1)[:len(g.inputs)+1]
	in := &g.inputs[len(g.inputs)-1]
	*in = input[Q, R]{data: in.data, out: in.out}
	return in
}

// last returns the place of the last input that runs by itself.
func (g *group[Q, R]) last() place { return place{alone: true, at: int32(len(g.inputs) - 1)} }

// len returns the number of inputs.
func (g *group[Q, R]) len() int {
	if g.cargo != nil {
		return len(g.cargo.places)
	}
	return len(g.inputs)
}

// byItself returns input i if it runs by itself, and nil if it is carried.
func (g *group[Q, R]) byItself(i int) *input[Q, R] {
	if g.cargo == nil {
		return &g.inputs[i]
	}
	if p := &g.cargo.places[i]; p.alone {
		return &g.inputs[p.at]
	}
	return nil
}

// full reports whether the group takes no more inputs. With cargo, it takes few that run
// by themselves, each of which may need as much memory as the largest packet.
func (g *group[Q, R]) full() bool {
	return g.len() == g.size || g.cargo != nil && (g.cargo.bytes >= cargoBytes || len(g.inputs) == groupSize)
}

// freeGroup returns an empty group. To be carried, the carriage must have one.
func (a *ahead[Q, R]) freeGroup() (g *group[Q, R]) {
	if a.carrying {
		return a.carriage.freeGroup()
	}
	if g, a.spare = a.spare, nil; g == nil {
		g = newGroup[Q, R](a.size)
	}
	return g
}

// handOut queues the group that was filled. If as many groups wait as may run ahead,
// it yields the oldest. It reports whether to go on.
func (a *ahead[Q, R]) handOut() (goOn bool) {
	a.queue()
	a.start()
	if a.carrying && a.carriage.hasFree() || !a.carrying && len(a.waiting) < a.most {
		return true
	}
	return a.yieldOldest()
}

// queue puts the group that was filled into the queue.
func (a *ahead[Q, R]) queue() {
	a.work <- a.filling
	a.waiting = append(a.waiting, a.filling)
	a.filling = nil
}

// finish yields all that was added. It reports whether to go on.
func (a *ahead[Q, R]) finish() (goOn bool) {
	if a.filling != nil {
		a.queue()
	}
	for len(a.waiting) > 0 {
		if !a.yieldOldest() {
			return false
		}
	}
	return true
}

// yieldOldest yields the group that has waited longest, and frees it. It reports
// whether to go on.
func (a *ahead[Q, R]) yieldOldest() (goOn bool) {
	g := a.waiting[0]
	a.waiting = append(a.waiting[:0], a.waiting[1:]...)
	a.await(g)
	if !a.yieldGroup(g) {
		return false
	}
	g.inputs = g.inputs[:0]
	if g.cargo != nil {
		a.carriage.giveBack(g)
	} else {
		a.spare = g
	}
	return true
}

// await returns when a group is done. Until then it runs what is queued.
func (a *ahead[Q, R]) await(g *group[Q, R]) {
	for {
		select {
		case <-g.done:
			return
		default:
		}
		select {
		case <-g.done:
			return
		case queued := <-a.work:
			a.caller.run(queued)
		}
	}
}

// yieldGroup yields the results of a group. It reports whether to go on.
func (a *ahead[Q, R]) yieldGroup(g *group[Q, R]) bool {
	for i := range g.len() {
		if g.cargo != nil && i%settledAtOnce == 0 {
			a.carriage.settle(g.cargo, i)
		}
		in := g.byItself(i)
		if in == nil {
			in = &a.carriage.settled[i%settledAtOnce]
		}
		err := in.err
		if err != nil {
			err = numbered(err, in.Input)
		}
		if !a.yield(in.BatchResult, err) || err != nil && !a.opts.KeepGoing {
			return false
		}
	}
	return true
}

// start starts another worker, unless there are enough. The worker runs the groups of
// the queue, in the network namespace of the caller's thread. If it cannot follow the
// thread there, it leaves the work to others.
func (a *ahead[Q, R]) start() {
	if a.started >= a.opts.Workers {
		return
	}
	w := newWorker(a, a.started)
	a.started++
	a.workers.Go(func() {
		a.home.run(func(err error) {
			if err != nil {
				return
			}
			for g := range a.work {
				w.run(g)
				runtime.Gosched() // lets the caller go on, which gets no other turn while there is work
			}
		})
	})
}

// stop stops the workers and waits for them. A worker finishes the run that it is in.
func (a *ahead[Q, R]) stop() {
	a.stopped.Store(true)
	close(a.work)
	a.workers.Wait()
	a.home.close()
}

// worker runs groups of inputs. Workers have numbers from 0, which is the caller.
type worker[Q Request[Q, R], R any] struct {
	*ahead[Q, R]
	number  int
	lent    Q              // the request that runs by itself, with memory for its output
	lentOut *[]byte        // the Out of lent
	chunk   *carrier.Chunk // where it carries packets; nil before, and if there are too many workers
	empty   chan *haul     // hauls that have been yielded, some twice a worker's share at most
}

func newWorker[Q Request[Q, R], R any](a *ahead[Q, R], number int) *worker[Q, R] {
	share := a.carriage.most() / max(1, a.opts.Workers)
	w := &worker[Q, R]{ahead: a, number: number, empty: make(chan *haul, 2*share+2)}
	w.lentOut = w.lent.outIn(&w.lent)
	return w
}

// run runs the inputs of a group, until the batch is stopped.
func (w *worker[Q, R]) run(g *group[Q, R]) {
	if g.cargo != nil {
		w.takeOn(g.cargo)
	}
	for i := 0; i < g.len() && !w.stopped.Load(); {
		if in := g.byItself(i); in != nil {
			w.runOne(in)
			i++
		} else {
			i = w.carry(g, i)
		}
	}
	g.done <- struct{}{}
}

// runOne runs an input by itself.
func (w *worker[Q, R]) runOne(in *input[Q, R]) {
	w.lent = in.Request
	if room := in.Request.room(); room > 0 {
		in.out = grow(in.out, room, false)
		*w.lentOut = in.out
	}
	in.Result, in.err = w.lent.Run(w.prog)
}
