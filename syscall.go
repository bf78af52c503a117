package progrun

import (
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Syscall runs a syscall program, once. Since Linux 5.14. See
// bpf_prog_test_run_syscall in the kernel's net/bpf/test_run.c.
//
// The program may sleep. No signal and no context ends the run. The kernel does
// not measure the time of these programs.
type Syscall struct {
	// Context is a pointer to the program's context, or nil if the program has
	// none. The program reads and writes the context in place.
	//
	// The context must have the same layout in C and in Go. It may consist of
	// integers with a size in their name, floats, and arrays and structs of these
	// without implicit padding: add a field named _ where C pads. It has at most
	// 65,535 bytes, and at least as many as the program uses (EINVAL).
	Context any
}

// SyscallResult is the result of a run of [Syscall].
type SyscallResult struct {
	// Return is the low 32 bits of what the program returned.
	Return int32
}

var syscallNames = fieldNames{"ctx_size_in": "Context"}

// Run runs prog, of type [ebpf.Syscall].
func (r Syscall) Run(prog *ebpf.Program) (SyscallResult, error) {
	fd, err := syscallTypes.descriptor("Syscall", prog)
	if err != nil {
		return SyscallResult{}, err
	}
	ctx, err := contextBytes(r.Context)
	if err != nil {
		return SyscallResult{}, err
	}
	a := newAttr(fd, nil, nil, ctx, nil, 0, 0)
	errno := progRun(&a, attrSize) // no signal can interrupt this type
	runtime.KeepAlive(prog)
	if errno != 0 {
		return SyscallResult{}, explain(errno, newCall("Syscall", syscallNames, prog, &a))
	}
	return SyscallResult{Return: int32(a.retval)}, nil
}

// contextBytes returns the memory that a context points to.
func contextBytes(ctx any) ([]byte, error) {
	if ctx == nil {
		return nil, nil
	}
	n, err := contextSize(reflect.TypeOf(ctx))
	if err != nil {
		return nil, err
	}
	v := reflect.ValueOf(ctx)
	if v.IsNil() {
		return nil, refuse("Syscall", "Context", "a nil "+v.Type().String(), "the pointer must point to something", syscall.EINVAL)
	}
	return unsafe.Slice((*byte)(v.UnsafePointer()), n), nil
}

// contextSizes keeps the results of contextSize for the types that passed.
var contextSizes sync.Map // of reflect.Type to uint32

// contextSize returns the size of what a pointer of type t points to. That must
// have the same layout in C.
func contextSize(t reflect.Type) (uint32, error) {
	if n, ok := contextSizes.Load(t); ok {
		return n.(uint32), nil
	}
	refused := func(rule string) (uint32, error) {
		return 0, refuse("Syscall", "Context", t.String(), rule, syscall.EINVAL)
	}
	if t.Kind() != reflect.Pointer {
		return refused("must be a pointer, since the program writes to it")
	}
	l, err := cLayout(t.Elem())
	switch {
	case err != nil:
		return refused(err.Error())
	case l.size == 0:
		return refused("a context of 0 bytes: pass nil for none")
	case l.size > maxCtx:
		return refused(fmt.Sprintf("%d bytes: a context is at most %d", l.size, maxCtx))
	}
	contextSizes.Store(t, uint32(l.size))
	return uint32(l.size), nil
}

// layout is the layout of a type in C on a 64-bit machine, in bytes.
type layout struct{ size, align int }

// cLayout returns the layout of a type that is laid out the same in C and in Go, on
// 32 and on 64 bits. For other types it returns an error that says why they differ.
func cLayout(t reflect.Type) (layout, error) {
	switch t.Kind() {
	case reflect.Int8, reflect.Uint8, reflect.Int16, reflect.Uint16, reflect.Int32, reflect.Uint32,
		reflect.Int64, reflect.Uint64, reflect.Float32, reflect.Float64:
		return layout{int(t.Size()), int(t.Size())}, nil
	case reflect.Array:
		l, err := cLayout(t.Elem())
		l.size *= t.Len()
		return l, err
	case reflect.Struct:
		return cStruct(t)
	case reflect.Bool:
		return layout{}, fmt.Errorf("holds a bool, which the program could set to neither true nor false: use uint8")
	case reflect.Int, reflect.Uint, reflect.Uintptr:
		return layout{}, fmt.Errorf("holds a value of type %s, whose size depends on the machine: use one with a size in its name", t)
	}
	return layout{}, fmt.Errorf("holds a value of type %s, which is not plain data", t)
}

// cStruct is like cLayout, for structs.
func cStruct(t reflect.Type) (layout, error) {
	whole := layout{align: 1}
	for i := range t.NumField() {
		f := t.Field(i)
		l, err := cLayout(f.Type)
		if err != nil {
			return layout{}, err
		}
		if l.size > 0 && whole.size%l.align != 0 {
			return layout{}, fmt.Errorf("in C there is padding before the field %s of %s: put a field named _ there", f.Name, t)
		}
		whole.size += l.size
		whole.align = max(whole.align, l.align)
	}
	if whole.size%whole.align != 0 {
		return layout{}, fmt.Errorf("in C there is padding after the last field of %s: put a field named _ there", t)
	}
	return whole, nil
}
