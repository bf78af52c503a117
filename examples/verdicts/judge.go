package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/progrun/progrun"
)

// outcome is what the results of all requests come down to.
type outcome struct {
	verdict fmt.Stringer
	perRun  time.Duration
	packet  []byte   // nil if the request gives none back
	blank   int      // bytes at its start that come back as zeros
	notes   []string // what else there is to say
}

// judge runs prog on a capture with the request for its type.
func judge(w io.Writer, prog *ebpf.Program, attach ebpf.AttachType, c *capture) error {
	switch prog.Type() {
	case ebpf.XDP:
		return batch(w, prog, attach, c, progrun.XDP{}, progrun.XDP{NoOutput: true},
			func(r progrun.XDPResult) outcome {
				return outcome{verdict: r.Action, perRun: r.PerRun, packet: r.Packet, notes: metadata(r.Metadata)}
			})
	case ebpf.SchedCLS, ebpf.SchedACT:
		return batch(w, prog, attach, c, progrun.TC{}, progrun.TC{NoOutput: true},
			func(r progrun.TCResult) outcome {
				return outcome{verdict: r.Verdict, perRun: r.PerRun, packet: r.Packet, notes: context(r.Context)}
			})
	case ebpf.SocketFilter:
		return batch(w, prog, attach, c, progrun.SocketFilter{}, progrun.SocketFilter{NoOutput: true},
			func(r progrun.SocketFilterResult) outcome {
				return outcome{verdict: r.Verdict, perRun: r.PerRun, packet: r.Packet, blank: ethernet, notes: context(r.Context)}
			})
	case ebpf.CGroupSKB:
		return batch(w, prog, attach, c, progrun.CGroupSKB{}, progrun.CGroupSKB{NoOutput: true},
			func(r progrun.CGroupSKBResult) outcome {
				return outcome{verdict: r.Verdict, perRun: r.PerRun, packet: r.Packet, blank: ethernet, notes: context(r.Context)}
			})
	case ebpf.LWTIn, ebpf.LWTOut, ebpf.LWTXmit, ebpf.LWTSeg6Local:
		return batch(w, prog, attach, c, progrun.LWT{}, progrun.LWT{NoOutput: true},
			func(r progrun.LWTResult) outcome {
				return outcome{verdict: r.Verdict, perRun: r.PerRun, packet: r.Packet, blank: ethernet, notes: context(r.Context)}
			})
	case ebpf.FlowDissector:
		return batch(w, prog, attach, c, progrun.FlowDissector{}, progrun.FlowDissector{},
			func(r progrun.FlowDissectorResult) outcome {
				return outcome{verdict: r.Verdict, perRun: r.PerRun, notes: flow(r.Keys)}
			})
	case ebpf.Netfilter:
		return batch(w, prog, attach, c, progrun.Netfilter{}, progrun.Netfilter{},
			func(r progrun.NetfilterResult) outcome {
				return outcome{verdict: r.Verdict, perRun: r.PerRun}
			})
	}
	return fmt.Errorf("%s programs take no packets", prog.Type())
}

// batch runs prog on a capture: req with each packet. quiet is req for callers
// who want no output, and read takes a result apart.
func batch[Q progrun.PacketRequest[Q, R], R any](w io.Writer, prog *ebpf.Program, attach ebpf.AttachType, c *capture, req, quiet Q, read func(R) outcome) error {
	totals := map[string]int{}
	n, failed := 0, 0
	var last error
	var sample [][]byte // to measure with

	for res, err := range progrun.Batch(prog, progrun.Packets(req, c.packets()), &progrun.BatchOptions{KeepGoing: true}) {
		n++
		if errors.Is(err, ebpf.ErrNotSupported) {
			return err // true of all packets
		}
		if err != nil {
			failed, last = failed+1, err
			fmt.Fprintf(w, "%4d  %-64s  error: %v\n", n, summary(c.packet), err)
			continue
		}
		o := read(res.Result)
		totals[o.verdict.String()]++
		line := fmt.Sprintf("%4d  %-64s  %-11s  %s", n, summary(c.packet), o.verdict, o.change(c.packet))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
		if len(sample) < 1000 {
			sample = append(sample, c.packet)
		}
	}
	printTotals(w, n, failed, totals)
	if c.cut > 0 {
		fmt.Fprintf(w, "%d of these were cut short when they were captured: the program saw what was left.\n", c.cut)
	}
	switch {
	case c.err != nil:
		return c.err
	case n == 0:
		return fmt.Errorf("%s holds no packets", c.name)
	}
	if len(sample) > 0 {
		return printTime(w, prog, attach, quiet, sample, func(r R) time.Duration { return read(r).perRun })
	}
	return last
}

func printTotals(w io.Writer, n, failed int, totals map[string]int) {
	fmt.Fprintf(w, "\n%d packets:", n)
	byCount := func(a, b string) int { return cmp.Or(cmp.Compare(totals[b], totals[a]), cmp.Compare(a, b)) }
	var parts []string
	for _, verdict := range slices.SortedFunc(maps.Keys(totals), byCount) {
		parts = append(parts, fmt.Sprintf("%d %s", totals[verdict], verdict))
	}
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d errors", failed))
	}
	fmt.Fprintln(w, " "+strings.Join(parts, ", "))
}

// printTime tells how long a run takes: the mean of single runs over all
// packets, by the kernel's own clock and without the system call.
//
// A Repeat of a million is the usual way, and reads the clock but twice. It is
// not taken here, for three reasons. It runs one packet, and packets take
// different paths through a program. The packet is not reset in between: a
// filter that strips a tag would strip one after the other. And for XDP the
// kernel spends tens of milliseconds on every call with a Repeat above 1,
// which for each packet of a capture is too long.
//
// What single runs have in addition is the kernel's reading of its clock. The
// same measurement with a program that does nothing tells how much that is.
func printTime[Q progrun.PacketRequest[Q, R], R any](w io.Writer, prog *ebpf.Program, attach ebpf.AttachType, req Q, sample [][]byte, perRun func(R) time.Duration) error {
	mean, runs, err := measure(prog, req, sample, perRun)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Time per run: %d ns, the mean of %d single runs", mean.Nanoseconds(), runs)
	if empty, err := nothing(prog.Type(), attach); err == nil {
		defer empty.Close()
		if floor, _, err := measure(empty, req, sample, perRun); err == nil {
			fmt.Fprintf(w, "; an empty program takes %d ns", floor.Nanoseconds())
		}
	}
	fmt.Fprintln(w)
	return nil
}

// measure runs a program on all of sample, over and over for a short while.
func measure[Q progrun.PacketRequest[Q, R], R any](prog *ebpf.Program, req Q, sample [][]byte, perRun func(R) time.Duration) (mean time.Duration, runs int, err error) {
	var total time.Duration
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		for res, err := range progrun.Batch(prog, progrun.Packets(req, slices.Values(sample)), nil) {
			if err != nil {
				return 0, 0, err
			}
			total += perRun(res.Result)
			runs++
		}
	}
	return total / time.Duration(runs), runs, nil
}

// nothing loads a program that returns 0.
func nothing(t ebpf.ProgramType, attach ebpf.AttachType) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: t, AttachType: attach, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}
