//go:build !linux

package progrun

// netNS is a network namespace. Only Linux has any.
type netNS struct{}

func currentNetNS() netNS { return netNS{} }

func (netNS) run(f func(error)) { f(nil) }

func (netNS) close() {}
