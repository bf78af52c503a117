package progrun

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun/internal/carrier"
)

// Live runs an XDP program on live frames: the kernel carries out the verdict on
// every frame. It is a traffic generator whose packets are made and steered by BPF.
// Since Linux 5.18: see [HaveXDPLiveFrames].
//
// # What becomes of a frame
//
// The program sees the packet as if it had arrived on Ifindex.
//
//   - XDP_DROP and XDP_ABORTED drop the frame, as does any unknown action.
//   - XDP_PASS passes the frame to the network stack, as received on Ifindex. It is
//     delivered locally if its destination MAC address is that of Ifindex. The
//     interface does not count it. A generic XDP program that is attached to the
//     interface runs on the frame too.
//   - XDP_TX sends the frame out of Ifindex.
//   - XDP_REDIRECT sends the frame to the target of bpf_redirect or
//     bpf_redirect_map. A devmap may lead to other network namespaces.
//
// Actions take effect at the end of a batch. Lost frames do not fail the run. If a
// driver cannot send, a target is down or a frame exceeds the MTU, the tracepoint
// xdp:xdp_redirect_err fires. If a ring is full, xdp:xdp_devmap_xmit does, with its
// field drops.
//
// The peer of a veth must accept XDP frames: it must be up, and have a native XDP
// program, such as one that passes every frame, or GRO switched on. Otherwise frames
// are lost without an error. The peer's ring holds 256 frames, and is emptied between
// batches at the earliest. So a BatchSize near 256 can overrun it.
//
// # Pages
//
// The kernel fills pages with the packet once, and reuses each page as soon as it is
// free. So within one call of the kernel, a program that edits the packet meets its
// own edits, and those of the stack. In a later call, a page holds either the packet
// of the request or what an earlier run left in it. It is unspecified which. Programs
// must write every byte that they depend on.
//
// # Exactness
//
// No frame is sent twice. The worker threads block all signals, so that none can cut
// a call short, and [LiveStats.Frames] is exact. Some events cannot be blocked: a stop
// and continuation of the process, a debugger, the freezer and
// [syscall.AllThreadsSyscall]. They can end a call of more than one batch early, and
// the kernel does not say how early. [LiveStats.Uncertain] counts the frames in doubt,
// which are not sent again. If PerCall is set and at most BatchSize, there are none.
//
// # Speed
//
// A call of more than one frame adds the program to the kernel's XDP dispatcher and
// removes it again, which takes tens of milliseconds, unless the program is there
// already. So a run of several calls holds the program: see [Hold]. If the run cannot
// do so, which takes CAP_SYS_ADMIN, or has to wait for other processes in the
// dispatcher, it makes longer calls: ten times as long as the wait, up to a quarter of
// a second. [LiveStats.HoldErr] and [LiveStats.LimitedBy] say so.
//
// In a process whose goroutines keep all its processors ([runtime.GOMAXPROCS]) busy,
// workers wait for the Go scheduler after each call. A run takes that for a wait in the
// dispatcher.
//
// # Captures
//
// A run with Packets sends a capture. One worker sends it in order, round after round.
// Several workers send each packet as often as one would. Each takes one stretch of
// the capture after another, and the stretches of different workers run at the same
// time. Each frame is written anew, whatever its page held before. Frames that a Rate
// misses leave no gap: the next frame to run is the next packet.
//
// Such a run puts a carrier in front of the program. This is an XDP program of the
// run's own. It writes the frame, runs the program by a tail call, and counts the
// verdict. Runs with CountVerdicts or an Exchange have a carrier too. The carrier
// counts the frames that have run: Uncertain is 0, and frames that a cut-short call
// left out run in the next one. The run holds the carrier, and a Hold on the program
// has no use. A carrier takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (EPERM), the JIT,
// Linux 5.18, and a program that fits in an array of programs. If there can be no
// carrier, the run fails before its first frame.
//
// With a carrier, the program can make 32 tail calls in a row instead of 33, and
// fentry and fexit programs on it do not see the runs.
//
// # Namespaces
//
// Workers run in the network namespace of the calling thread, or in NetNS. Workers
// that are elsewhere move there. This takes CAP_SYS_ADMIN, and /proc to follow the
// calling thread. Before Linux 5.14, it takes /proc even to find out where the
// calling thread is.
type Live struct {
	// Packet is the frame, from its Ethernet header on. It has at least 14 bytes,
	// and at most 3,408 with pages of 4 KiB, 15,696 with pages of 16 KiB, and 40
	// less before Linux 6.3 (EINVAL).
	Packet []byte
	// Metadata lies in front of the packet; see [XDP.Metadata]. The kernel keeps
	// it with frames that pass.
	Metadata []byte
	// Ifindex is the interface on which frames arrive, in NetNS. 0 means loopback.
	// The receive queue is always 0.
	Ifindex int
	// Frames is how many frames to run, over all CPUs. 0 means until the context
	// ends; the context must then be one that can end (EINVAL).
	Frames int64
	// BatchSize is how many frames the kernel handles at a time, at most 256
	// (E2BIG). 0 means 64.
	BatchSize int
	// PerCall is how many frames one call of the kernel runs. The last call, and
	// calls at a Rate, may run fewer. A call goes on if the context ends during
	// it. 0 means that the run chooses, and makes calls of a few milliseconds.
	PerCall int
	// Rate is how many frames a second to run, over all CPUs, at most
	// 1,000,000,000. 0 means as many as possible. Frames are spread evenly, in
	// bursts of at most one batch. A worker that was held up catches up at 1.25
	// times its rate. Frames that are more than 100 ms late do not run, but are
	// counted in [LiveStats.Missed]. If calls of one batch are too slow for the
	// rate, such as when they wait for the XDP dispatcher, each call runs all
	// frames that are due.
	//
	// Up to some 15,000 frames a second, a worker sleeps between calls. It takes
	// 40 to 80 µs of CPU for each frame: 8 % of a CPU at 1,000 frames a second, 22
	// % at 3,000 and 40 % at 10,000. From 20,000 on, a worker makes a call at
	// least every 50 µs. It then has no time to sleep, and spins. It takes a whole
	// CPU, as it does without a Rate.
	Rate int
	// CPUs are the CPUs to run on, with one worker thread for each. None means one
	// worker wherever the scheduler puts it.
	CPUs []int
	// NetNS is the file descriptor of the network namespace to run in. 0 means the
	// namespace of the calling thread.
	NetNS int
	// Hold is a hold on the program that the caller has made. It must not be
	// closed (EBADF). If it is nil, the run makes one of its own if that pays.
	Hold *Hold
	// Packets are frames to run in turn, round after round, in place of Packet
	// (EINVAL with both). They may differ in size, within the limits of Packet.
	// Each frame is written anew, with Metadata in front of it. See the section on
	// captures.
	Packets [][]byte
	// Times says when each of Packets runs, from the start of a round. It has one
	// time for each packet, in ascending order (EINVAL). A round starts when the
	// last packet of the round before is due, so Times[0] is the pause between two
	// rounds. A packet that is late runs at once, however late it is: each one
	// runs, [LiveStats.Missed] stays 0, and later packets run at their own times
	// again. Where the machine cannot keep the times, it runs packets as fast as
	// it can, in calls of at most one batch; [LiveStats.LimitedBy] then is not
	// [LimitRate]. Times excludes Rate, and more than one of CPUs (EINVAL).
	Times []time.Duration
	// Speed is how many times faster than Times the packets run. 0 means 1.
	Speed float64
	// CountVerdicts makes the run count the program's verdicts, in
	// [LiveStats.Verdicts].
	CountVerdicts bool
	// Exchange, if it is not nil, can replace the program during the run.
	Exchange *Exchange
	// Progress, if it is not nil, is called every ProgressInterval, on the
	// goroutine that called Run, while the workers go on.
	Progress func(LiveStats)
	// ProgressInterval is the time between calls of Progress. 0 means one second.
	ProgressInterval time.Duration
}

// LiveStats says what a run of [Live] did, or has done so far. In JSON, durations are
// integers of nanoseconds.
type LiveStats struct {
	// Frames is how many frames the program surely ran on. Uncertain is how many
	// more it may have run on.
	Frames    int64 `json:"frames"`
	Uncertain int64 `json:"uncertain"`
	// Missed is how many of the frames that were due at the Rate, up to the last
	// one that ran, could not run in time. It is 0 without a Rate: with Times,
	// late packets run.
	Missed int64 `json:"missed"`
	// Bytes is how many bytes the frames had before the program ran, without
	// metadata.
	Bytes int64 `json:"bytes"`
	// Verdicts counts the program's verdicts, if the request has CountVerdicts,
	// Packets or an Exchange.
	Verdicts LiveVerdicts `json:"verdicts,omitzero"`
	// Batches is how many batches the kernel made of the frames.
	Batches int64 `json:"batches"`
	// Calls is how many calls of the kernel ran the frames.
	Calls int64 `json:"calls"`
	// Wall is the time from the start of the run to its last frame.
	Wall time.Duration `json:"wall_ns"`
	// PerFrame is the kernel's mean time of one frame, on one CPU.
	PerFrame time.Duration `json:"per_frame_ns"`
	// Held reports whether the program was held in the XDP dispatcher during the
	// whole run, by [Live.Hold] or by the run. It is true on a kernel without a
	// dispatcher, where nothing has to wait. See [Hold].
	Held bool `json:"held"`
	// HoldErr says why the program was not held. It is nil if the program was held,
	// or if the run did not need it.
	HoldErr error `json:"hold_err,omitempty"`
	// LimitedBy says what kept the run from being faster.
	LimitedBy LiveLimit `json:"limited_by"`
	// Workers has the share of each worker, in the order of the request's CPUs.
	Workers []LiveWorkerStats `json:"workers"`
}

// LiveWorkerStats says what one worker of a [Live] did. Its other fields are those of
// [LiveStats].
type LiveWorkerStats struct {
	// CPU is the CPU to which the worker was bound, or -1.
	CPU int `json:"cpu"`

	Frames    int64         `json:"frames"`
	Uncertain int64         `json:"uncertain"`
	Missed    int64         `json:"missed"`
	Bytes     int64         `json:"bytes"`
	Verdicts  LiveVerdicts  `json:"verdicts,omitzero"`
	Batches   int64         `json:"batches"`
	Calls     int64         `json:"calls"`
	Wall      time.Duration `json:"wall_ns"`
	PerFrame  time.Duration `json:"per_frame_ns"`
}

// Add adds the stats of another run to s, as if one run had followed the other. It
// merges workers on the same CPU. Adding to the zero value copies other.
func (s *LiveStats) Add(other LiveStats) {
	if s.Calls == 0 && s.Wall == 0 {
		workers := append(s.Workers[:0:0], other.Workers...)
		*s = other
		s.Workers = workers
		return
	}
	if other.Wall > s.Wall {
		s.LimitedBy = other.LimitedBy
	}
	s.Held = s.Held && other.Held
	if s.HoldErr == nil {
		s.HoldErr = other.HoldErr
	}
	sum := s.asWorker()
	sum.add(other.asWorker())
	s.setSums(sum)
	for _, w := range other.Workers {
		i := slices.IndexFunc(s.Workers, func(of LiveWorkerStats) bool { return of.CPU == w.CPU })
		if i < 0 {
			s.Workers = append(s.Workers, w)
		} else {
			s.Workers[i].add(w)
		}
	}
}

// asWorker returns the stats of a run as those of a single worker.
func (s *LiveStats) asWorker() LiveWorkerStats {
	return LiveWorkerStats{CPU: -1, Frames: s.Frames, Uncertain: s.Uncertain, Missed: s.Missed,
		Bytes: s.Bytes, Verdicts: s.Verdicts,
		Batches: s.Batches, Calls: s.Calls, Wall: s.Wall, PerFrame: s.PerFrame}
}

// setSums sets what asWorker returns.
func (s *LiveStats) setSums(sum LiveWorkerStats) {
	s.Frames, s.Uncertain, s.Missed = sum.Frames, sum.Uncertain, sum.Missed
	s.Bytes, s.Verdicts = sum.Bytes, sum.Verdicts
	s.Batches, s.Calls, s.Wall, s.PerFrame = sum.Batches, sum.Calls, sum.Wall, sum.PerFrame
}

func (s *LiveWorkerStats) add(other LiveWorkerStats) {
	if all := s.Frames + other.Frames; all > 0 {
		mean := (float64(s.PerFrame)*float64(s.Frames) + float64(other.PerFrame)*float64(other.Frames)) / float64(all)
		s.PerFrame = time.Duration(math.Round(mean))
	}
	s.Frames += other.Frames
	s.Uncertain += other.Uncertain
	s.Missed += other.Missed
	s.Bytes += other.Bytes
	s.Verdicts.add(other.Verdicts)
	s.Batches += other.Batches
	s.Calls += other.Calls
	s.Wall += other.Wall
}

// FramesPerSecond returns the mean rate of the run.
func (s *LiveStats) FramesPerSecond() float64 { return perSecond(s.Frames, s.Wall) }

// FramesPerSecond returns the mean rate of the worker.
func (s *LiveWorkerStats) FramesPerSecond() float64 { return perSecond(s.Frames, s.Wall) }

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// LiveLimit says what kept a run of live frames from being faster.
type LiveLimit uint8

const (
	LimitCPU        LiveLimit = iota // the kernel's work on each frame
	LimitRate                        // the request's Rate, of which at most 1 % was missed, or its Times, if the last frame was at most 100 ms late
	LimitDispatcher                  // the XDP dispatcher, in which calls waited for more than 5 % of the time
)

// String returns "CPU", "rate" or "XDP dispatcher".
func (l LiveLimit) String() string {
	return name(int64(l), "LiveLimit", "CPU", "rate", "XDP dispatcher")
}

// MarshalText returns what String does.
func (l LiveLimit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText parses what String returns.
func (l *LiveLimit) UnmarshalText(text []byte) error {
	return parse(l, text, "LiveLimit", LimitCPU, LimitRate, LimitDispatcher)
}

// liveNames returns the request's names of the kernel's fields. packet is the field
// that the packet comes from.
func liveNames(packet string) fieldNames {
	return fieldNames{
		"data_size_in": packet, "batch_size": "BatchSize", "ctx_size_in": "Metadata", "ctx.data": "Metadata",
		"ctx.data_end": packet, "ctx.ingress_ifindex": "Ifindex",
	}
}

// Run runs prog, of type [ebpf.XDP], until Frames frames have run or ctx ends. The
// last frame leaves at most 10 ms after ctx ends. If the program could not be held, or
// other processes keep the XDP dispatcher busy, calls are longer: the last one ends up
// to a quarter of a second after ctx. The first of these calls can take a second if a
// frame takes a microsecond. The end of ctx is an error only if Frames is set. The
// stats are valid even if there is an error.
//
// Run checks the whole request before the first frame. If it is rejected, the [Error]
// has RanNo. The program may be closed during the run, since Run duplicates its
// descriptor.
func (l Live) Run(ctx context.Context, prog *ebpf.Program) (LiveStats, error) {
	_, err := xdpTypes.descriptor("Live", prog)
	if err == nil {
		err = l.check(ctx)
	}
	if err != nil {
		return LiveStats{}, err
	}
	// The caller may close prog during the run, and the descriptor could then be
	// that of another program.
	prog, err = prog.Clone()
	if err != nil {
		return LiveStats{}, &Error{Request: "Live", Rule: "cannot duplicate the program's descriptor", Err: err}
	}
	defer prog.Close()
	if err := l.askKernel(prog); err != nil {
		return LiveStats{}, err
	}
	return l.start(ctx, prog)
}

// check rejects what the kernel cannot be asked about.
func (l *Live) check(ctx context.Context) error {
	if ctx == nil {
		return refuse("Live", "", "", "the context is nil", syscall.EINVAL)
	}
	if err := fitsPage("Live", len(l.Metadata)); err != nil {
		return err
	}
	if err := l.checkPackets(); err != nil {
		return err
	}
	if l.BatchSize > maxBatchSize {
		return refuse("Live", "BatchSize", strconv.Itoa(l.BatchSize), overMaxBatchSize, syscall.E2BIG)
	}
	if l.Frames < 0 {
		return refuse("Live", "Frames", strconv.FormatInt(l.Frames, 10), "it cannot be negative", syscall.EINVAL)
	}
	if l.Frames == 0 && ctx.Done() == nil {
		return refuse("Live", "Frames", "0", "the run would never end, since its context cannot end", syscall.EINVAL)
	}
	if err := canExist("Live", "Ifindex", l.Ifindex, noSuchInterface, syscall.ENODEV); err != nil {
		return err
	}
	for _, f := range []struct {
		field string
		n     int
		most  uint32
	}{
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

// carriedBy returns the field for which the run needs a carrier, or "".
func (l *Live) carriedBy() string {
	switch {
	case len(l.Packets) > 0:
		return "Packets"
	case l.Exchange != nil:
		return "Exchange"
	case l.CountVerdicts:
		return "CountVerdicts"
	}
	return ""
}

func (l *Live) carrierOptions() carrier.LiveOptions {
	return carrier.LiveOptions{Packets: l.Packets, Metadata: l.Metadata, CPUs: l.CPUs}
}

// checkPackets checks the packet or the packets of the request, and their times.
func (l *Live) checkPackets() error {
	if len(l.Packets) == 0 {
		if err := l.checkPacket("Packet", l.Packet); err != nil {
			return err
		}
		return l.checkTimes()
	}
	if l.Packet != nil {
		return refuse("Live", "Packet", size(len(l.Packet)), "there are Packets too", syscall.EINVAL)
	}
	for i, p := range l.Packets {
		if err := l.checkPacket(packetsField(i), p); err != nil {
			return err
		}
	}
	options := l.carrierOptions()
	if n := options.Bytes(); n > largestMap {
		return refuse("Live", "Packets", fmt.Sprintf("%d packets", len(l.Packets)),
			fmt.Sprintf("take %d bytes, and a map of the kernel has less than 4 GiB", n), syscall.E2BIG)
	}
	return l.checkTimes()
}

// largestMap is the largest size of a map in bytes, with some room for rounding up.
const largestMap = 1<<32 - 1<<20

func (l *Live) checkPacket(field string, p []byte) error {
	switch {
	case len(p) < ethHLen:
		return refuse("Live", field, size(len(p)), "a packet begins with a 14-byte Ethernet header", syscall.EINVAL)
	case len(p) > pageSize:
		return refuse("Live", field, size(len(p)), "a live frame fits in a page", syscall.EINVAL)
	}
	return nil
}

func (l *Live) checkTimes() error {
	switch {
	case l.Times == nil && l.Speed != 0:
		return refuse("Live", "Speed", fmt.Sprint(l.Speed), "there are no Times", syscall.EINVAL)
	case l.Times == nil:
		return nil
	case len(l.Times) != len(l.Packets):
		return refuse("Live", "Times", fmt.Sprintf("%d times", len(l.Times)),
			fmt.Sprintf("there must be one for each of the %d Packets", len(l.Packets)), syscall.EINVAL)
	case !(l.Speed >= 0) || math.IsInf(l.Speed, 1):
		return refuse("Live", "Speed", fmt.Sprint(l.Speed), "it must be a number above 0, or 0 for 1", syscall.EINVAL)
	case l.Rate != 0:
		return refuse("Live", "Rate", strconv.Itoa(l.Rate), "there are Times too", syscall.EINVAL)
	case len(l.CPUs) > 1:
		return refuse("Live", "CPUs", fmt.Sprintf("%d workers", len(l.CPUs)), "Times need a single worker", syscall.EINVAL)
	}
	last := time.Duration(0)
	for i, t := range l.Times {
		if t < last {
			return refuse("Live", fmt.Sprintf("Times[%d]", i), t.String(), "it is before "+last.String(), syscall.EINVAL)
		}
		last = t
	}
	return nil
}

// speed returns Speed, or 1 if it is 0.
func (l *Live) speed() float64 {
	if l.Speed == 0 {
		return 1
	}
	return l.Speed
}

func packetsField(i int) string { return fmt.Sprintf("Packets[%d]", i) }

// firstPacket returns the packet to ask the kernel about, the largest, and its
// field.
func (l *Live) firstPacket() (p []byte, field string) {
	if len(l.Packets) == 0 {
		return l.Packet, "Packet"
	}
	largest := 0
	for i, p := range l.Packets {
		if len(p) > len(l.Packets[largest]) {
			largest = i
		}
	}
	return l.Packets[largest], packetsField(largest)
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

// askKernel finds out whether the run would be legal, without running the program. A
// kernel with live frames then refuses only the interface, which cannot exist.
func (l *Live) askKernel(prog *ebpf.Program) error {
	if err := wantLiveFrames("Live", "", "", prog); err != nil {
		return err
	}
	if l.Hold != nil {
		if err := l.Hold.closed(); err != nil {
			return err
		}
		if !l.Hold.holds(prog) {
			return refuse("Live", "Hold", "", "the hold is on another program", syscall.EINVAL)
		}
	}
	c := l.call(prog)
	c.ctx.ingressIfindex = noIfindex
	a := c.attr(0)
	if errno := a.probe(); errno != syscall.ENODEV {
		return c.explain(errno, &a)
	}
	return nil
}

// liveCall is what each call of a run passes to the kernel: the program, and the frame
// with its context.
type liveCall struct {
	prog  *ebpf.Program
	frame []byte // the metadata and the packet
	field string // that the packet comes from
	ctx   xdpMD
	batch uint32
}

func (l *Live) call(prog *ebpf.Program) liveCall {
	c := liveCall{prog: prog, ctx: xdpMD{ingressIfindex: uint32(l.Ifindex)}, batch: uint32(l.batch())}
	packet, field := l.firstPacket()
	c.setFrame(l.Metadata, packet, field)
	return c
}

func (c *liveCall) setFrame(metadata, packet []byte, field string) {
	c.frame, c.field = slices.Concat(metadata, packet), field
	c.ctx.data, c.ctx.dataEnd = uint32(len(metadata)), uint32(len(c.frame))
}

func (c *liveCall) attr(frames uint32) attr {
	a := newAttr(uint32(c.prog.FD()), c.frame, nil, view(&c.ctx), nil, frames, testXDPLiveFrames)
	a.batchSize = c.batch
	return a
}

// explain returns the error of a call that failed.
func (c *liveCall) explain(errno syscall.Errno, a *attr) error {
	failed := newCall("Live", liveNames(c.field), c.prog, a)
	failed.dataSizeOut = 0
	copy(failed.ctx[:], view(&c.ctx))
	return explain(errno, failed)
}

func (l *Live) batch() int {
	if l.BatchSize == 0 {
		return defaultBatchSize
	}
	return l.BatchSize
}
