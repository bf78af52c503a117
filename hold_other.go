//go:build !linux

package progrun

import "github.com/cilium/ebpf"

// Held keeps a program in the kernel's XDP dispatcher, on Linux.
type Held struct{}

// Hold keeps an XDP program in the kernel's XDP dispatcher, on Linux.
func Hold(prog *ebpf.Program) (*Held, error) {
	return nil, &Error{Request: "Hold", Rule: "XDP programs run on Linux only", Err: unsupported{enotsupp}}
}

// Close does nothing.
func (*Held) Close() error { return nil }

func (*Held) holds(*ebpf.Program) bool { return false }
