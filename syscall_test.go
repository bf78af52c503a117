package progrun

import (
	"testing"

	"golang.org/x/sys/unix"
)

// addContext is the context of the program syscall_add.
type addContext struct {
	A, B, Sum uint64
	Calls     uint32
	_         uint32
}

func TestSyscallContext(t *testing.T) {
	o := load(t, "syscall", "syscall_add")
	ctx := addContext{A: 40, B: 2}
	for calls := uint32(1); calls <= 3; calls++ {
		res, err := Syscall{Context: &ctx}.Run(o.Program)
		if err != nil {
			t.Fatal(err)
		}
		if want := (addContext{A: 40, B: 2, Sum: 42, Calls: calls}); ctx != want || res.Return != 0 {
			t.Errorf("returned %d, context %+v, want %+v", res.Return, ctx, want)
		}
	}
	ctx.A = 0
	if res, err := (Syscall{Context: &ctx}).Run(o.Program); err != nil || res.Return != -5 {
		t.Errorf("got %+v, %v, want a return of -5", res, err)
	}
	// A context may be longer than the program needs, and may be an array of bytes.
	var long struct {
		addContext
		More [4000]uint16
	}
	long.B, long.More[7] = 5, 77
	if _, err := (Syscall{Context: &long}).Run(o.Program); err != nil || long.Sum != 5 || long.More[7] != 77 {
		t.Errorf("got %+v, %v", long.addContext, err)
	}
	var bytes [65535]byte
	bytes[8] = 9
	if _, err := (Syscall{Context: &bytes}).Run(o.Program); err != nil || bytes[16] != 9 {
		t.Errorf("got %v, %v", bytes[:32], err)
	}
}

func TestSyscallBadContext(t *testing.T) {
	type named struct{ N int32 }
	for _, c := range []struct {
		name    string
		context any
		text    string
	}{
		{"none", nil, "Syscall.Context: 0 bytes: the program reads or writes beyond the end of its context: invalid argument"},
		{"nil pointer", (*addContext)(nil), "Syscall.Context: a nil *progrun.addContext: the pointer must point to something"},
		{"not a pointer", addContext{}, "Syscall.Context: progrun.addContext: must be a pointer"},
		{"slice", make([]byte, 32), "Syscall.Context: []uint8: must be a pointer"},
		{"zero-sized", &struct{}{}, "Syscall.Context: *struct {}: a context of 0 bytes"},
		{"empty array", new([0]uint64), "a context of 0 bytes"},
		{"too large", new([65536]byte), "65536 bytes: a context is at most 65535"},
		{"much too large", new([1 << 20]uint64), "8388608 bytes: a context is at most 65535"},
		{"too small", new(uint64), "Syscall.Context: 8 bytes: the program reads or writes beyond the end of its context"},
		{"implicit padding", &struct {
			A uint32
			B uint64
		}{}, "in C there is padding before the field B of"},
		{"padding at the end", &struct {
			A uint64
			B uint32
		}{}, "in C there is padding after the last field of"},
		{"padding in a nested array", &struct {
			A uint32
			B [2]struct {
				C uint8
				D uint16
			}
		}{}, "in C there is padding before the field D of"},
		{"bool", &struct{ A bool }{}, "holds a bool"},
		{"int", new(int), "holds a value of type int, whose size depends on the machine"},
		{"uintptr", &struct{ A [4]uintptr }{}, "holds a value of type uintptr, whose size"},
		{"pointer", &struct{ A *named }{}, "holds a value of type *progrun.named, which is not plain data"},
		{"string", &struct{ A string }{}, "holds a value of type string, which is not plain data"},
		{"slice inside", &struct{ A []byte }{}, "holds a value of type []uint8, which is not plain data"},
		{"func", &struct{ A func() }{}, "which is not plain data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, "syscall", "syscall_add")
			_, err := Syscall{Context: c.context}.Run(o.Program)
			wantError(t, err, c.text, unix.EINVAL, RanNo)
			if ctx, ok := c.context.(*uint64); ok && *ctx != 0 {
				t.Errorf("the context was written to: %d", *ctx)
			}
		})
	}
}

func TestSyscallWithoutContext(t *testing.T) {
	o := load(t, "syscall", "syscall_noctx")
	res, err := Syscall{}.Run(o.Program)
	if err != nil || res.Return != 42 {
		t.Errorf("got %+v, %v, want a return of 42", res, err)
	}
	if n := runs(t, o); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// TestCLayout checks types that have the same layout in C and in Go.
func TestCLayout(t *testing.T) {
	var ok struct {
		A uint64
		B uint32
		C [2]uint16
		D struct{ E, F int8 }
		_ [6]byte
		G float64
	}
	b, err := contextBytes(&ok)
	if err != nil || len(b) != 32 {
		t.Errorf("got %d bytes, %v, want 32", len(b), err)
	}
}
