package progrun

import (
	"runtime"

	"github.com/cilium/ebpf"
)

// Tracing fires the kernel's own test functions for tracing programs. Since
// Linux 5.7. See bpf_prog_test_run_tracing in the kernel's net/bpf/test_run.c.
//
// The program is not run as such: it runs if its user attached it to one of
// those functions, and so does every other program attached there. For an
// fentry, fexit or fsession program the kernel calls bpf_fentry_test1 and its
// siblings, for an fmod_ret program bpf_modify_return_test. Programs of other
// attach types fail (EFAULT), as does a run in which an attached program
// changed the result of bpf_fentry_test1 or its siblings.
type Tracing struct{}

// TracingResult is what is left after a run of an fmod_ret program. For others
// both are 0.
type TracingResult struct {
	// Return is the sum of what the test functions returned, cut to 16 bits.
	Return int16
	// SideEffects is how many of the test functions ran, and were not
	// replaced by an fmod_ret program that returned other than 0.
	SideEffects int
}

// Run fires the test functions that fit prog, of type [ebpf.Tracing].
func (r Tracing) Run(prog *ebpf.Program) (TracingResult, error) {
	fd, err := tracingTypes.descriptor("Tracing", prog)
	if err != nil {
		return TracingResult{}, err
	}
	a := newAttr(fd, nil, nil, nil, nil, 0, 0)
	errno := progRun(&a, attrSize) // no signal can interrupt this type
	runtime.KeepAlive(prog)
	if errno != 0 {
		return TracingResult{}, explain(errno, newCall("Tracing", nil, prog, &a))
	}
	return TracingResult{Return: int16(a.retval), SideEffects: int(a.retval >> 16)}, nil
}
