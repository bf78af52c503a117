package progruntest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/progrun/progrun"
)

func TestNewCollection(t *testing.T) {
	needPrivilege(t)
	var coll *ebpf.Collection
	attempt(func(tb testing.TB) {
		coll = NewCollection(tb, only(object(tb, "xdp"), "xdp_pass"))
		if res := Run(tb, coll.Programs["xdp_pass"], progrun.XDP{Packet: packet()}); res.Action != progrun.XDPPass {
			tb.Error(res.Action)
		}
	}).wantPassed(t)
	if p := coll.Programs["xdp_pass"]; p.FD() >= 0 {
		t.Error("the program is open after the test")
	}
	for name, m := range coll.Maps {
		if m.FD() >= 0 {
			t.Errorf("map %s is open after the test", name)
		}
	}
}

// objects has the form of a struct that bpf2go writes.
type objects struct {
	programs
	buffers
	More struct {
		Counts *ebpf.Map `ebpf:"counts"`
	}
	Note *string
}

type programs struct {
	XDPRing *ebpf.Program `ebpf:"xdp_ring"`
	TCRing  *ebpf.Program `ebpf:"tc_ring"`
}

type buffers struct {
	Ring *ebpf.Map `ebpf:"ring"`
}

func TestLoadAndAssign(t *testing.T) {
	needPrivilege(t)
	var o objects
	attempt(func(tb testing.TB) {
		o.Note = new(string)
		LoadAndAssign(tb, object(tb, "events"), &o)
		Run(tb, o.XDPRing, progrun.XDP{Packet: packet()})
		Run(tb, o.TCRing, progrun.TC{Packet: packet()})
		if o.Ring.FD() < 0 || o.More.Counts.FD() < 0 {
			tb.Error("a map is not open")
		}
	}).wantPassed(t)
	if o.XDPRing.FD() >= 0 || o.TCRing.FD() >= 0 || o.Ring.FD() >= 0 || o.More.Counts.FD() >= 0 {
		t.Errorf("open after the test: %+v", o)
	}
}

// TestSpecIsKept loads the same spec twice, and checks that it does not change.
func TestSpecIsKept(t *testing.T) {
	needPrivilege(t)
	spec := only(object(t, "events"), "xdp_ring")
	spec.Maps["ring"].Pinning = ebpf.PinByName
	for range 2 {
		r := attempt(func(tb testing.TB) {
			coll := NewCollection(tb, spec)
			coll.Maps["how_many"].Put(uint32(0), uint32(1))
			since := Records[event](tb, coll.Maps["ring"])
			Run(tb, coll.Programs["xdp_ring"], progrun.XDP{Packet: packet()})
			if got := since(); len(got) != 1 {
				tb.Errorf("%d records", len(got))
			}
		})
		r.wantPassed(t)
		if !slices.Contains(r.log, "map ring: not pinned, so that the test has a map of its own and leaves no file") {
			t.Errorf("no word of the pin: %q", r.log)
		}
	}
	if spec.Maps["ring"].Pinning != ebpf.PinByName || len(spec.Programs) != 1 {
		t.Error("the spec was changed")
	}
	if _, err := os.Stat("/sys/fs/bpf/ring"); err == nil {
		t.Error("a pin is left")
	}
}

// TestRefusedByVerifier checks that a test fails with the whole log of the verifier.
func TestRefusedByVerifier(t *testing.T) {
	needPrivilege(t)
	refused := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for range 50 {
		refused = append(refused, asm.Add.Imm(asm.R0, 1))
	}
	refused = append(refused, asm.LoadMem(asm.R0, asm.R5, 0, asm.Word), asm.Return())
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
		"refused": {Type: ebpf.XDP, License: "MIT", Instructions: refused},
	}}
	var o struct {
		Refused *ebpf.Program `ebpf:"refused"`
	}
	for name, f := range map[string]func(testing.TB){
		"NewCollection": func(tb testing.TB) { NewCollection(tb, spec) },
		"LoadAndAssign": func(tb testing.TB) { LoadAndAssign(tb, spec, &o) },
	} {
		t.Run(name, func(t *testing.T) {
			r := attempt(f)
			r.wantFailed(t, "program refused: load program: permission denied")
			if n := strings.Count(r.log[0], "r0 += 1"); n != 50 {
				t.Errorf("%d of 50 instructions are in the log:\n%s", n, r.log[0])
			}
		})
	}
}

func TestNilSpec(t *testing.T) {
	attempt(func(tb testing.TB) { NewCollection(tb, nil) }).wantFailed(t, "the CollectionSpec is nil")
}

func TestRun(t *testing.T) {
	prog, _ := load(t, "xdp", "xdp_pass")
	attempt(func(tb testing.TB) { Run(tb, prog, progrun.XDP{Packet: make([]byte, 13)}) }).
		wantFailed(t, "progrun: XDP.Packet: 13 bytes: ")
	attempt(func(tb testing.TB) { Run(tb, prog, progrun.TC{Packet: packet()}) }).
		wantFailed(t, "progrun: TC: runs SchedCLS, SchedACT programs, not XDP, which progrun.XDP runs")
	if err := progrun.HaveXDPLinearSize(); err != nil {
		t.Setenv("PROGRUN_REQUIRE", "1")
		attempt(func(tb testing.TB) { Run(tb, prog, progrun.XDP{Packet: packet(), LinearSize: 20}) }).
			wantSkipped(t, "this kernel lacks what the test needs: progrun: XDP.LinearSize")
	}
	if res := Run(t, prog, progrun.Raw{DataIn: packet()}); res.Retval != uint32(progrun.XDPPass) {
		t.Error(res.Retval)
	}
}

// TestRunSyscall runs a program of a recent type, so that an old kernel skips the test.
func TestRunSyscall(t *testing.T) {
	Need(t, progrun.HaveProgramRun(ebpf.Syscall))
	prog, _ := load(t, "syscall", "syscall_noctx")
	if res := Run(t, prog, progrun.Syscall{}); res.Return != 42 {
		t.Error(res.Return)
	}
}
