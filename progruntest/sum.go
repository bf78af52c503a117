package progruntest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
)

// Sum returns the sum of the values that a per-CPU map has for key, one for each CPU.
//
// V is an integer, a float, or an array or struct of these, and has the size of the
// map's values. Arrays and structs are added element by element and field by field.
// If a hash does not have the key, Sum returns zero. Other errors fail the test.
func Sum[V any](tb testing.TB, m *ebpf.Map, key any) V {
	tb.Helper()
	checkMap(tb, m)
	var total V
	if err := addable(reflect.TypeFor[V]()); err != nil {
		tb.Fatalf("%v: cannot add up values of type %T: %v", m, total, err)
	}
	var hash bool
	switch m.Type() {
	case ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		hash = true
	case ebpf.PerCPUArray:
	default:
		tb.Fatalf("%v has one value for all CPUs: read it with Lookup", m)
	}
	var values []V
	if err := m.Lookup(key, &values); err != nil && !(hash && errors.Is(err, ebpf.ErrKeyNotExist)) {
		tb.Fatalf("%v, with keys of %d and values of %d bytes: look up %v: %v", m, m.KeySize(), m.ValueSize(), key, err)
	}
	for i := range values {
		add(reflect.ValueOf(&total).Elem(), reflect.ValueOf(&values[i]).Elem())
	}
	return total
}

// checkMap fails the test if m is nil, as a map is whose name is misspelt.
func checkMap(tb testing.TB, m *ebpf.Map) {
	tb.Helper()
	if m == nil {
		tb.Fatal("the map is nil: the collection has no map of that name")
	}
}

// addable returns an error unless add can add up values of type t.
func addable(t reflect.Type) error {
	switch {
	case t.Kind() == reflect.Array:
		return addable(t.Elem())
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			switch f := t.Field(i); {
			case f.Name == "_":
			case !f.IsExported():
				return fmt.Errorf("the field %s is not exported", f.Name)
			default:
				if err := addable(f.Type); err != nil {
					return err
				}
			}
		}
	case !reflect.Zero(t).CanInt() && !reflect.Zero(t).CanUint() && !reflect.Zero(t).CanFloat():
		return fmt.Errorf("%s is no number", t)
	}
	return nil
}

// add adds v to total.
func add(total, v reflect.Value) {
	switch {
	case v.CanInt():
		total.SetInt(total.Int() + v.Int())
	case v.CanUint():
		total.SetUint(total.Uint() + v.Uint())
	case v.CanFloat():
		total.SetFloat(total.Float() + v.Float())
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			add(total.Index(i), v.Index(i))
		}
	default:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				add(total.Field(i), v.Field(i))
			}
		}
	}
}
