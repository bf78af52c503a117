//go:build !linux

package progrun

import "syscall"

const supported = false

const replaced = syscall.Errno(4096)

func progRun(*attr, uintptr) syscall.Errno { return enotsupp }

func progRunBlocked(*attr, uintptr) syscall.Errno { return enotsupp }
