package progruntest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

func TestNeed(t *testing.T) {
	const pass, fail, skip = "pass", "fail", "skip"
	refusal := func(cause error, log ...string) error {
		return fmt.Errorf("program p: %w", &ebpf.VerifierError{Cause: cause, Log: log})
	}
	for _, c := range []struct {
		name                       string
		err                        error
		without, require1, withAll string
		text                       string
	}{
		{"no error", nil, pass, pass, pass, ""},
		{"a probe's no", progrun.HaveProgramRun(ebpf.Kprobe), skip, skip, fail, "Kprobe programs: no kernel is known to run them"},
		{"not supported", fmt.Errorf("map m: %w", ebpf.ErrNotSupported), skip, skip, fail, "this kernel lacks what the test needs: map m: not supported"},
		{"EPERM", fmt.Errorf("load: %w", unix.EPERM), skip, fail, fail, "a privilege that this process lacks: load: operation not permitted"},
		{"EPERM before the verifier", refusal(unix.EPERM), skip, fail, fail, "a privilege that this process lacks: "},
		{"EACCES", unix.EACCES, fail, fail, fail, "permission denied"},
		{"EINVAL", unix.EINVAL, fail, fail, fail, "invalid argument"},
		{"verifier", refusal(unix.EACCES, "first line", "second line", "third line"), fail, fail, fail, "first line\nsecond line\nthird line"},
		{"verifier, EPERM", refusal(unix.EPERM, "the log"), fail, fail, fail, "the log"},
		{"verifier, EINVAL", refusal(unix.EINVAL, "the log"), fail, fail, fail, "the log"},
		{"verifier, not supported", refusal(ebpf.ErrNotSupported, "the log"), fail, fail, fail, "the log"},
	} {
		for require, want := range map[string]string{"": c.without, "1": c.require1, "all": c.withAll} {
			t.Run(c.name+"/"+require, func(t *testing.T) {
				t.Setenv("PROGRUN_REQUIRE", require)
				r := attempt(func(tb testing.TB) { Need(tb, c.err) })
				switch want {
				case pass:
					r.wantPassed(t)
				case fail:
					r.wantFailed(t, c.text)
					if c.without == skip && !strings.HasPrefix(r.log[0], "PROGRUN_REQUIRE="+require+": ") {
						t.Errorf("no word of PROGRUN_REQUIRE in %q", r.log)
					}
				case skip:
					r.wantSkipped(t, c.text)
				}
			})
		}
	}
}

// TestNeedUnknownRequire checks that an unknown value of PROGRUN_REQUIRE fails a test
// that would be skipped.
func TestNeedUnknownRequire(t *testing.T) {
	t.Setenv("PROGRUN_REQUIRE", "yes")
	attempt(func(tb testing.TB) { Need(tb, unix.EPERM) }).wantFailed(t, "PROGRUN_REQUIRE=yes: it can be 1 or all")
	attempt(func(tb testing.TB) { Need(tb, nil) }).wantPassed(t)
}

// TestWithoutPrivilege checks that a test without privilege is skipped with a reason,
// whatever it calls first.
func TestWithoutPrivilege(t *testing.T) {
	spec := &ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{"pass": {
			Type: ebpf.XDP, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
		}},
		Maps: map[string]*ebpf.MapSpec{"map": {Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}},
	}
	NewCollection(t, spec) // the loader finds out what it needs to know
	for name, f := range map[string]func(testing.TB){
		"NewCollection": func(tb testing.TB) { NewCollection(tb, spec) },
		"LoadAndAssign": func(tb testing.TB) {
			var o struct {
				Pass *ebpf.Program `ebpf:"pass"`
			}
			LoadAndAssign(tb, spec, &o)
		},
		"NewNetNS": func(tb testing.TB) { NewNetNS(tb) },
	} {
		for require, want := range map[string]func(*recorder, *testing.T, string){
			"": (*recorder).wantSkipped, "1": (*recorder).wantFailed, "all": (*recorder).wantFailed,
		} {
			t.Run(name+"/"+require, func(t *testing.T) {
				t.Setenv("PROGRUN_REQUIRE", require)
				r := attempt(func(tb testing.TB) {
					lockThread(tb) // the thread ends with the goroutine
					header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
					var none [2]unix.CapUserData
					if err := unix.Capset(&header, &none[0]); err != nil {
						tb.Fatal(err)
					}
					f(tb)
				})
				want(r, t, "a privilege that this process lacks: ")
			})
		}
	}
}
