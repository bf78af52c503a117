//go:build !linux

package progrun

// netNS is a network namespace, of which other systems have none.
type netNS struct{}

func currentNetNS() netNS { return netNS{} }

func (netNS) run(f func(error)) { f(nil) }

func (netNS) close() {}
