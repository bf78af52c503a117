//go:build mips

package progrun

import "unsafe"

// pointer is a pointer in the 64 bits that bpf_attr has for it, the high half
// first. See ptr_64.go.
type pointer struct {
	_   uint32
	ptr unsafe.Pointer
}
