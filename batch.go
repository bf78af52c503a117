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
	// KeepGoing makes the batch go on after an error. Otherwise the batch ends
	// with the first error.
	KeepGoing bool
	// Workers is how many goroutines run the program at a time, at most 1024
	// (EINVAL). 0 means 1. The caller's goroutine is one of them: it runs inputs
	// when it would otherwise wait. Use more than one only if the program does not
	// depend on the order of its inputs. Results still come in the order of the
	// inputs, but in groups: up to 128 inputs for each worker may have been pulled,
	// and run, ahead of the one that was yielded last. The first 1,024 inputs run
	// one by one, which is as fast.
	//
	// Workers run in the network namespace of the calling thread. If the thread is
	// not in the process's own namespace, following it takes CAP_SYS_ADMIN and
	// /proc. A worker that cannot follow leaves its work to the others.
	Workers int
	// Ahead is how many inputs may have been pulled, and run, ahead of the one
	// that was yielded last. 0 means none with one worker, and 128 for each of
	// several. A larger number lets many packets of an XDP program run in one
	// system call: see [Batch]. 1,024 are enough for one worker, and 16,384 for
	// several.
	Ahead int
	// NoCopy says that a request, and what it points to, stays as it is until its
	// result has been yielded. Inputs that run ahead are not copied then, which is
	// faster, above all with several workers. Set it if the packets lie in memory,
	// such as those of a capture, and not if they are read into one buffer: then
	// results would be those of other packets.
	NoCopy bool
	// Stats, if it is not nil, is filled in when the loop ends.
	Stats *BatchStats
}

// BatchResult is the result of one input of a [Batch].
type BatchResult[Q, R any] struct {
	// Input is the number of the input, from 1.
	Input int
	// Request is the input.
	Request Q
	// Result is the result of the run. It is zero if the input gave an error.
	Result R
}

const (
	maxWorkers = 1024
	// inputsAlone is how many inputs run before workers start and a carrier is thought
	// of. For fewer, that costs more than it gains.
	inputsAlone = 1024
)

// Batch returns an iterator that runs a program on many requests of one type. It
// yields exactly one result or one error for each input, in order. An error is an
// [*Error] whose Input is the number of the input. With [Packets], the inputs are
// packets:
//
//	for res, err := range progrun.Batch(prog, progrun.Packets(progrun.XDP{}, packets), nil) {
//
// A request and what it points to must stay valid until the next request is pulled, or
// longer if NoCopy is set. One worker without Ahead pulls inputs one by one, and runs
// nothing after the last one that was yielded.
//
// A result is valid until the loop goes on to the next one. The last one stays valid, so
// a loop can break and keep what it found. The Request of a result points to what the
// caller passed or, if inputs run ahead without NoCopy, to a copy. Results share memory
// for their outputs. If a request has an Out of its own, its output goes there and stays
// there. If inputs run ahead, no two requests may share an Out.
//
// Memory does not grow with the number of inputs. No goroutine outlives the loop,
// except those that release a carrier. A batch whose options are wrong yields one
// error, of input 0.
//
// # Many packets in one system call
//
// If Ahead is set, a batch of [XDP] requests, or of [Any] on an XDP program, makes a
// carrier. This is an XDP program of the batch's own, which the kernel repeats. It
// writes one packet after another into the kernel's buffer and tail-calls prog. A run
// then takes a tenth of the time. The carrier is made after 16,384 inputs, and after two
// or four times as many if there is no processor to make it on. That takes tens of
// milliseconds, in which single runs go on. Releasing it takes as long, and happens after
// the loop without making it wait. Each worker has a quarter of a megabyte of memory for
// it, or half of one with outputs. Copies of packets take another quarter of a megabyte
// with one worker, and n+6 times as much with n workers. At most 64 workers carry.
//
// With several workers, the others carry while the caller's goroutine pulls and yields.
// With NoCopy, two are 1.5 to 1.9 times as fast as one in a long batch. Without it, they
// are 1.4 to 1.7 times as fast with packets of 64 bytes, and 0.9 to 1.4 times with packets
// of 1,500 bytes, as these move from one processor's cache to another's. More workers help
// only if the program takes more than some 100 ns. Two batches at once, each with inputs
// of its own, are 1.6 to 1.8 times as fast as one.
//
// Results and errors are those of single runs, in the same order, except:
//
//   - PerRun is a mean over many runs, and includes the carrier's own work: some 60
//     ns, and more for longer packets.
//   - prog can make 32 tail calls in a row instead of 33.
//   - fentry and fexit programs on prog do not see the runs, nor do the kernel's
//     statistics.
//   - While prog is in the carrier's array of programs, the kernel may refuse to
//     attach freplace programs to it.
//
// Some requests run by themselves, in their place in the order: those with fields
// other than Packet, Metadata, Out and NoOutput, and those whose packet does not fit
// in the linear part. All requests do so if there can be no carrier: before Linux
// 5.18, without CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN, without the
// JIT, and if prog does not fit in an array of programs. [BatchStats] says so.
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
		b := batch[Q, R]{prog: prog, opts: o, yield: yield}
		defer b.end()
		b.run(requests)
	}
}

// batch is a loop over a batch.
type batch[Q Request[Q, R], R any] struct {
	prog     *ebpf.Program
	opts     BatchOptions
	yield    func(BatchResult[Q, R], error) bool
	n        int // number of inputs that were pulled
	req      Q   // the last one
	lent     Q   // the request that runs by itself, with memory for its output
	lentOut  *[]byte
	out      []byte
	ahead    *ahead[Q, R]    // nil until inputs run ahead
	carriage *carriage[Q, R] // nil until inputs could be carried
}

func (b *batch[Q, R]) run(requests iter.Seq[Q]) {
	b.lentOut = b.lent.outIn(&b.lent)
	for b.req = range requests {
		b.n++
		if !b.take() {
			return
		}
	}
	b.finish()
}

// take takes the last input. It reports whether to go on.
func (b *batch[Q, R]) take() (goOn bool) {
	if b.n == inputsAlone && b.opts.Ahead > 0 {
		b.carriage = newCarriage[Q, R](b.prog, b.opts)
	}
	carry := b.carriage.ready(b.n, &b.req)
	if !carry && (b.n <= inputsAlone || b.opts.Workers <= 1) {
		return b.finish() && b.runOne()
	}
	if b.ahead == nil {
		b.ahead = runAhead(b.prog, b.opts, b.carriage, b.yield)
	}
	return b.ahead.add(b.n, &b.req, carry)
}

// finish yields what has run ahead. It reports whether to go on.
func (b *batch[Q, R]) finish() (goOn bool) { return b.ahead == nil || b.ahead.finish() }

// runOne runs the last input by itself. It reports whether to go on.
func (b *batch[Q, R]) runOne() (goOn bool) {
	res := BatchResult[Q, R]{Input: b.n, Request: b.req}
	b.lent = b.req
	if room := b.req.room(); room > 0 {
		b.out = grow(b.out, room, true)
		*b.lentOut = b.out
	}
	var err error
	if res.Result, err = b.lent.Run(b.prog); err != nil {
		err = numbered(err, b.n)
	}
	return b.yield(res, err) && (err == nil || b.opts.KeepGoing)
}

// end releases everything, and fills in the stats.
func (b *batch[Q, R]) end() {
	if b.ahead != nil {
		b.ahead.stop()
	}
	if b.carriage != nil {
		b.carriage.release()
	}
	if b.opts.Stats == nil {
		return
	}
	*b.opts.Stats = BatchStats{Inputs: int64(b.n)}
	if b.opts.Ahead == 0 {
		return
	}
	if b.carriage == nil {
		b.carriage = newCarriage[Q, R](b.prog, b.opts) // knows whether it could carry
	}
	b.opts.Stats.Carried, b.opts.Stats.CarryErr = b.carriage.count, b.carriage.why()
}

// Packets returns an iterator over requests, one for each packet. A request is req
// with the packet in place of its own, and without its Out, which the packets would
// share.
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

// numbered returns the error with the number of an input.
func numbered(err error, n int) error {
	var e *Error
	if errors.As(err, &e) {
		of := *e
		of.Input = n
		return &of
	}
	return err
}

// grow returns an output buffer for a packet of n bytes. It is b if that is large
// enough. The buffer has room for the packet to grow. If direct is set, the buffer of
// a large packet has room for all that a program could make of the packet, so that the
// kernel writes to it directly. That pays only for one packet at a time.
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
