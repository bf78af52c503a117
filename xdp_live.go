package progrun

import (
	"context"
	"math"
	"strconv"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// Live runs an XDP program on live frames: the kernel does with every frame
// what the program says. It is a traffic generator whose packets are made and
// steered by BPF. Since Linux 5.18: see [HaveXDPLiveFrames].
//
// # What becomes of a frame
//
// The program sees the packet as if it had come in on Ifindex.
//
//   - XDP_DROP and XDP_ABORTED drop it, as does any unknown action.
//   - XDP_PASS hands it to the network stack as received on Ifindex. It is
//     delivered locally if its destination MAC address is that of Ifindex.
//     Counters of the interface do not move, and a generic XDP program that is
//     attached to it runs on the frame as well.
//   - XDP_TX sends it out of Ifindex.
//   - XDP_REDIRECT sends it where bpf_redirect or bpf_redirect_map say. A
//     devmap may lead to other network namespaces.
//
// Actions take effect at the end of a batch. No frame that is lost on the way
// fails the run. A driver that cannot send, a target that is down and a frame
// over the MTU show in the tracepoint xdp:xdp_redirect_err; a full ring in
// xdp:xdp_devmap_xmit (its field drops). Of a veth the peer must take XDP
// frames: it must be up and have a native XDP program, if only one that passes
// all, or GRO switched on. Else frames are lost without an error. Its ring holds
// 256 frames, and is emptied between batches at the earliest, so that a
// BatchSize near 256 can overrun it.
//
// # Pages
//
// Frames are in pages that the kernel fills with the packet once and then uses
// again as soon as they are free. So a program that edits the packet meets its
// own edits, and those of the stack, within one call of the kernel; across
// calls, the content of a page is that of the request again or of an earlier
// run, unspecified which. Programs must write every byte that they depend on.
//
// # Exactness
//
// No frame is sent twice. The worker threads block all signals, so that none
// can cut a call short; [LiveStats.Frames] is then what the kernel ran. What
// cannot be blocked, a stop and continuation of the process, a debugger, the
// freezer and [syscall.AllThreadsSyscall], can end a call of more than one
// batch early, and the kernel does not say how early. The frames in doubt are
// counted in [LiveStats.Uncertain], and are not sent again. With PerCall of at
// most BatchSize there are none.
//
// # Speed
//
// A call of more than one frame takes the program into the kernel's XDP
// dispatcher and out again, tens of milliseconds, unless the program is there
// already. So where more than one call is coming, the run keeps it there: see
// [Hold]. Where that fails (it takes CAP_SYS_ADMIN and CAP_NET_ADMIN), the run
// makes long calls instead, and [LiveStats.NotHeld] says why.
type Live struct {
	// Packet is the frame, from its Ethernet header on: at least 14 bytes, at
	// most 3,408 with pages of 4 KiB, 3,368 before Linux 6.3 (EINVAL).
	Packet []byte
	// Metadata is what lies in front of the packet; see [XDP]. The kernel
	// keeps it with frames that pass.
	Metadata []byte
	// Ifindex is the interface that frames come in on, in NetNS; 0 means
	// loopback. Its receive queue is always 0.
	Ifindex int
	// Frames is how many frames to run, over all CPUs. 0 means until the
	// context ends, which it then must be able to.
	Frames int64
	// BatchSize is how many frames the kernel handles at a time: 0 means 64,
	// and 256 is the most (E2BIG).
	BatchSize int
	// PerCall is how many frames one call of the kernel runs; the last call,
	// and those at a Rate, may run fewer. A call under way goes on when the
	// context ends. 0 leaves it to the run, which makes calls of a few
	// milliseconds.
	PerCall int
	// Rate is how many frames a second to run, over all CPUs, at most
	// 1,000,000,000; 0 means as many as can be. Frames are spread evenly, in
	// bursts of at most one batch. A worker that was held up catches up at
	// 1.25 times its rate, if it was for 20 ms or less; frames that are later
	// than that are not run but counted in [LiveStats.Missed].
	Rate int
	// CPUs are those to run on, with one worker thread for each. None means
	// one worker wherever the scheduler puts it.
	CPUs []int
	// NetNS is the file descriptor of the network namespace to run in. 0
	// means that of the calling thread.
	NetNS int
	// Held is a hold on the program that the caller has. Without one, the run
	// makes one for itself where it pays.
	Held *Held
	// Progress, if set, is called every ProgressInterval on the goroutine
	// that called Run, while the workers go on.
	Progress func(LiveStats)
	// ProgressInterval is one second if it is 0.
	ProgressInterval time.Duration
}

// LiveStats is what a run did, or has done so far.
type LiveStats struct {
	// Frames is how many frames the program ran on. If Uncertain is not 0, it
	// may have been up to that many more.
	Frames, Uncertain int64
	// Missed is how many frames Rate asked for, up to the last that ran, that
	// could not be run in time.
	Missed int64
	// Batches is how many batches the kernel made of them, in how many Calls.
	Batches, Calls int64
	// Wall is the time from the first frame to the last.
	Wall time.Duration
	// PerFrame is the kernel's mean time of one frame, on one CPU.
	PerFrame time.Duration
	// Held is whether the program was in the XDP dispatcher all along, and
	// NotHeld why it was not: nil if there was no need.
	Held    bool
	NotHeld error
	// LimitedBy is what kept the run from being faster.
	LimitedBy LiveLimit
	// Workers is the share of each worker, in the order of the request's CPUs.
	Workers []LiveWorkerStats
}

// LiveWorkerStats is the part of a [LiveStats] that one worker had.
type LiveWorkerStats struct {
	CPU               int // -1 if it was not bound to one
	Frames, Uncertain int64
	Missed            int64
	Batches, Calls    int64
	Wall              time.Duration
	PerFrame          time.Duration
}

// FramesPerSecond is the mean rate of the run.
func (s *LiveStats) FramesPerSecond() float64 { return perSecond(s.Frames, s.Wall) }

// FramesPerSecond is the mean rate of the worker.
func (s *LiveWorkerStats) FramesPerSecond() float64 { return perSecond(s.Frames, s.Wall) }

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// LiveLimit is what keeps a run of live frames from being faster.
type LiveLimit uint8

const (
	LimitCPU        LiveLimit = iota // the kernel's work on each frame
	LimitRate                        // the request's Rate, of which at most 1 % was missed
	LimitDispatcher                  // entering and leaving the XDP dispatcher, for want of a hold
)

// String gives "CPU", "rate" or "XDP dispatcher".
func (l LiveLimit) String() string {
	return name(int64(l), "LiveLimit", "CPU", "rate", "XDP dispatcher")
}

var liveNames = fieldNames{
	"data_size_in": "Packet", "batch_size": "BatchSize", "ctx_size_in": "Metadata", "ctx.data": "Metadata",
	"ctx.data_end": "Packet", "ctx.ingress_ifindex": "Ifindex",
}

// Run runs prog, of type [ebpf.XDP], on frames until Frames of them are done
// or ctx ends: the last frame leaves at most 10 ms after that, or, where the
// program could not be held, at the end of a call of some 100 ms. The end of
// ctx is an error only if Frames were asked for. The stats are valid beside any
// error.
//
// Before the first frame, the request is checked as a whole; an [Error] of
// that time has Ran at RanNo.
func (l Live) Run(ctx context.Context, prog *ebpf.Program) (LiveStats, error) {
	_, err := xdpTypes.descriptor("Live", prog)
	if err == nil {
		err = l.check(ctx)
	}
	if err != nil {
		return LiveStats{}, err
	}
	// A descriptor of its own: the caller may close prog in the middle, and
	// the number could then be that of another program.
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

// check refuses what the kernel cannot be asked about.
func (l *Live) check(ctx context.Context) error {
	if ctx == nil {
		return refuse("Live", "", "", "the context is nil", syscall.EINVAL)
	}
	if err := atLeastEthernet("Live", len(l.Packet)); err != nil {
		return err
	}
	if err := fitsPage("Live", len(l.Metadata)); err != nil {
		return err
	}
	if len(l.Packet)+len(l.Metadata) > maxPacket {
		return refuse("Live", "Packet", size(len(l.Packet)), "a live frame fits in a page", syscall.EINVAL)
	}
	if l.BatchSize > maxBatchSize {
		return refuse("Live", "BatchSize", strconv.Itoa(l.BatchSize), overMaxBatchSize, syscall.E2BIG)
	}
	if l.Frames < 0 {
		return refuse("Live", "Frames", strconv.FormatInt(l.Frames, 10), "it cannot be negative", syscall.EINVAL)
	}
	if l.Frames == 0 && ctx.Done() == nil {
		return refuse("Live", "Frames", "0", "the run would never end, for its context cannot", syscall.EINVAL)
	}
	for _, f := range []struct {
		field string
		n     int
		most  uint32
	}{
		{"Ifindex", l.Ifindex, math.MaxInt32},
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

// askKernel finds out whether a run would be legal, without one: a kernel that
// has live frames refuses an interface that cannot exist, and only that.
func (l *Live) askKernel(prog *ebpf.Program) error {
	if err := wantLiveFrames("Live", prog); err != nil {
		return err
	}
	if l.Held != nil && !l.Held.holds(prog) {
		return refuse("Live", "Held", "", "the hold is on another program", syscall.EINVAL)
	}
	data, ctx := l.input()
	ctx.ingressIfindex = noIfindex
	a := l.attr(uint32(prog.FD()), data, &ctx)
	errno := a.probe()
	if errno == syscall.ENODEV {
		return nil
	}
	c := newCall("Live", liveNames, prog, &a)
	copy(c.ctx[:], view(&ctx))
	return explain(errno, c)
}

// input is the data and context of every call.
func (l *Live) input() ([]byte, xdpMD) {
	data := make([]byte, 0, len(l.Metadata)+len(l.Packet))
	data = append(append(data, l.Metadata...), l.Packet...)
	return data, xdpMD{data: uint32(len(l.Metadata)), dataEnd: uint32(len(data)), ingressIfindex: uint32(l.Ifindex)}
}

func (l *Live) attr(fd uint32, data []byte, ctx *xdpMD) attr {
	a := newAttr(fd, data, nil, view(ctx), nil, 0, 0)
	a.flags, a.batchSize = testXDPLiveFrames, uint32(l.batch())
	return a
}

func (l *Live) batch() int {
	if l.BatchSize == 0 {
		return defaultBatchSize
	}
	return l.BatchSize
}
