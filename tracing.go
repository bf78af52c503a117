package progrun

import (
	"runtime"

	"github.com/cilium/ebpf"
)

// Tracing calls the kernel's own test functions for tracing programs. Since Linux
// 5.7. See bpf_prog_test_run_tracing in the kernel's net/bpf/test_run.c.
//
// It does not run the program directly. The program runs if it is attached to one
// of those functions, as does every other program that is attached there. For an
// fentry, fexit or fsession program (the last since Linux 7.0), the kernel calls
// bpf_fentry_test1 and its siblings. For an fmod_ret program, it calls
// bpf_modify_return_test. The run fails (EFAULT) if the program has another attach
// type, or if an attached program changed the result of bpf_fentry_test1 or of a
// sibling.
type Tracing struct{}

// TracingResult is the result of a run of an fmod_ret program. For other programs
// both fields are 0.
type TracingResult struct {
	// Return is the sum of what the test functions returned, cut to 16 bits.
	Return int16
	// SideEffects is how many of the test functions really ran. An fmod_ret program
	// that returns something other than 0 replaces its function.
	SideEffects int
}

// Run calls the test functions for prog, of type [ebpf.Tracing].
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
