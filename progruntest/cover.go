package progruntest

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun/cover"
)

// coverOptions holds the options that Cover set.
var coverOptions atomic.Pointer[cover.Options]

// Cover sets the options with which the loaders of this package instrument programs
// for coverage. The loaders instrument programs if the environment variable
// PROGRUN_COVERDIR names a folder, with default options unless Cover was called. Call
// Cover before the tests run:
//
//	func TestMain(m *testing.M) {
//		progruntest.Cover(cover.Options{Branches: true, Skip: []string{"huge"}})
//		os.Exit(m.Run())
//	}
//
// See [cover] for the reports.
func Cover(opts cover.Options) { coverOptions.Store(&opts) }

// instrument adds probes to spec, which is a copy, if coverage is wanted. The profile is
// written when the test ends. Without coverage, instrument returns nil.
func instrument(tb testing.TB, spec *ebpf.CollectionSpec) *cover.Counters {
	tb.Helper()
	if !cover.Wanted() {
		return nil
	}
	counters, err := cover.Instrument(spec, coverOptions.Load())
	if errors.Is(err, cover.ErrInstrumented) { // the test does so itself
		return nil
	}
	Need(tb, err)
	tb.Cleanup(func() {
		tb.Helper()
		if err := counters.Close(); err != nil {
			tb.Error(err)
		}
	})
	return counters
}
