//go:build !linux

package progrun

import "syscall"

const supported = false

func progRun(*attr, uintptr) syscall.Errno { return enotsupp }

func progRunBlocked(*attr, uintptr) syscall.Errno { return enotsupp }
