package progrun

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestRawTracepoint(t *testing.T) {
	o := load(t, "raw_tracepoint", "raw_tp")
	for _, c := range []struct {
		args []uint64
		want int32
	}{
		{[]uint64{40, 2}, 42},
		{[]uint64{math.MaxUint64, 0}, -1},
		{[]uint64{1 << 32, 5}, 5}, // the low half
		{[]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3},
	} {
		res, err := RawTracepoint{Args: c.args}.Run(o.Program)
		if err != nil || res.Return != c.want {
			t.Errorf("%v: returned %d, %v, want %d", c.args, res.Return, err, c.want)
		}
		for i, want := range c.args[:2] {
			if got := get[uint64](t, o, "seen64", uint32(i)); got != want {
				t.Errorf("%v: the program saw argument %d as %d", c.args, i, got)
			}
		}
	}
}

// TestRawTracepointWithoutArgs runs without arguments, which is legal if the program
// reads none.
func TestRawTracepointWithoutArgs(t *testing.T) {
	o := load(t, "raw_tracepoint", "raw_tp_noargs")
	for _, args := range [][]uint64{nil, {}, {1}} {
		if res, err := (RawTracepoint{Args: args}).Run(o.Program); err != nil || res.Return != 7 {
			t.Errorf("%v: returned %d, %v, want 7", args, res.Return, err)
		}
	}
}

// cpus reads a list such as "0-3,8" in /sys.
func cpus(t *testing.T, name string) []int {
	t.Helper()
	b, err := os.ReadFile("/sys/devices/system/cpu/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var list []int
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil {
			t.Fatalf("cannot read %q", b)
		}
		for n := from; n <= to; n++ {
			list = append(list, n)
		}
	}
	return list
}

func TestRawTracepointOnCPU(t *testing.T) {
	need(t, HaveRunOnCPU())
	o := load(t, "raw_tracepoint", "raw_tp")
	for range 3 {
		for _, n := range cpus(t, "online") {
			if err := o.maps["seen64"].Put(uint32(2), uint64(math.MaxUint64)); err != nil {
				t.Fatal(err)
			}
			res, err := RawTracepoint{Args: []uint64{40, 2}, CPU: OnCPU(n)}.Run(o.Program)
			if err != nil || res.Return != 42 {
				t.Errorf("%s: returned %d, %v", OnCPU(n), res.Return, err)
			}
			if seen := get[uint64](t, o, "seen64", 2); seen != uint64(n) {
				t.Errorf("%s: ran on CPU %d", OnCPU(n), seen)
			}
		}
	}
}

func TestRawTracepointRefusals(t *testing.T) {
	online := cpus(t, "online")
	beyond := online[len(online)-1] + 1
	two := []uint64{40, 2}
	for _, c := range []struct {
		name string
		req  RawTracepoint
		text string
		is   error
	}{
		{"13 arguments", RawTracepoint{Args: make([]uint64, 13)}, "Args: 13 arguments: a tracepoint has at most 12: invalid argument", unix.EINVAL},
		{"one argument too few", RawTracepoint{Args: make([]uint64, 1)}, "the program reads more arguments: invalid argument", unix.EINVAL},
		{"no arguments", RawTracepoint{}, "Args: 0 arguments: the program reads more arguments: invalid argument", unix.EINVAL},
		{"too few on a CPU", RawTracepoint{Args: make([]uint64, 1), CPU: OnCPU(0)}, "the program reads more arguments", unix.EINVAL},
		{"a CPU that is not online", RawTracepoint{Args: two, CPU: OnCPU(beyond)}, "CPU: " + strconv.Itoa(beyond) + ": no such CPU is online: no such device or address", unix.ENXIO},
		{"a CPU that cannot be", RawTracepoint{Args: two, CPU: OnCPU(math.MaxInt32)}, "CPU: 2147483647: no such CPU is online: no such device or address", unix.ENXIO},
		{"a negative CPU", RawTracepoint{Args: two, CPU: OnCPU(-1)}, "CPU: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"the largest CPU of 32 bits", RawTracepoint{Args: two, CPU: OnCPU(overLarge(math.MaxUint32))}, "CPU: 4294967295: no such CPU is online: no such device or address", unix.ENXIO},
		{"an over-large CPU", RawTracepoint{Args: two, CPU: OnCPU(overLarge(1 << 32))}, "CPU: 4294967296: no such CPU is online: no such device or address", unix.ENXIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.name, "large") && c.req.CPU == OnCPU(0) {
				t.Skip("an int of 32 bits cannot be that large")
			}
			o := load(t, "raw_tracepoint", "raw_tp")
			if err := o.maps["seen64"].Put(uint32(2), uint64(math.MaxUint64)); err != nil {
				t.Fatal(err)
			}
			_, err := c.req.Run(o.Program)
			wantError(t, err, c.text, c.is, RanNo)
			wantError(t, err, "progrun: RawTracepoint.", c.is, RanNo)
			if seen := get[uint64](t, o, "seen64", 2); seen != math.MaxUint64 {
				t.Errorf("ran on CPU %d", seen)
			}
		})
	}
}

// TestRawTracepointSleepable sends a program that sleeps to a CPU. Its arguments are
// fewer than many programs need, but enough for this one.
func TestRawTracepointSleepable(t *testing.T) {
	needPrivilege(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, Flags: 1 << 4, // BPF_F_SLEEPABLE
		Instructions: nothingInsns(), License: "Dual MIT/GPL",
	})
	if err != nil {
		skipOnThisKernel(t, "raw tracepoint programs that sleep (Linux 7.2)", lastLine(err))
	}
	defer prog.Close()
	if _, err := (RawTracepoint{Args: make([]uint64, 2)}).Run(prog); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 2, 12} {
		_, err := RawTracepoint{Args: make([]uint64, n), CPU: OnCPU(0)}.Run(prog)
		wantError(t, err, "progrun: RawTracepoint.CPU: 0: a program that sleeps cannot be sent to a CPU: invalid argument", unix.EINVAL, RanNo)
	}
}
