//go:build 386 || arm || mipsle

package progrun

import "unsafe"

// pointer is a pointer in the 64 bits that bpf_attr has for it, the low half
// first. See ptr_64.go.
type pointer struct {
	ptr unsafe.Pointer
	_   uint32
}
