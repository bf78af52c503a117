package progrun

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// StructOps runs a struct_ops program of bpf_dummy_ops, once. The kernel runs no
// others (EOPNOTSUPP). Since Linux 5.16. See bpf_struct_ops_test_run in the
// kernel's net/bpf/bpf_dummy_struct_ops.c.
type StructOps struct {
	// State points to the val of the struct bpf_dummy_ops_state that is the first
	// argument. The program reads and writes it in place. If State is nil, the
	// program gets NULL, which only test_1 can take. Run refuses test_2 without a
	// state, and kernels since Linux 6.11 refuse test_sleepable (EINVAL). Older
	// ones let test_sleepable write through the pointer.
	State *int32
	// Args are the arguments after the state: none for test_1 and test_sleepable,
	// four for test_2 (EINVAL).
	Args []uint64
}

// StructOpsResult is the result of a run of [StructOps].
type StructOpsResult struct {
	// Return is what the program returned.
	Return int32
}

var structOpsNames = fieldNames{"ctx_size_in": "Args", "ctx.state": "State"}

// Run runs prog, of type [ebpf.StructOps].
func (r StructOps) Run(prog *ebpf.Program) (StructOpsResult, error) {
	fd, err := structOpsTypes.descriptor("StructOps", prog)
	if err != nil {
		return StructOpsResult{}, err
	}
	var ctx dummyOps
	if len(r.Args) > len(ctx.args) {
		return StructOpsResult{}, refuse("StructOps", "Args", fmt.Sprintf("%d arguments", len(r.Args)),
			fmt.Sprintf("at most %d after the state", len(ctx.args)), syscall.EINVAL)
	}
	if r.State == nil && len(r.Args) > 0 {
		// Kernels before 6.11 let the program write through the pointer.
		return StructOpsResult{}, refuse("StructOps", "State", "nil", "test_2 needs a state", syscall.EINVAL)
	}
	ctx.state.ptr = unsafe.Pointer(r.State)
	copy(ctx.args[:], r.Args)
	a := newAttr(fd, nil, nil, view(&ctx)[:8*(1+len(r.Args))], nil, 0, 0)
	errno := progRun(&a, attrSize) // no signal can interrupt this type
	runtime.KeepAlive(prog)
	if errno != 0 {
		return StructOpsResult{}, explain(errno, newCall("StructOps", structOpsNames, prog, &a))
	}
	return StructOpsResult{Return: int32(a.retval)}, nil
}
