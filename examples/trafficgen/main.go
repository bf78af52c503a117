//go:build linux

// Command trafficgen sends UDP frames over a veth pair by live mode, counts
// them at the far end, and prints how many were sent, received and lost.
//
//	go run -C examples ./trafficgen [-duration 5s] [-frames n] [-rate n] [-cpus list] [-size n] [-batch n]
//
// It makes the veth pair, between two network namespaces of its own, and
// removes it in the end, also on Ctrl-C. Nothing has a name that others could
// see, so that nothing is left even of a command that was killed.
//
// The frames are made by the BPF program generate, and counted by the BPF
// program receive, which is attached to the far end; see trafficgen.c. The run
// ends after -duration or -frames, whichever is first, or on Ctrl-C, and none
// of these is an error: the totals tell. While it lasts, a line shows how far it
// is, where the far end may be some milliseconds ahead: frames count as sent
// when the call of the kernel that sends them is over. It takes root and Linux
// 5.18.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

type options struct {
	duration    time.Duration
	frames      int64
	rate, batch int
	size        int
	cpus        []int
}

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "how long to send; 0: until Ctrl-C")
	flag.Int64Var(&o.frames, "frames", 0, "`number` of frames to send; 0: as many as there is time for")
	flag.IntVar(&o.rate, "rate", 0, "`number` of frames a second, over all CPUs; 0: as many as can be")
	flag.IntVar(&o.batch, "batch", 0, "`number` of frames that the kernel handles at a time, at most 256; 0: 64. The veth has room for 256, so large batches may lose some")
	flag.IntVar(&o.size, "size", minSize, "`bytes` of a frame, from its Ethernet header on")
	flag.Func("cpus", "`list` of CPUs to send on, such as 0,1: a thread and a queue for each (default: one thread, on any)", func(s string) (err error) {
		o.cpus, err = parseCPUs(s)
		return err
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "trafficgen: unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends the process
	if err := run(ctx, o, os.Stdout, isTerminal(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "trafficgen:", err)
		os.Exit(1)
	}
}

func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for s := range strings.SplitSeq(list, ",") {
		cpu, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not the number of a CPU", s)
		}
		cpus = append(cpus, int(cpu))
	}
	return cpus, nil
}

// programs are those of trafficgen.c.
type programs struct {
	Generate *ebpf.Program `ebpf:"generate"`
	Receive  *ebpf.Program `ebpf:"receive"`
	Received *ebpf.Map     `ebpf:"received"`
}

func (p *programs) close() {
	p.Generate.Close()
	p.Receive.Close()
	p.Received.Close()
}

func run(ctx context.Context, o options, out io.Writer, terminal bool) (err error) {
	if o.size < minSize {
		return fmt.Errorf("a frame of %d bytes is too small: the least is %d", o.size, minSize)
	}
	if o.duration < 0 {
		return fmt.Errorf("the duration cannot be negative, as %v is", o.duration)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return permission(err)
	}
	if err := progrun.HaveXDPLiveFrames(); err != nil {
		return permission(err)
	}
	p, err := load()
	if err != nil {
		return permission(err)
	}
	defer p.close()
	w, err := newWire(max(1, len(o.cpus)), o.size)
	if err != nil {
		return permission(err)
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	if err := w.attach(p.Receive); err != nil {
		return permission(err)
	}
	return send(ctx, o, p, w, &report{out: out, terminal: terminal})
}

func load() (*programs, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, err
	}
	p := new(programs)
	return p, spec.LoadAndAssign(p, nil)
}

// send does what the command is for.
func send(ctx context.Context, o options, p *programs, w *wire, r *report) error {
	packet, err := newPacket(w, o.size)
	if err != nil {
		return err
	}
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	r.begin(o)
	stats, err := progrun.Live{
		Packet:    packet,
		NetNS:     int(w.near.ns.Fd()),
		Ifindex:   w.near.ifindex,
		Frames:    o.frames,
		Rate:      o.rate,
		BatchSize: o.batch,
		CPUs:      o.cpus,
		Progress:  func(s progrun.LiveStats) { r.progress(s, p.received()) },
	}.Run(ctx, p.Generate)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	r.totals(stats, p.settled(stats.Frames+stats.Uncertain))
	return nil
}

// received is how many frames the far end has counted.
func (p *programs) received() int64 {
	var perCPU []uint64
	if err := p.Received.Lookup(uint32(0), &perCPU); err != nil {
		return 0
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return int64(sum)
}

// settled is received when nothing more is coming. The veth hands frames on
// when it gets to it, the last ones after the run.
func (p *programs) settled(sent int64) int64 {
	const quiet = 200 * time.Millisecond
	n, since := p.received(), time.Now()
	for n < sent && time.Since(since) < quiet {
		time.Sleep(5 * time.Millisecond)
		if now := p.received(); now != n {
			n, since = now, time.Now()
		}
	}
	return n
}

// permission puts in words that the process is not allowed to do its work.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("network namespaces and BPF programs take root, or CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF: %w", err)
	}
	return err
}
