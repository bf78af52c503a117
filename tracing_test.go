package progrun

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// TestTracing attaches a program to a function that a run calls. The program runs then,
// and only then.
func TestTracing(t *testing.T) {
	for i, program := range []string{"fentry_test", "fexit_test", "fmod_ret_test"} {
		t.Run(program, func(t *testing.T) {
			o := load(t, "tracing", program)
			if _, err := (Tracing{}).Run(o.Program); err != nil {
				t.Fatal(err)
			}
			if n := get[uint64](t, o, "runs", uint32(i)); n != 0 {
				t.Errorf("ran %d times without being attached", n)
			}
			attachTracing(t, o.Program)
			for want := uint64(1); want <= 3; want++ {
				res, err := Tracing{}.Run(o.Program)
				if err != nil {
					t.Fatal(err)
				}
				if n := get[uint64](t, o, "runs", uint32(i)); n != want {
					t.Errorf("ran %d times, want %d", n, want)
				}
				if isModify := program == "fmod_ret_test"; isModify != (res.SideEffects > 0) || isModify != (res.Return != 0) {
					t.Errorf("got %+v", res)
				}
			}
		})
	}
}

// attachTracing attaches a program until the test ends, or skips the test.
func attachTracing(t *testing.T, prog *ebpf.Program) {
	t.Helper()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if errors.Is(err, ebpf.ErrNotSupported) {
		skipOnThisKernel(t, "tracing programs", fmt.Errorf("it loads them and does not attach them: %w", err))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// TestTracingOfTracepoint runs a program of a tracepoint, which fails: a run fires no
// tracepoint.
func TestTracingOfTracepoint(t *testing.T) {
	o := load(t, "tracing", "tp_btf_test")
	_, err := Tracing{}.Run(o.Program)
	wantError(t, err, "progrun: Tracing: either the kernel has no test functions for the program's attach type (it has them for fentry, fexit and fmod_ret), "+
		"or a program that is attached to one of them changed its result: bad address", unix.EFAULT, RanMaybe)
}
