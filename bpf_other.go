//go:build !linux

package progrun

import (
	"syscall"
	"unsafe"
)

const supported = false

const replaced = syscall.Errno(4096)

func progRun(unsafe.Pointer, uintptr) syscall.Errno { return enotsupp }

func progRunBlocked(unsafe.Pointer, uintptr) syscall.Errno { return enotsupp }
