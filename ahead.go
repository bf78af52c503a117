package progrun

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

const (
	groupSize   = 32 // inputs in a group
	groupsAhead = 4  // groups for each worker: one that it runs, and some that wait
)

// ahead runs the inputs of a batch in groups, ahead of the one that was yielded
// last. The caller's goroutine pulls inputs, queues them in groups, and yields the
// oldest group when there is no room for another. Without workers it also runs the
// groups.
type ahead[Q Request[Q, R], R any] struct {
	prog  *ebpf.Program
	opts  BatchOptions
	yield func(BatchResult[Q, R], error) bool

	filling  *group[Q, R]
	waiting  []*group[Q, R] // queued groups, in the order of their inputs
	spare    *group[Q, R]   // a group that was yielded, to be used again
	size     int            // number of inputs of a group that is not carried
	most     int            // how many of these groups may wait
	carriage *carriage[Q, R]

	work    chan *group[Q, R]
	stopped atomic.Bool
	workers sync.WaitGroup
	started int
	home    netNS
	lost    atomic.Int32  // number of workers that could not follow the caller's thread
	nobody  chan struct{} // closed when all workers are lost
}

// group is a group of consecutive inputs and their results. Its memory is reused for
// later inputs.
type group[Q Request[Q, R], R any] struct {
	inputs  []input[Q, R]
	done    chan struct{}
	lent    Q            // the request that runs, with memory for its output
	lentOut *[]byte      // the Out of lent
	cargo   *cargo[Q, R] // what is carried of the group, or nil
}

type input[Q Request[Q, R], R any] struct {
	carried bool // the result is in the group's chunk
	at      int  // there
	err     error

	BatchResult[Q, R]
	data, out []byte
}

func newGroup[Q Request[Q, R], R any](size int) *group[Q, R] {
	g := &group[Q, R]{inputs: make([]input[Q, R], 0, size), done: make(chan struct{}, 1)}
	g.lentOut = g.lent.outIn(&g.lent)
	return g
}

func runAhead[Q Request[Q, R], R any](prog *ebpf.Program, opts BatchOptions, c *carriage[Q, R], yield func(BatchResult[Q, R], error) bool) *ahead[Q, R] {
	a := &ahead[Q, R]{
		prog: prog, opts: opts, yield: yield, carriage: c,
		size: groupSize, most: groupsAhead * opts.Workers,
		home: currentNetNS(), nobody: make(chan struct{}),
	}
	if opts.Ahead > 0 {
		a.size = min(a.size, opts.Ahead)
		a.most = min(a.most, opts.Ahead/a.size)
	}
	a.work = make(chan *group[Q, R], max(a.most, c.groups(), 1))
	return a
}

// add adds an input, with a copy of what it points to. It reports whether to go on.
func (a *ahead[Q, R]) add(n int, req *Q, carry bool) bool {
	g := a.filling
	if g != nil && carry != (g.cargo != nil) || len(a.waiting) > 0 && carry != (a.waiting[0].cargo != nil) {
		if !a.finish() { // both kinds together would be too far ahead
			return false
		}
		g = nil
	}
	if g == nil {
		g = a.freeGroup(carry)
		a.filling = g
	}
	g.add(n, req)
	return !g.full() || a.handOut()
}

// add adds an input. The group must have room for it.
func (g *group[Q, R]) add(n int, req *Q) {
	g.inputs = g.inputs[:len(g.inputs)+1]
	in := &g.inputs[len(g.inputs)-1]
	in.Input, in.Request, in.err = n, *req, nil
	if in.carried = g.cargo != nil && g.takeIn(in); !in.carried {
		in.Request = in.Request.keep(&in.data)
	}
}

func (g *group[Q, R]) full() bool {
	return len(g.inputs) == cap(g.inputs) || g.cargo != nil && g.cargo.chunk.Full()
}

// freeGroup returns an empty group. For carried inputs, the carriage must have one.
func (a *ahead[Q, R]) freeGroup(carry bool) (g *group[Q, R]) {
	if carry {
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
	carry := a.filling.cargo != nil
	a.queue()
	if a.opts.Workers > 1 {
		a.start()
	} else {
		a.runAll()
	}
	if carry && a.carriage.hasFree() || !carry && len(a.waiting) < a.most {
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

// finish runs the remaining groups, along with the workers, and yields them. It
// reports whether to go on.
func (a *ahead[Q, R]) finish() (goOn bool) {
	if a.filling != nil {
		a.queue()
	}
	a.runAll()
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

// yieldGroup waits for a group and yields its results. It reports whether to go on.
func (a *ahead[Q, R]) yieldGroup(g *group[Q, R]) bool {
	select {
	case <-g.done:
	case <-a.nobody:
		a.runAll()
		<-g.done
	}
	for i := range g.inputs {
		in := &g.inputs[i]
		if in.carried {
			g.settle(in, &a.carriage.data, &a.carriage.out)
		}
		if in.err != nil {
			in.err = numbered(in.err, in.Input)
		}
		if !a.yield(in.BatchResult, in.err) || in.err != nil && !a.opts.KeepGoing {
			return false
		}
	}
	return true
}

// start starts another worker, unless there are enough. The worker runs the groups of
// the queue, in the network namespace of the caller's thread.
func (a *ahead[Q, R]) start() {
	if a.started == a.opts.Workers {
		return
	}
	a.started++
	a.workers.Go(func() {
		a.home.run(func(err error) {
			if err != nil {
				if int(a.lost.Add(1)) == a.opts.Workers {
					close(a.nobody)
				}
				return
			}
			for g := range a.work {
				a.run(g)
				runtime.Gosched() // lets the caller go on, which gets no other turn while there is work
			}
		})
	})
}

// runAll runs the groups that are left in the queue.
func (a *ahead[Q, R]) runAll() {
	for {
		select {
		case g := <-a.work:
			a.run(g)
		default:
			return
		}
	}
}

// run runs the inputs of a group, until the batch is stopped.
func (a *ahead[Q, R]) run(g *group[Q, R]) {
	for i := 0; i < len(g.inputs) && !a.stopped.Load(); {
		if g.inputs[i].carried {
			i = g.carry(i)
			continue
		}
		g.runOne(&g.inputs[i], a.prog)
		i++
	}
	g.done <- struct{}{}
}

// runOne runs an input by itself.
func (g *group[Q, R]) runOne(in *input[Q, R], prog *ebpf.Program) {
	g.lent = in.Request
	if room := in.Request.room(); room > 0 {
		in.out = grow(in.out, room, false)
		*g.lentOut = in.out
	}
	in.Result, in.err = g.lent.Run(prog)
}

// stop stops the workers and waits for them. A worker finishes the run that it is in.
func (a *ahead[Q, R]) stop() {
	a.stopped.Store(true)
	close(a.work)
	a.workers.Wait()
	a.home.close()
}
