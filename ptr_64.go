//go:build !(386 || arm || mips || mipsle)

package progrun

import "unsafe"

// pointer is a pointer in the 64 bits that bpf_attr has for it. As an
// unsafe.Pointer, it keeps its target from the garbage collector, and follows a
// stack that moves.
type pointer struct {
	ptr unsafe.Pointer
}
