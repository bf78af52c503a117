package progrun

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// PacketRequest is what [Batch] runs: a request with a packet. [XDP], [TC],
// [SocketFilter], [CGroupSKB], [LWT], [FlowDissector] and [Netfilter] are.
type PacketRequest[Q, R any] interface {
	// WithPacket is the request with another packet, and with out in place of
	// its output buffer if it has one.
	WithPacket(packet, out []byte) Q
	Run(*ebpf.Program) (R, error)
}

// BatchOptions say how a [Batch] goes. The zero value is one to start from.
type BatchOptions struct {
	// KeepGoing runs the inputs after one that failed too. Otherwise an error
	// is the last that is yielded.
	KeepGoing bool
	// Workers is how many goroutines run the program, for programs to which
	// the order of their inputs means nothing. Results come in the order of
	// the inputs all the same, but in groups, and up to 128 inputs for each
	// worker may have been pulled, and run, ahead of the one that was yielded
	// last. Workers run in the network namespace of the calling thread, which
	// takes CAP_SYS_ADMIN (EPERM) if it was moved to another than the
	// process's. 0 and 1 mean one worker, which runs nothing ahead.
	Workers int
}

const (
	groupSize    = 64 // inputs that a worker takes at a time
	groupsAhead  = 2  // for each worker: one that it runs, one that waits
	packetGrowth = 256
)

// Batch runs a program on many packets: req with each packet in place of its
// own. It yields a result or an error for each, in order. With one worker,
// inputs are pulled one by one, and nothing runs beyond the last one that was
// yielded:
//
//	for res, err := range progrun.Batch(prog, progrun.XDP{}, packets, progrun.BatchOptions{}) {
//
// A packet need only be valid until the next one is pulled. What a result
// points to is valid until the next result: packets share output buffers, and
// the Out of req is not used. Memory does not grow with the number of inputs,
// and no goroutine outlives the loop.
//
// An error is an [*Error] whose Input is the number of the input, from 1.
func Batch[Q PacketRequest[Q, R], R any](prog *ebpf.Program, req Q, packets iter.Seq[[]byte], opts BatchOptions) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		if opts.Workers > 1 {
			batchInGroups(prog, req, packets, opts, yield)
			return
		}
		s := scratch.Get().(*[]byte)
		defer scratch.Put(s)
		n := 0
		for packet := range packets {
			n++
			res, err := req.WithPacket(packet, *s).Run(prog)
			if err != nil {
				err = numbered(err, n)
			}
			if !yield(res, err) || err != nil && !opts.KeepGoing {
				return
			}
		}
	}
}

// group is a number of consecutive inputs for one worker, and what became of
// them. Its memory is used again for later ones.
type group[R any] struct {
	first  int // the number of the first input
	inputs []input[R]
	done   chan struct{}
}

type input[R any] struct {
	packet, out []byte
	res         R
	err         error
}

// add copies a packet into the group.
func (g *group[R]) add(packet []byte) {
	n := len(g.inputs)
	if n < cap(g.inputs) {
		g.inputs = g.inputs[:n+1]
	} else {
		g.inputs = append(g.inputs, input[R]{})
	}
	in := &g.inputs[n]
	in.packet = append(in.packet[:0], packet...)
	if most := len(packet) + packetGrowth; cap(in.out) < most {
		in.out = make([]byte, 0, most)
	}
}

// batchInGroups is Batch with several workers. The caller's goroutine pulls
// inputs, hands them out in groups, and yields the oldest group when there is
// no room for another.
func batchInGroups[Q PacketRequest[Q, R], R any](prog *ebpf.Program, req Q, packets iter.Seq[[]byte], opts BatchOptions, yield func(R, error) bool) {
	c := crew[R]{work: make(chan *group[R], groupsAhead*opts.Workers)}
	defer c.stop()
	run := func(g *group[R], err error) { runGroup(prog, req, g, err, &c.stopped) }

	var waiting []*group[R] // in the order of their inputs
	free := &group[R]{first: 1, done: make(chan struct{}, 1)}
	for packet := range packets {
		if free.add(packet); len(free.inputs) < groupSize {
			continue
		}
		if free.first == 1 {
			if err := c.start(opts.Workers, run); err != nil {
				var none R
				yield(none, err)
				return
			}
		}
		c.work <- free
		next := free.first + groupSize
		waiting = append(waiting, free)
		if len(waiting) < cap(c.work) {
			free = &group[R]{done: make(chan struct{}, 1)}
		} else {
			free = waiting[0]
			waiting = append(waiting[:0], waiting[1:]...)
			if !free.yield(opts, yield) {
				return
			}
		}
		free.first, free.inputs = next, free.inputs[:0]
	}
	if free.first == 1 {
		run(free, nil) // too few for anybody else
	} else {
		c.work <- free
	}
	for _, g := range append(waiting, free) {
		if !g.yield(opts, yield) {
			return
		}
	}
}

// crew is the workers of a batch.
type crew[R any] struct {
	work    chan *group[R]
	stopped atomic.Bool
	workers sync.WaitGroup
	ns      netNS
}

// start has workers run what work brings, on threads in the network namespace
// of this one. A worker that cannot get there has the reason for each input.
func (c *crew[R]) start(workers int, run func(*group[R], error)) error {
	ns, err := currentNetNS()
	if err != nil {
		return &Error{Request: "Batch", Rule: "cannot open this thread's network namespace", Err: err}
	}
	c.ns = ns
	for range workers {
		c.workers.Go(func() {
			ns.run(func(err error) {
				if err != nil {
					err = &Error{Request: "Batch", Rule: cannotMove, Err: err}
				}
				for g := range c.work {
					run(g, err)
					runtime.Gosched() // for the one who waits, who else gets a turn when there is no work left
				}
			})
		})
	}
	return nil
}

// stop waits for the workers, which do no more than they are at.
func (c *crew[R]) stop() {
	c.stopped.Store(true)
	close(c.work)
	c.workers.Wait()
	c.ns.close()
}

// runGroup runs the inputs of a group, until someone says stop, or gives the
// reason why it cannot.
func runGroup[Q PacketRequest[Q, R], R any](prog *ebpf.Program, req Q, g *group[R], err error, stopped *atomic.Bool) {
	for i := range g.inputs {
		if stopped.Load() {
			break
		}
		in := &g.inputs[i]
		if in.err = err; err == nil {
			in.res, in.err = req.WithPacket(in.packet, in.out).Run(prog)
		}
	}
	g.done <- struct{}{}
}

// yield waits for a group and yields what became of it. It reports whether to
// go on.
func (g *group[R]) yield(opts BatchOptions, yield func(R, error) bool) bool {
	<-g.done
	for i := range g.inputs {
		in := &g.inputs[i]
		if in.err != nil {
			in.err = numbered(in.err, g.first+i)
		}
		if !yield(in.res, in.err) || in.err != nil && !opts.KeepGoing {
			return false
		}
	}
	return true
}

// numbered is an error that says which input it was.
func numbered(err error, n int) error {
	var e *Error
	if errors.As(err, &e) {
		of := *e
		of.Input = n
		return &of
	}
	return fmt.Errorf("progrun: input %d: %w", n, err)
}
