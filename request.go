package progrun

import (
	"time"

	"github.com/cilium/ebpf"
)

// Request is a request that [Batch] runs: [XDP], [TC], [SocketFilter],
// [CGroupSKB], [LWT], [FlowDissector], [Netfilter], [SkLookup] or [Any]. Q is
// the type of the request, and R that of its result. Other packages can name
// the interface in their type parameters, but not implement it.
type Request[Q, R any] interface {
	Run(*ebpf.Program) (R, error)
	// room returns how many bytes of output the request needs to be lent
	// memory for: 0 if it has no output, or says itself where to put it.
	room() int
	// outIn returns where a request has its Out, or nil if it has none.
	outIn(*Q) *[]byte
	// keep returns the request with a copy, in *memory, of what it points to.
	keep(memory *[]byte) Q
}

// PacketRequest is a [Request] with a packet: any but [SkLookup]. It is what
// [Packets] fills in and what [Measure] measures.
type PacketRequest[Q, R any] interface {
	Request[Q, R]
	// packetIn returns where a request has its packet.
	packetIn(*Q) *[]byte
	// repeated returns the request with another Repeat, with or without output,
	// and without an Out.
	repeated(n int, noOutput bool) Q
	// timing returns the mean time of a run, and whether the program left its
	// input other than it was.
	timing(R) (perRun time.Duration, changed bool)
}

// room returns how much memory a request needs to be lent for n bytes of output.
func room(n int, out []byte, noOutput bool) int {
	if noOutput || out != nil {
		return 0
	}
	return n
}
