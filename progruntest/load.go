package progruntest

import (
	"io"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// NewCollection loads the programs and maps of spec, and closes them when the
// test ends.
//
// It works on a copy of spec, and lifts the limit on locked memory, as kernels
// before 5.11 need. It does not pin the maps that spec pins, and says so in the
// test's log. So each test has maps of its own, and leaves no files behind. Errors
// go to [Need]. If PROGRUN_COVERDIR is set, the programs report coverage; see
// [Cover].
func NewCollection(tb testing.TB, spec *ebpf.CollectionSpec) *ebpf.Collection {
	tb.Helper()
	var coll *ebpf.Collection
	covered(tb, loadable(tb, spec), func(spec *ebpf.CollectionSpec) (err error) {
		coll, err = ebpf.NewCollection(spec)
		return err
	})
	tb.Cleanup(coll.Close)
	return coll
}

// LoadAndAssign is like [NewCollection], but assigns programs and maps to the fields
// of the struct that to points to, such as one that bpf2go generates. It loads only
// these, as [ebpf.CollectionSpec.LoadAndAssign] does, and closes them when the test
// ends.
func LoadAndAssign(tb testing.TB, spec *ebpf.CollectionSpec, to any) {
	tb.Helper()
	covered(tb, loadable(tb, spec), func(spec *ebpf.CollectionSpec) error {
		return spec.LoadAndAssign(to, nil)
	})
	tb.Cleanup(func() { closeFields(reflect.ValueOf(to)) })
}

// loadable returns a copy of spec that pins nothing.
func loadable(tb testing.TB, spec *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	tb.Helper()
	checkNetNS(tb)
	if spec == nil {
		tb.Fatal("the CollectionSpec is nil: see the error that came with it")
	}
	Need(tb, rlimit.RemoveMemlock())
	spec = spec.Copy()
	for name, m := range spec.Maps {
		if m.Pinning != ebpf.PinNone {
			tb.Logf("map %s: not pinned, so that the test has a map of its own and leaves no file", name)
			m.Pinning = ebpf.PinNone
		}
	}
	return spec
}

// closeFields closes the fields that LoadAndAssign assigned: those with a tag, in
// nested structs too.
func closeFields(v reflect.Value) {
	v = reflect.Indirect(v)
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("ebpf") == "" {
			closeFields(v.Field(i))
		} else if c, ok := v.Field(i).Interface().(io.Closer); ok {
			c.Close()
		}
	}
}
