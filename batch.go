package progrun

import (
	"errors"
	"iter"
	"math"

	"github.com/cilium/ebpf"
)

// BatchOptions configures [Batch]. The zero value, like nil, runs the inputs one
// by one and ends at the first error.
type BatchOptions struct {
	// KeepGoing runs the inputs after one that failed too. Otherwise an error
	// is the last that is yielded.
	KeepGoing bool
	// Workers is how many goroutines run the program at a time, at most 1024
	// (EINVAL); 0 means 1. More than one is for programs to which the order of
	// their inputs means nothing. Results come in the order of the inputs all
	// the same, but in groups, and up to 128 inputs for each worker may have
	// been pulled, and run, ahead of the one that was yielded last. The first
	// 512 inputs run one by one, which is as fast.
	//
	// Workers run in the network namespace of the calling thread. If that was
	// moved to another than the process's, following it takes CAP_SYS_ADMIN
	// and /proc; a worker that cannot follow leaves its work to the others.
	Workers int
	// Ahead is how many inputs may have been pulled, and run, ahead of the one
	// that was yielded last. 0 means none with one worker, and 128 for each of
	// several. With more, many packets of an XDP program run in one system call:
	// Batch says how. 512 are enough, and 1024 for each of several workers.
	Ahead int
	// Stats, if it is not nil, is filled in when the loop ends.
	Stats *BatchStats
}

// BatchResult is what became of one input of a [Batch].
type BatchResult[Q, R any] struct {
	// Input is the number of the input, from 1.
	Input int
	// Request is the input.
	Request Q
	// Result is the result of its run. It is zero beside an error.
	Result R
}

const (
	maxWorkers  = 1024
	inputsAlone = 512 // run before workers start: what fewer would gain is lost in waking them
)

// Batch runs a program on many requests of one type. Each input gives exactly one
// result or one error, in order. An error is an [*Error] whose Input is the number
// of the input. With [Packets], the inputs are packets:
//
//	for res, err := range progrun.Batch(prog, progrun.Packets(progrun.XDP{}, packets), nil) {
//
// A request and what it points to need only be valid until the next one is pulled.
// With one worker, inputs are pulled one by one, and nothing runs beyond the last
// one that was yielded.
//
// A result is valid until the next one is yielded, and the last one for good, so
// that a loop which breaks off can keep what it found. Until then its Request still
// points to what the caller passed or, with several workers, to a copy. Results
// share memory for their outputs. A request with an Out of its own has its output
// there, where it stays; with several workers, no two requests may share an Out.
//
// Memory does not grow with the number of inputs, and no goroutine outlives the
// loop, but for what lets go of a carrier. A batch whose options are wrong yields
// one error, of input 0.
//
// # Many packets in one system call
//
// With room to run ahead, a batch of [XDP] requests, or of [Any] on an XDP program,
// makes a carrier: an XDP program of its own that the kernel repeats, and that
// writes one packet after another into the buffer and tail-calls prog. A run then
// takes a tenth of the time. Single runs go on for the tens of milliseconds that
// the carrier is being made. It is let go of behind the loop's back, in as long.
//
// Results and errors are those of single runs, in the same order. What differs:
// PerRun is a mean over many runs and contains the carrier's own work, some 60 ns
// and more with the packet; prog can make 32 tail calls in a row in place of 33;
// fentry and fexit programs on prog, and the kernel's statistics, do not see the
// runs; and as long as prog is in the carrier's array of programs the kernel may
// refuse to attach freplace programs to it.
//
// Requests with anything but Packet, Metadata, Out and NoOutput, and packets that
// do not fit in the linear part, run by themselves in their place in the order.
// All do where there can be no carrier: before Linux 5.18, without CAP_BPF,
// CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN, without the JIT, and for programs
// that no array of programs takes. [BatchStats] tells.
func Batch[Q Request[Q, R], R any](prog *ebpf.Program, requests iter.Seq[Q], opts *BatchOptions) iter.Seq2[BatchResult[Q, R], error] {
	var o BatchOptions
	if opts != nil {
		o = *opts
	}
	return func(yield func(BatchResult[Q, R], error) bool) {
		err := inRange("Batch", "Workers", o.Workers, maxWorkers)
		if err == nil {
			err = inRange("Batch", "Ahead", o.Ahead, math.MaxInt32)
		}
		if err != nil {
			yield(BatchResult[Q, R]{}, err)
			return
		}
		n := 0
		c := newCarriage[Q, R](prog, o)
		defer c.stop(&n)
		var a *ahead[Q, R]
		var lent Q // a request with memory for its output
		lentOut := lent.outIn(&lent)
		var out []byte
		for req := range requests {
			n++
			if n == carryAfter {
				c.look(req)
			}
			if carry := c.ready(n); carry || n > inputsAlone && o.Workers > 1 {
				if a == nil {
					a = runAhead(prog, o, c, yield)
					defer a.stop()
				}
				if !a.add(n, req, carry) {
					return
				}
				continue
			}
			if a != nil && !a.finish() {
				return
			}
			res := BatchResult[Q, R]{Input: n, Request: req}
			lent = req
			if room := req.room(); room > 0 {
				out = grow(out, room, true)
				*lentOut = out
			}
			var err error
			if res.Result, err = lent.Run(prog); err != nil {
				err = numbered(err, n)
			}
			if !yield(res, err) || err != nil && !o.KeepGoing {
				return
			}
		}
		if a != nil {
			a.finish()
		}
	}
}

// Packets returns a request for each packet: req with the packet in place of its
// own, and without its Out, which the packets would share.
func Packets[Q PacketRequest[Q, R], R any](req Q, packets iter.Seq[[]byte]) iter.Seq[Q] {
	return func(yield func(Q) bool) {
		each := req
		if out := req.outIn(&each); out != nil {
			*out = nil
		}
		packet := req.packetIn(&each)
		for *packet = range packets {
			if !yield(each) {
				return
			}
		}
	}
}

// numbered returns the error with the number of its input.
func numbered(err error, n int) error {
	var e *Error
	if errors.As(err, &e) {
		of := *e
		of.Input = n
		return &of
	}
	return err
}

// grow returns an output buffer for a packet of n bytes: b, if that is large
// enough. It has room for a packet to grow in. Where the kernel writes directly it
// must have room for all that a program could make of the packet, which is worth it
// for one large packet at a time.
func grow(b []byte, n int, direct bool) []byte {
	n += 256
	if direct && n > 1024 {
		n += 4*pageSize + xdpHeadroom
	}
	if cap(b) < n {
		return make([]byte, 0, n)
	}
	return b
}
