//go:build !linux

package progruntest

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
)

// NetNS is a network namespace for a test. Only Linux has these.
type NetNS struct{}

// NewNetNS skips the test.
func NewNetNS(tb testing.TB) *NetNS {
	tb.Helper()
	Need(tb, notLinux("network namespaces"))
	return new(NetNS)
}

// Fd returns -1.
func (*NetNS) Fd() int { return -1 }

// Do skips the test.
func (*NetNS) Do(tb testing.TB, _ func(testing.TB)) {
	tb.Helper()
	Need(tb, notLinux("network namespaces"))
}

// Run skips the test.
func (*NetNS) Run(t *testing.T, _ string, _ func(*testing.T)) bool {
	t.Helper()
	Need(t, notLinux("network namespaces"))
	return false
}

func checkNetNS(testing.TB) {}

// Records skips the test.
func Records[T any](tb testing.TB, _ *ebpf.Map) (since func() []T) {
	tb.Helper()
	Need(tb, notLinux("BPF ring buffers"))
	return nil
}

func notLinux(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, ebpf.ErrNotSupported)
}
