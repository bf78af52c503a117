//go:build !linux

package progrun

const cannotMove = "there are no network namespaces"

func onThread(f func() bool) { f() }

// netNS is a network namespace, of which other systems have none.
type netNS struct{}

func currentNetNS() (netNS, error) { return netNS{}, nil }

func (netNS) run(f func(error)) { f(nil) }

func (netNS) close() {}

type threadNetNS struct{}

func openThreadNetNS() threadNetNS { return threadNetNS{} }

func (threadNetNS) run(f func()) bool {
	f()
	return true
}

func (threadNetNS) close() {}
