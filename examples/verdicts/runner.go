package main

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// outcome is the result of a run of a program of any type.
type outcome struct {
	input
	verdict  fmt.Stringer
	code     int64 // the verdict as a number
	perRun   time.Duration
	out      []byte // the packet as the program left it, or nil if none comes back
	blank    int    // number of bytes at the start of out that come back as zeros
	metadata []byte
	context  *progrun.SKB
	flow     *progrun.FlowKeys
	sight    progrun.Sight
}

// runner runs a program of one type on inputs, and yields an outcome for each,
// in order. An outcome is valid until the next one. Up to ahead more inputs may have
// been pulled and run. progrun.Any runs all types too, but returns no metadata, contexts
// and flow keys.
type runner func(prog *ebpf.Program, inputs iter.Seq[input], ahead int) iter.Seq[outcome]

// runners has a runner for each type of program that takes packets.
var runners = map[ebpf.ProgramType]runner{
	ebpf.XDP: runnerOf(progrun.XDP{}, func(r progrun.XDPResult) outcome {
		return outcome{verdict: r.Action, code: int64(r.Action), perRun: r.PerRun, out: r.Packet, metadata: r.Metadata, sight: r.Sight}
	}),
	ebpf.SchedCLS: trafficControl,
	ebpf.SchedACT: trafficControl,
	ebpf.SocketFilter: runnerOf(progrun.SocketFilter{}, func(r progrun.SocketFilterResult) outcome {
		return outcome{verdict: r.Verdict, code: int64(r.Verdict), perRun: r.PerRun, out: r.Packet, blank: ethernet, context: &r.Context}
	}),
	ebpf.CGroupSKB: runnerOf(progrun.CGroupSKB{}, func(r progrun.CGroupSKBResult) outcome {
		return outcome{verdict: r.Verdict, code: int64(r.Verdict), perRun: r.PerRun, out: r.Packet, blank: ethernet, context: &r.Context, sight: r.Sight}
	}),
	ebpf.LWTIn:        tunnel,
	ebpf.LWTOut:       tunnel,
	ebpf.LWTXmit:      tunnel,
	ebpf.LWTSeg6Local: tunnel,
	ebpf.FlowDissector: runnerOf(progrun.FlowDissector{}, func(r progrun.FlowDissectorResult) outcome {
		return outcome{verdict: r.Verdict, code: int64(r.Verdict), perRun: r.PerRun, flow: &r.Keys}
	}),
	ebpf.Netfilter: runnerOf(progrun.Netfilter{}, func(r progrun.NetfilterResult) outcome {
		return outcome{verdict: r.Verdict, code: int64(r.Verdict), perRun: r.PerRun}
	}),
}

var trafficControl = runnerOf(progrun.TC{}, func(r progrun.TCResult) outcome {
	return outcome{verdict: r.Verdict, code: int64(r.Verdict), perRun: r.PerRun, out: r.Packet, context: &r.Context}
})

var tunnel = runnerOf(progrun.LWT{}, func(r progrun.LWTResult) outcome {
	return outcome{verdict: r.Verdict, code: int64(r.Verdict), perRun: r.PerRun, out: r.Packet, blank: ethernet, context: &r.Context}
})

// returnsPackets reports whether the packet comes back from programs of a type.
func returnsPackets(t ebpf.ProgramType) bool { return t != ebpf.FlowDissector && t != ebpf.Netfilter }

// runnerOf returns a runner for a request. read reads its results into outcomes.
func runnerOf[Q progrun.PacketRequest[Q, R], R any](req Q, read func(R) outcome) runner {
	return func(prog *ebpf.Program, inputs iter.Seq[input], ahead int) iter.Seq[outcome] {
		return func(yield func(outcome) bool) {
			var wait queue // inputs that were pulled and have no outcome yet
			requests := progrun.Packets(req, wait.packets(inputs))
			for res, err := range progrun.Batch(prog, requests, &progrun.BatchOptions{KeepGoing: true, Ahead: ahead}) {
				if !wait.failed(yield) {
					return
				}
				o := outcome{}
				if err == nil {
					o = read(res.Result)
				}
				o.input = wait.pop()
				if err != nil {
					o.err = err
				}
				if !yield(o) {
					return
				}
			}
			wait.failed(yield)
		}
	}
}

// runTimes runs a program of any type on packets, without output, and yields how long
// each run took.
func runTimes(prog *ebpf.Program, packets iter.Seq[[]byte]) iter.Seq2[time.Duration, error] {
	return func(yield func(time.Duration, error) bool) {
		for res, err := range progrun.Batch(prog, progrun.Packets(progrun.Any{NoOutput: true}, packets), nil) {
			if !yield(res.Result.PerRun, err) {
				return
			}
		}
	}
}

// queue has inputs in their order. Inputs with an error are not run.
type queue []input

// packets yields the packets of inputs that can be run, and queues each input.
func (q *queue) packets(inputs iter.Seq[input]) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for in := range inputs {
			*q = append(*q, in)
			if in.err == nil && !yield(in.packet) {
				return
			}
		}
	}
}

func (q *queue) pop() input {
	in := (*q)[0]
	*q = append((*q)[:0], (*q)[1:]...)
	return in
}

// failed yields the inputs with an error at the head of the queue. It reports whether to
// go on.
func (q *queue) failed(yield func(outcome) bool) bool {
	for len(*q) > 0 && (*q)[0].err != nil {
		if !yield(outcome{input: q.pop()}) {
			return false
		}
	}
	return true
}

// fatal reports whether all packets would have the same error.
func fatal(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }
