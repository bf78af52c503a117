package progrun

import (
	"errors"
	"math/bits"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// probes are all probes, each with a run that needs the feature.
var probes = []struct {
	name string
	have func() error
	p    *probe
	file string
	prog string
	run  func(*ebpf.Program) error
}{
	{"XDPContext", HaveXDPContext, &xdpContext, "xdp", "xdp_pass", func(p *ebpf.Program) error {
		_, err := XDP{Packet: frame(64), Metadata: make([]byte, 4)}.Run(p)
		return err
	}},
	{"XDPLinearSize", HaveXDPLinearSize, &xdpLinearSize, "xdp", "xdp_pass", func(p *ebpf.Program) error {
		_, err := XDP{Packet: frame(64), LinearSize: 20}.Run(p)
		return err
	}},
	{"XDPMultiBuffer", HaveXDPMultiBuffer, &xdpMultiBuffer, "xdp", "xdp_pass", func(p *ebpf.Program) error {
		_, err := XDP{Packet: frame(os.Getpagesize())}.Run(p)
		return err
	}},
	{"NonLinearSKB", HaveNonLinearSKB, &nonLinearSKB, "tc", "tc_mark", func(p *ebpf.Program) error {
		_, err := TC{Packet: frame(64), LinearSize: 20}.Run(p)
		return err
	}},
	{"ChecksumComplete", HaveChecksumComplete, &checksumComplete, "tc", "tc_mark", func(p *ebpf.Program) error {
		_, err := TC{Packet: frame(64), ChecksumComplete: true}.Run(p)
		return err
	}},
	{"RunOnCPU", HaveRunOnCPU, &runOnCPU, "raw_tracepoint", "raw_tp_noargs", func(p *ebpf.Program) error {
		_, err := RawTracepoint{CPU: OnCPU(0)}.Run(p)
		return err
	}},
}

// TestProbes compares the answer of each probe with the result of a run.
func TestProbes(t *testing.T) {
	for _, c := range probes {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, c.file, c.prog)
			compareProbe(t, c.p.name, c.p.since, c.have(), c.run(o.Program))
		})
	}
	t.Run("XDPLiveFrames", func(t *testing.T) {
		o := load(t, "xdp", "xdp_drop")
		_, ran := Raw{DataIn: frame(64), Flags: testXDPLiveFrames, BatchSize: 1}.Run(o.Program)
		compareProbe(t, "XDP live frames", "5.18", HaveXDPLiveFrames(), ran)
	})
}

func compareProbe(t *testing.T, name, since string, has, ran error) {
	t.Helper()
	t.Logf("probe: %v; run: %v", has, ran)
	if has == nil {
		if ran != nil {
			t.Errorf("the probe says yes, the run: %v", ran)
		}
		return
	}
	wantError(t, has, "progrun: "+name+": this kernel does not have them (Linux "+since+"): not supported", ebpf.ErrNotSupported, RanNo)
	wantError(t, ran, "progrun: ", ebpf.ErrNotSupported, RanNo)
}

// anew returns a probe that has not been asked yet.
func anew(p *probe) *probe {
	return &probe{name: p.name, typ: p.typ, since: p.since, ask: p.ask, yes: p.yes}
}

// TestProbesAgain checks that a probe that is asked again gives the same answer, leaves
// nothing open, and keeps its answer.
func TestProbesAgain(t *testing.T) {
	needPrivilege(t)
	for _, c := range probes {
		t.Run(c.name, func(t *testing.T) {
			first := c.have()
			open := descriptors(t)
			fresh := anew(c.p)
			again := fresh.result()
			if (first == nil) != (again == nil) || lacks(first) != lacks(again) {
				t.Errorf("first %v, then %v", first, again)
			}
			if n := descriptors(t); n != open {
				t.Errorf("%d descriptors were open before, %d are after", open, n)
			}
			if fresh.known.Load() == unknown {
				t.Error("the answer was not kept")
			}
			// A kept answer costs nothing.
			if n := testing.AllocsPerRun(10, func() { first = c.have() }); first == nil && n != 0 && !raceEnabled {
				t.Errorf("%v allocations for an answer that is known", n)
			}
		})
	}
}

// descriptors counts the descriptors of programs and maps in this process.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.Contains(to, "bpf-prog") {
			n++
		}
	}
	return n
}

// TestProbesWithoutPrivilege checks that probes without privilege return an error, and
// keep no answer.
func TestProbesWithoutPrivilege(t *testing.T) {
	needPrivilege(t)
	if prog, err := nothing(ebpf.XDP); err != nil { // the loader finds out what it needs to know
		t.Fatal(err)
	} else {
		prog.Close()
	}
	for _, c := range probes {
		t.Run(c.name, func(t *testing.T) {
			fresh := anew(c.p)
			var err error
			unprivileged(t, func() { err = fresh.result() })
			if lacks(err) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "cannot find out whether this kernel has them") {
				t.Errorf("got %v", err)
			}
			if fresh.known.Load() != unknown {
				t.Error("this was kept for an answer")
			}
		})
	}
}

// unprivileged calls f on a thread without any capability.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	var err error
	onThread(func() bool {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err = unix.Capset(&header, &none[0]); err == nil {
			f()
		}
		return false // the thread ends, so no other goroutine gets it
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnprivilegedExplanations checks that explanations without privilege use the
// caller's program to find out what this kernel lacks.
func TestUnprivilegedExplanations(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	for _, c := range []struct {
		req  TC
		have func() error
		text string
	}{
		{TC{Packet: frame(64), LinearSize: 20}, HaveNonLinearSKB,
			"progrun: TC.LinearSize: 20: this kernel runs programs on linear skbs only (others since Linux 6.19): not supported"},
		{TC{Packet: frame(64), ChecksumComplete: true}, HaveChecksumComplete,
			"progrun: TC.ChecksumComplete: true: this kernel does not check checksums (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.11): not supported"},
	} {
		var err, loaded error
		unprivileged(t, func() {
			_, loaded = nothing(ebpf.SocketFilter)
			_, err = c.req.Run(o.Program)
		})
		if !errors.Is(loaded, unix.EPERM) {
			t.Fatalf("could load a program: %v", loaded)
		}
		if errors.Is(err, unix.EPERM) {
			skipOnThisKernel(t, "programs without a capability", err)
		}
		if has := c.have(); (has == nil) != (err == nil) || has != nil && !lacks(has) {
			t.Errorf("the kernel has it: %v, the run: %v", has, err)
		}
		if err != nil {
			wantError(t, err, c.text, ebpf.ErrNotSupported, RanNo)
		}
	}
}

// TestHaveProgramRun asks for every program type.
func TestHaveProgramRun(t *testing.T) {
	needPrivilege(t)
	for typ := ebpf.UnspecifiedProgram; typ < 64; typ++ {
		err := HaveProgramRun(typ)
		again := HaveProgramRun(typ)
		if (err == nil) != (again == nil) || lacks(err) != lacks(again) {
			t.Errorf("%s: first %v, then %v", typ, err, again)
		}
		switch {
		case kindOf(typ).request == "":
			wantError(t, err, "progrun: "+typ.String()+" programs: no kernel is known to run them: not supported", ebpf.ErrNotSupported, RanNo)
		case err == nil:
		case lacks(err):
			wantError(t, err, "progrun: "+typ.String()+" programs: this kernel does not run them: not supported", ebpf.ErrNotSupported, RanNo)
		default:
			is := error(unix.EPERM)
			if typ == ebpf.Tracing && errors.Is(err, unix.ENOMEM) {
				is = unix.ENOMEM // a kernel without a JIT returns this for every such program
			}
			if bits.UintSize == 32 { // the loader cannot read the types of a 64-bit kernel
				is = err
			}
			wantError(t, err, "progrun: "+typ.String()+" programs: cannot find out whether this kernel runs them: ", is, RanNo)
		}
	}
	wantError(t, HaveProgramRun(ebpf.Kprobe), "progrun: Kprobe programs: no kernel is known to run them: not supported", ebpf.ErrNotSupported, RanNo)
	wantError(t, HaveProgramRun(1000), "no kernel is known to run them: not supported", ebpf.ErrNotSupported, RanNo)
}

// TestHaveProgramRunThatCannotBeLoaded checks that a kernel that forbids a type does
// not count as one that cannot run it. Some forbid tracing programs even to root.
func TestHaveProgramRunThatCannotBeLoaded(t *testing.T) {
	needPrivilege(t)
	prog, err := nothing(ebpf.Tracing)
	if err == nil {
		defer prog.Close()
		if err := HaveProgramRun(ebpf.Tracing); err != nil {
			t.Errorf("the program loads, but the probe says %v", err)
		}
		if _, err := (Tracing{}).Run(prog); err != nil {
			t.Errorf("the probe says yes, the run: %v", err)
		}
		return
	}
	if !errors.Is(err, unix.EPERM) {
		t.Skipf("cannot load a tracing program: %v", err)
	}
	err = HaveProgramRun(ebpf.Tracing)
	wantError(t, err, "progrun: Tracing programs: cannot find out whether this kernel runs them: ", unix.EPERM, RanNo)
	if lacks(err) {
		t.Errorf("%v is taken for an answer", err)
	}
}

// TestRetry checks that failed attempts become rarer, and that callers wait for an
// attempt under way.
func TestRetry(t *testing.T) {
	var r retry
	var at []int
	for call := range 5000 {
		r.do(func() bool {
			at = append(at, call)
			return false
		})
	}
	want := []int{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047, 3071, 4095}
	if !slices.Equal(at, want) {
		t.Errorf("attempts at %d, want %d", at, want)
	}
	var fresh retry
	begun, end := make(chan bool), make(chan bool)
	go fresh.do(func() bool { close(begun); <-end; return true })
	<-begun
	time.AfterFunc(10*time.Millisecond, func() { close(end) })
	fresh.do(func() bool {
		select {
		case <-end:
		default:
			t.Error("did not wait for the attempt under way")
		}
		return true
	})
}
