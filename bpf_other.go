//go:build !linux

package progrun

import "syscall"

const supported = false

func progRun(*attr, uintptr) syscall.Errno { return enotsupp }

type guard struct{}

func blockSignals() guard { return guard{} }

func (guard) release() {}
