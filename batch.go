package progrun

import (
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
)

// The kernel's rules for the batch size of live frames.
const (
	maxBatchSize     = 256 // TEST_XDP_MAX_BATCH
	defaultBatchSize = 64  // NAPI_POLL_WEIGHT
)

const overMaxBatchSize = "over the kernel's 256"

// PacketRequest is what [Batch] runs: a request with a packet. [XDP], [TC],
// [SocketFilter], [CGroupSKB], [LWT], [FlowDissector] and [Netfilter] are.
type PacketRequest[Q, R any] interface {
	// WithPacket is the request with another packet, and with out in place of
	// its output buffer if it has one.
	WithPacket(packet, out []byte) Q
	Run(*ebpf.Program) (R, error)
}

// BatchOptions say how a [Batch] goes. The zero value is one to start from.
type BatchOptions struct {
	// KeepGoing runs the inputs after one that failed too. Otherwise an error
	// is the last that is yielded.
	KeepGoing bool
}

// Batch runs a program on many packets: req with each packet in place of its
// own. It yields a result or an error for each, in order. Inputs are pulled
// one by one, and nothing runs beyond the last one that was yielded:
//
//	for res, err := range progrun.Batch(prog, progrun.XDP{}, packets, progrun.BatchOptions{}) {
//
// What a result points to is valid until the next one: all packets share one
// output buffer, and the Out of req is not used. Memory does not grow with the
// number of inputs.
//
// An error is an [*Error] whose Input is the number of the input, from 1.
func Batch[Q PacketRequest[Q, R], R any](prog *ebpf.Program, req Q, packets iter.Seq[[]byte], opts BatchOptions) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		s := scratch.Get().(*[]byte)
		defer scratch.Put(s)
		n := 0
		for packet := range packets {
			n++
			res, err := req.WithPacket(packet, *s).Run(prog)
			if err != nil {
				err = numbered(err, n)
			}
			if !yield(res, err) || err != nil && !opts.KeepGoing {
				return
			}
		}
	}
}

// numbered says in an error which input it was.
func numbered(err error, n int) error {
	var e *Error
	if errors.As(err, &e) {
		e.Input = n
		return e
	}
	return fmt.Errorf("progrun: input %d: %w", n, err)
}
