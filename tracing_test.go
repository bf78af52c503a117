package progrun

import (
	"testing"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// TestTracing attaches a program to a function of the kernel that a run calls.
// The program runs then, and only then.
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
			l, err := link.AttachTracing(link.TracingOptions{Program: o.Program})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
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

// TestTracingOfTracepoint fails: a run makes no tracepoint happen.
func TestTracingOfTracepoint(t *testing.T) {
	o := load(t, "tracing", "tp_btf_test")
	_, err := Tracing{}.Run(o.Program)
	wantError(t, err, "progrun: Tracing: either the program is not fentry, fexit or fmod_ret, for which the kernel has no test functions, "+
		"or a program that is attached to one of them changed its result: bad address", unix.EFAULT, RanMaybe)
}
