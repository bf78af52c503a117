package progruntest

import (
	"math"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/progrun/progrun"
	"github.com/progrun/progrun/cover"
)

// TestCover checks that the loaders leave a profile of what a test reached, with the
// options of Cover.
func TestCover(t *testing.T) {
	needPrivilege(t)
	for _, skip := range []string{"", "xdp_pass"} {
		dir := t.TempDir()
		t.Setenv(cover.DirVariable, dir)
		Cover(cover.Options{Skip: []string{skip}, Dir: "../testdata"})
		defer Cover(cover.Options{})
		t.Run("", func(t *testing.T) {
			prog, _ := load(t, "xdp", "xdp_pass")
			Run(t, prog, progrun.XDP{Packet: packet()})
		})
		profile, err := cover.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := cover.Reached
		if skip != "" {
			want = cover.Unknown
		}
		files := profile.Files()
		if len(files) != 1 || len(files[0].Functions) != 1 || files[0].Functions[0].Name != "xdp_pass" || files[0].Functions[0].State != want {
			t.Errorf("%q left out: %+v, want xdp_pass %v", skip, files, want)
		}
	}
}

// TestCoverWithout checks that a program without room for probes is loaded without them,
// that the test's log says so, and that its function is unknown.
func TestCoverWithout(t *testing.T) {
	needPrivilege(t)
	dir := t.TempDir()
	t.Setenv(cover.DirVariable, dir)
	spec := only(object(t, "xdp"), "xdp_pass")
	pass := spec.Programs["xdp_pass"]
	short := pass.Instructions
	long := asm.Instructions{short[0], asm.JEq.Imm(asm.R0, 0, "end")}
	for range math.MaxInt16 {
		long = append(long, asm.Mov.Imm(asm.R1, 0))
	}
	long[2] = long[2].WithSource(short[0].Source()) // or its block would not be reported
	long = append(long, asm.Return().WithSymbol("end"))

	for _, c := range []struct {
		insns asm.Instructions
		log   string
		state cover.State
	}{
		{long, "loaded without probes: cover: program xdp_pass: function xdp_pass: with probes the function is too long", cover.Unknown},
		{short, "", cover.Reached},
	} {
		pass.Instructions = c.insns
		r := attempt(func(tb testing.TB) {
			prog := NewCollection(tb, spec).Programs["xdp_pass"]
			if res := Run(tb, prog, progrun.XDP{Packet: packet()}); res.Action != progrun.XDPPass {
				tb.Errorf("got %s", res.Action)
			}
		})
		r.wantPassed(t)
		if text := strings.Join(r.log, "\n"); (c.log == "") != (text == "") || !strings.Contains(text, c.log) {
			t.Errorf("the test's log is %q, want %q", text, c.log)
		}
		profile, err := cover.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := profile.Files()[0].Functions[0].State; got != c.state {
			t.Errorf("the function is %v, want %v", got, c.state)
		}
	}
}

// TestCoverRefused checks that the verifier's log of a wrong program has no probes in
// it, and that no profile is left.
func TestCoverRefused(t *testing.T) {
	needPrivilege(t)
	dir := t.TempDir()
	t.Setenv(cover.DirVariable, dir)
	spec := only(object(t, "xdp"), "xdp_pass")
	pass := spec.Programs["xdp_pass"]
	pass.Instructions = append(asm.Instructions{asm.Mov.Imm(asm.R1, 0), asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord)}, pass.Instructions...)
	pass.Instructions[0], pass.Instructions[2] = pass.Instructions[0].WithMetadata(pass.Instructions[2].Metadata), pass.Instructions[2].WithMetadata(asm.Metadata{})
	r := attempt(func(tb testing.TB) { NewCollection(tb, spec) })
	r.wantFailed(t, "The verifier's log:")
	if strings.Contains(strings.Join(r.log, "\n"), "progrun_cover") {
		t.Errorf("the log has probes: %q", r.log)
	}
	if _, err := cover.ReadDir(dir); err == nil {
		t.Error("a collection that did not load has left a profile")
	}
}
