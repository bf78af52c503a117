//go:build !linux

package progrun

import (
	"context"

	"github.com/cilium/ebpf"
)

// start returns an error that says why there are no live frames here.
func (l *Live) start(context.Context, *ebpf.Program) (LiveStats, error) {
	return LiveStats{}, &Error{Request: "Live", Rule: "BPF programs run on Linux only", Err: unsupported{enotsupp}}
}
