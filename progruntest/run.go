package progruntest

import (
	"testing"

	"github.com/cilium/ebpf"
)

// Request is a request of progrun: [progrun.XDP], [progrun.TC] and all others
// but [progrun.Live], whose Run has a context.
type Request[R any] interface {
	Run(*ebpf.Program) (R, error)
}

// Run runs prog and returns the result. Errors go to [Need]: a kernel that
// cannot run such programs skips the test. The compiler finds R by itself:
//
//	res := progruntest.Run(t, prog, progrun.XDP{Packet: packet})
func Run[R any](tb testing.TB, prog *ebpf.Program, req Request[R]) R {
	tb.Helper()
	checkNetNS(tb)
	res, err := req.Run(prog)
	Need(tb, err)
	return res
}
