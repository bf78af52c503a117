package progrun

import (
	"time"

	"github.com/cilium/ebpf"
)

// Request is a request that [Batch] runs: [XDP], [TC], [SocketFilter],
// [CGroupSKB], [LWT], [FlowDissector], [Netfilter], [SkLookup] or [Any]. Q is
// the type of the request, and R is the type of its result. Other packages can use
// the interface as a constraint of type parameters, but cannot implement it.
type Request[Q, R any] interface {
	Run(*ebpf.Program) (R, error)
	// room returns how many bytes of output a batch must lend memory for. It is 0
	// if the request has no output, or an Out of its own.
	room() int
	// outIn returns a pointer to a request's Out, or nil if it has none.
	outIn(*Q) *[]byte
	// keep returns the request with a copy, in *memory, of all that it points to.
	keep(memory *[]byte) Q
}

// PacketRequest is a [Request] with a packet: any but [SkLookup]. [Packets] and
// [Measure] take these.
type PacketRequest[Q, R any] interface {
	Request[Q, R]
	// packetIn returns a pointer to a request's packet.
	packetIn(*Q) *[]byte
	// repeated returns the request with another Repeat, with or without output,
	// and without an Out.
	repeated(n int, noOutput bool) Q
	// timing returns the mean time of a run, and whether the program changed its
	// input.
	timing(R) (perRun time.Duration, changed bool)
}

// room returns how much memory a batch must lend a request for n bytes of output.
func room(n int, out []byte, noOutput bool) int {
	if noOutput || out != nil {
		return 0
	}
	return n
}
