package main

import (
	"iter"
	"slices"
)

// queue has inputs in their order.
type queue struct {
	inputs []input
	begin  int // index of the first one that has not been popped
}

func (q *queue) empty() bool { return q.begin == len(q.inputs) }

func (q *queue) push(in input) { q.inputs = append(q.inputs, in) }

func (q *queue) pop() input {
	in := q.inputs[q.begin]
	q.begin++
	if q.begin > len(q.inputs)/2 {
		q.inputs = slices.Delete(q.inputs, 0, q.begin)
		q.begin = 0
	}
	return in
}

// packets yields the packets of inputs that can be run, and pushes each input.
func (q *queue) packets(inputs iter.Seq[input]) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for in := range inputs {
			q.push(in)
			if in.err == nil && !yield(in.packet) {
				return
			}
		}
	}
}

// failed pops and yields the inputs at the head that cannot be run. It reports whether to
// go on.
func (q *queue) failed(yield func(*outcome) bool) bool {
	for !q.empty() && q.inputs[q.begin].err != nil {
		if !yield(&outcome{input: q.pop()}) {
			return false
		}
	}
	return true
}

// tee returns two iterators over the same inputs. Either may be ahead of the other. stop
// must be called in the end.
func tee(inputs iter.Seq[input]) (a, b iter.Seq[input], stop func()) {
	next, stop := iter.Pull(inputs)
	var forA, forB queue // what only the other one has yielded
	return half(next, &forA, &forB), half(next, &forB, &forA), stop
}

// half returns an iterator over what is in its own queue, and else over what next returns,
// which it pushes to the other queue.
func half(next func() (input, bool), own, other *queue) iter.Seq[input] {
	pull := func() (in input, ok bool) {
		if !own.empty() {
			return own.pop(), true
		}
		if in, ok = next(); ok {
			other.push(in)
		}
		return in, ok
	}
	return func(yield func(input) bool) {
		for {
			if in, ok := pull(); !ok || !yield(in) {
				return
			}
		}
	}
}
