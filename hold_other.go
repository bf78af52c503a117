//go:build !linux

package progrun

import "github.com/cilium/ebpf"

// attach returns an error that says why programs cannot be held here.
func (*Hold) attach(*ebpf.Program) error {
	return &Error{Request: "Hold", Rule: "XDP programs run on Linux only", Err: unsupported{enotsupp}}
}

func programID(*ebpf.Program) (uint32, error) { return 0, nil }

func hasDispatcher(*ebpf.Program) bool { return true }

func notHeld(*ebpf.Program) error { return nil }
