package main

import (
	"errors"
	"iter"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// outcome is what became of an input. Its err says why the program could not be run.
type outcome struct {
	input
	// res has the packet with its Ethernet header, even if the program does not see
	// that. It is zero if the program could not be run.
	res progrun.AnyResult
}

// batch runs the program on inputs and yields an outcome for each, in order. An outcome
// is valid until the next one. Up to ahead more inputs may have been pulled and run.
func (p *program) batch(inputs iter.Seq[input], ahead int) iter.Seq[*outcome] {
	return func(yield func(*outcome) bool) {
		var wait queue // inputs that were pulled and have no outcome yet
		requests := progrun.Packets(progrun.Any{}, wait.packets(inputs))
		for res, err := range progrun.Batch(p.Program, requests, &progrun.BatchOptions{KeepGoing: true, Ahead: ahead, NoCopy: true}) {
			if !wait.failed(yield) {
				return
			}
			o := outcome{input: wait.pop(), res: res.Result}
			o.err = withoutNumber(err)
			o.restore()
			if !yield(&o) {
				return
			}
		}
		wait.failed(yield)
	}
}

// times runs the program on packets, without output, and yields how long each run took.
func (p *program) times(packets iter.Seq[[]byte]) iter.Seq2[time.Duration, error] {
	return func(yield func(time.Duration, error) bool) {
		for res, err := range progrun.Batch(p.Program, progrun.Packets(progrun.Any{NoOutput: true}, packets), nil) {
			if !yield(res.Result.PerRun, err) {
				return
			}
		}
	}
}

// restore writes the input's Ethernet header where zeros come back in its place.
func (o *outcome) restore() {
	switch o.res.Verdict.Type {
	case ebpf.XDP, ebpf.SchedCLS, ebpf.SchedACT:
		return
	}
	copy(o.res.Packet[:min(ethernet, len(o.res.Packet))], o.packet)
}

// out returns the packet as it came out: the input if the kernel returns none.
func (o *outcome) out() []byte {
	if o.res.Packet == nil {
		return o.packet
	}
	return o.res.Packet
}

// withoutNumber returns the error of an input without the number that it has in the
// batch, where packets are missing that could not be run.
func withoutNumber(err error) error {
	var e *progrun.Error
	if !errors.As(err, &e) {
		return err
	}
	of := *e
	of.Input = 0
	return &of
}

// fatal reports whether all packets would have the same error.
func fatal(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }
