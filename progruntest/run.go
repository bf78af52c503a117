package progruntest

import (
	"testing"

	"github.com/cilium/ebpf"
)

// Request is a request of progrun, such as [progrun.XDP] or [progrun.TC]. All
// requests implement it except [progrun.Live], whose Run takes a context.
type Request[R any] interface {
	Run(*ebpf.Program) (R, error)
}

// Run runs prog and returns the result. Errors go to [Need], so a test is skipped if
// the kernel cannot run such programs. The compiler infers R:
//
//	res := progruntest.Run(t, prog, progrun.XDP{Packet: packet})
func Run[R any](tb testing.TB, prog *ebpf.Program, req Request[R]) R {
	tb.Helper()
	checkNetNS(tb)
	res, err := req.Run(prog)
	Need(tb, err)
	return res
}
