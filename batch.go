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
	// (EINVAL). 0 means 1. Use more than one only if the program does not depend
	// on the order of its inputs. Results still come in the order of the inputs,
	// but in groups: up to 128 inputs for each worker may have been pulled, and
	// run, ahead of the one that was yielded last. The first 1,024 inputs run one by
	// one, which is as fast.
	//
	// Workers run in the network namespace of the calling thread. If the thread is
	// not in the process's own namespace, following it takes CAP_SYS_ADMIN and
	// /proc. A worker that cannot follow leaves its work to the others.
	Workers int
	// Ahead is how many inputs may have been pulled, and run, ahead of the one
	// that was yielded last. 0 means none with one worker, and 128 for each of
	// several. A larger number lets many packets of an XDP program run in one
	// system call: see [Batch]. 512 are enough for one worker, and 1024 for each
	// of several.
	Ahead int
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
	maxWorkers  = 1024
	inputsAlone = 1024 // inputs that run before workers start: waking workers for fewer costs more than it gains
)

// Batch returns an iterator that runs a program on many requests of one type. It
// yields exactly one result or one error for each input, in order. An error is an
// [*Error] whose Input is the number of the input. With [Packets], the inputs are
// packets:
//
//	for res, err := range progrun.Batch(prog, progrun.Packets(progrun.XDP{}, packets), nil) {
//
// A request and what it points to must stay valid until the next request is pulled.
// One worker without Ahead pulls inputs one by one, and runs nothing after the last
// one that was yielded.
//
// A result is valid until the next one is yielded. The last one stays valid, so a
// loop can break and keep what it found. The Request of a result points to what the
// caller passed or, if inputs run ahead, to a copy. Results share memory for their
// outputs. If a request has an Out of its own, its output goes there and stays
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
// then takes a tenth of the time. Making the carrier takes tens of milliseconds, in
// which single runs go on. Releasing it takes as long, and happens after the loop
// without making it wait.
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
				if !a.add(n, &req, carry) {
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
