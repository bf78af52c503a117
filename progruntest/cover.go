package progruntest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun/cover"
)

// coverOptions is what Cover set.
var coverOptions cover.Options

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
// A collection that loads only without probes is loaded without them, and the test's
// log says why. Its lines are [cover.Unknown], unless other tests reach them. See
// [cover] for the reports.
func Cover(opts cover.Options) { coverOptions = opts }

// covered calls load with spec, which is a copy. If coverage is wanted, spec has
// probes, unless it does not load with them. The profile is written when the test
// ends.
func covered(tb testing.TB, spec *ebpf.CollectionSpec, load func(*ebpf.CollectionSpec) error) {
	tb.Helper()
	if !cover.Wanted() {
		Need(tb, load(spec))
		return
	}
	probed := spec.Copy()
	counters, refused := cover.Instrument(probed, &coverOptions)
	if refused == nil {
		refused = counters.Explain(load(probed))
	}
	if refused != nil {
		counters.Close()
		Need(tb, load(spec)) // the error of a program that is wrong itself has no probes in it
		if errors.Is(refused, cover.ErrInstrumented) {
			return // the test has counters of its own
		}
		tb.Logf("loaded without probes: %v", refused)
		opts := coverOptions
		opts.Skip = slices.Collect(maps.Keys(spec.Programs))
		counters, refused = cover.Instrument(spec, &opts)
		Need(tb, refused)
	}
	tb.Cleanup(func() {
		tb.Helper()
		if err := counters.Close(); err != nil {
			tb.Error(err)
		}
	})
}
