package progrun

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// loadStructOps skips the test if the kernel has no bpf_dummy_ops.
func loadStructOps(t *testing.T, program string) *object {
	t.Helper()
	need(t, HaveProgramRun(ebpf.StructOps))
	return load(t, "struct_ops", program)
}

func TestStructOpsState(t *testing.T) {
	o := loadStructOps(t, "test_1")
	for _, before := range []int32{0, 5, -7, 1<<31 - 1} {
		state := before
		res, err := StructOps{State: &state}.Run(o.Program)
		if err != nil || res.Return != before || state != 0x5a {
			t.Errorf("state %d: returned %d, %v, and the state became %#x", before, res.Return, err, state)
		}
	}
}

func TestStructOpsNoState(t *testing.T) {
	o := loadStructOps(t, "test_1")
	res, err := StructOps{}.Run(o.Program)
	const null = uint32(0xf2f3f4f5)
	if err != nil || uint32(res.Return) != null || res.Return >= 0 {
		t.Errorf("returned %#x, %v, want %#x", uint32(res.Return), err, null)
	}
}

func TestStructOpsArgs(t *testing.T) {
	o := loadStructOps(t, "test_2")
	for _, c := range []struct {
		state int32
		args  []uint64
		want  int32 // the sum of the arguments
		after int32 // the state and the first argument
	}{
		{5, []uint64{10, 20, 30, 40}, 100, 15},
		{5, []uint64{0, 0, 0, 0}, 0, 5},
		{0, []uint64{1 << 31, 0, 0, 0}, -1 << 31, -1 << 31},
		{1, []uint64{1, 0x1ffff, 0x1ff, 1<<32 + 1}, 1 + 0xffff + 0xff + 1, 2}, // each truncated to its C type
	} {
		state := c.state
		res, err := StructOps{State: &state, Args: c.args}.Run(o.Program)
		if err != nil || res.Return != c.want || state != c.after {
			t.Errorf("%d %v: returned %d, %v, state %d, want %d and %d", c.state, c.args, res.Return, err, state, c.want, c.after)
		}
	}
}

func TestStructOpsRefusals(t *testing.T) {
	const wrong = "too many or too few arguments: the function takes "
	for _, c := range []struct {
		name, program string
		args          int
		text          string
	}{
		{"one argument too many", "test_1", 1, wrong + "0 after the state: invalid argument"},
		{"one argument too few", "test_2", 3, wrong + "4 after the state: invalid argument"},
		{"no argument", "test_2", 0, wrong + "4 after the state: invalid argument"},
		{"one too many for test_2", "test_2", 5, wrong + "4 after the state: invalid argument"},
		{"as many as there can be", "test_1", 11, wrong + "0 after the state: invalid argument"},
		{"more than there can be", "test_1", 12, "StructOps.Args: 12 arguments: at most 11 after the state: invalid argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := loadStructOps(t, c.program)
			state := int32(5)
			_, err := StructOps{State: &state, Args: make([]uint64, c.args)}.Run(o.Program)
			wantError(t, err, "progrun: StructOps.Args: ", unix.EINVAL, RanNo)
			wantError(t, err, c.text, unix.EINVAL, RanNo)
			if state != 5 {
				t.Errorf("the state became %d", state)
			}
		})
	}
}

// TestStructOpsNullState passes no state to a function that needs one. Kernels before
// 6.11 would run it.
func TestStructOpsNullState(t *testing.T) {
	o := loadStructOps(t, "test_2")
	_, err := StructOps{Args: make([]uint64, 4)}.Run(o.Program)
	wantError(t, err, "progrun: StructOps.State: nil: test_2 needs a state: invalid argument", unix.EINVAL, RanNo)
}

// TestStructOpsNullSleepable passes no state to test_sleepable, which has no other
// argument. Kernels before 6.11 run it.
func TestStructOpsNullSleepable(t *testing.T) {
	o := loadStructOps(t, "test_sleepable")
	if _, err := (StructOps{}).Run(o.Program); err != nil {
		wantError(t, err, "progrun: StructOps.State: nil: the function cannot take a null state (refused since Linux 6.11): invalid argument", unix.EINVAL, RanNo)
	}
}
