//go:build !(386 || arm || mips || mipsle)

package progrun

import "unsafe"

// pointer is a pointer in the 64 bits that bpf_attr has for it. It stays an
// unsafe.Pointer, so that the garbage collector keeps what it points to, and
// a stack that grows takes it along.
type pointer struct {
	ptr unsafe.Pointer
}
