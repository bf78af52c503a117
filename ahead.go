package progrun

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

const (
	groupSize   = 32 // inputs that run at a time
	groupsAhead = 4  // for each worker: one that it runs, and some that wait
)

// ahead runs the inputs of a batch in groups, ahead of the one that was yielded
// last. The caller's goroutine pulls inputs, hands them out in groups, and yields
// the oldest group when there is no room for another.
type ahead[Q Request[Q, R], R any] struct {
	prog  *ebpf.Program
	opts  BatchOptions
	yield func(BatchResult[Q, R], error) bool

	filling *group[Q, R]
	waiting []*group[Q, R] // handed out, in the order of their inputs

	work    chan *group[Q, R]
	stopped atomic.Bool
	workers sync.WaitGroup
	started int
	home    netNS
	lost    atomic.Int32  // workers that could not follow the caller's thread
	nobody  chan struct{} // closed when all are lost
}

// group is some consecutive inputs, and what became of them. Its memory is used
// again for later ones.
type group[Q Request[Q, R], R any] struct {
	inputs []input[Q, R]
	done   chan struct{}
	lent   Q // the request that runs, with memory for its output
}

type input[Q, R any] struct {
	BatchResult[Q, R]
	err       error
	data, out []byte
}

func runAhead[Q Request[Q, R], R any](prog *ebpf.Program, opts BatchOptions, yield func(BatchResult[Q, R], error) bool) *ahead[Q, R] {
	return &ahead[Q, R]{
		prog: prog, opts: opts, yield: yield, work: make(chan *group[Q, R], groupsAhead*opts.Workers),
		home: currentNetNS(), nobody: make(chan struct{}),
	}
}

// add takes in an input, with a copy of what it points to. It reports whether to
// go on.
func (a *ahead[Q, R]) add(n int, req Q) bool {
	if a.filling == nil {
		a.filling = &group[Q, R]{inputs: make([]input[Q, R], 0, groupSize), done: make(chan struct{}, 1)}
	}
	g := a.filling
	g.inputs = g.inputs[:len(g.inputs)+1]
	in := &g.inputs[len(g.inputs)-1]
	in.Input, in.Request = n, req.keep(&in.data)
	return len(g.inputs) < groupSize || a.handOut()
}

// handOut has the group that was filled run, and another one filled. Where as
// much is waiting as may run ahead, that is the oldest, once it was yielded.
func (a *ahead[Q, R]) handOut() (goOn bool) {
	a.start()
	a.queue()
	if len(a.waiting) < cap(a.work) {
		return true
	}
	oldest := a.waiting[0]
	a.waiting = append(a.waiting[:0], a.waiting[1:]...)
	if !a.yieldGroup(oldest) {
		return false
	}
	oldest.inputs = oldest.inputs[:0]
	a.filling = oldest
	return true
}

// queue has the group that was filled wait for someone to run it.
func (a *ahead[Q, R]) queue() {
	a.work <- a.filling
	a.waiting = append(a.waiting, a.filling)
	a.filling = nil
}

// finish runs what is left, beside the workers, and yields it.
func (a *ahead[Q, R]) finish() {
	if a.filling != nil {
		a.queue()
	}
	a.runAll()
	for _, g := range a.waiting {
		if !a.yieldGroup(g) {
			return
		}
	}
}

// yieldGroup waits for a group and yields what became of it. It reports whether to go
// on.
func (a *ahead[Q, R]) yieldGroup(g *group[Q, R]) bool {
	select {
	case <-g.done:
	case <-a.nobody:
		a.runAll()
		<-g.done
	}
	for i := range g.inputs {
		in := &g.inputs[i]
		if in.err != nil {
			in.err = numbered(in.err, in.Input)
		}
		if !a.yield(in.BatchResult, in.err) || in.err != nil && !a.opts.KeepGoing {
			return false
		}
	}
	return true
}

// start starts one worker more, if there may be one more. It runs what work
// brings, in the network namespace of the caller's thread.
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
				runtime.Gosched() // for the caller, who waits and gets no other turn while there is work
			}
		})
	})
}

// runAll runs what no worker will.
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

// run runs the inputs of a group until someone says stop.
func (a *ahead[Q, R]) run(g *group[Q, R]) {
	lentOut := g.lent.outIn(&g.lent)
	for i := range g.inputs {
		if a.stopped.Load() {
			break
		}
		in := &g.inputs[i]
		g.lent = in.Request
		if room := in.Request.room(); room > 0 {
			in.out = grow(in.out, room, false)
			*lentOut = in.out
		}
		in.Result, in.err = g.lent.Run(a.prog)
	}
	g.done <- struct{}{}
}

// stop waits for the workers, which do no more than they are at.
func (a *ahead[Q, R]) stop() {
	a.stopped.Store(true)
	close(a.work)
	a.workers.Wait()
	a.home.close()
}
