package progruntest

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// asChild is the environment variable for tests that are parts of other tests, which
// start the test binary again.
const asChild = "PROGRUNTEST_AS_CHILD"

func TestMain(m *testing.M) {
	errFirstThread = visitFromFirstThread()
	flag.Parse()
	if flag.Lookup("test.skip").Value.String() == "" { // examples cannot skip themselves
		if os.Geteuid() != 0 {
			fmt.Println("the examples load BPF programs: run the tests as root")
			flag.Set("test.skip", "^Example")
		} else if errors.Is(progrun.HaveXDPLiveFrames(), ebpf.ErrNotSupported) {
			fmt.Println("this kernel cannot run the example of NetNS.Fd")
			flag.Set("test.skip", "^ExampleNetNS_Fd$")
		}
	}
	os.Exit(m.Run())
}

// emulated reports whether the tests run in a slow virtual machine.
func emulated() bool { return os.Getenv("PROGRUN_KERNEL_MATRIX") == "1" }

// child runs a test or benchmark of this binary in another process, and returns what it
// prints.
func child(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asChild+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%v: %v\n%s", args, err, out)
	return string(out)
}

// needPrivilege skips the test if it cannot load programs.
func needPrivilege(t *testing.T) {
	t.Helper()
	load(t, "xdp", "xdp_pass")
}

// recorder is the testing.TB of a test that may fail.
type recorder struct {
	testing.TB
	name            string
	failed, skipped bool
	log             []string
	cleanups        []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Name() string     { return r.name }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Log(args ...any)            { r.log = append(r.log, fmt.Sprint(args...)) }
func (r *recorder) Logf(f string, args ...any) { r.log = append(r.log, fmt.Sprintf(f, args...)) }
func (r *recorder) Error(args ...any)          { r.Log(args...); r.failed = true }
func (r *recorder) Errorf(f string, a ...any)  { r.Logf(f, a...); r.failed = true }
func (r *recorder) Fatal(args ...any)          { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any)  { r.Errorf(f, a...); runtime.Goexit() }
func (r *recorder) Skipf(f string, args ...any) {
	r.Logf(f, args...)
	r.skipped = true
	runtime.Goexit()
}

// attempt runs f as if it were a test, with all cleanups.
func attempt(f func(tb testing.TB)) *recorder { return attemptNamed("Test", f) }

func attemptNamed(name string, f func(tb testing.TB)) *recorder {
	r := &recorder{name: name}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer r.cleanup()
		f(r)
	})
	wg.Wait()
	return r
}

// cleanup calls the cleanups, last first, even if one of them ends the goroutine.
func (r *recorder) cleanup() {
	if n := len(r.cleanups); n > 0 {
		f := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		defer r.cleanup()
		f()
	}
}

func (r *recorder) wantPassed(t *testing.T) {
	t.Helper()
	if r.failed || r.skipped {
		t.Errorf("failed %v, skipped %v: %q", r.failed, r.skipped, r.log)
	}
}

func (r *recorder) wantFailed(t *testing.T, text string) {
	t.Helper()
	if !r.failed || r.skipped || !strings.Contains(strings.Join(r.log, "\n"), text) {
		t.Errorf("failed %v, skipped %v: %q, want a failure with %q", r.failed, r.skipped, r.log, text)
	}
}

func (r *recorder) wantSkipped(t *testing.T, text string) {
	t.Helper()
	if r.failed || !r.skipped || !strings.Contains(strings.Join(r.log, "\n"), text) {
		t.Errorf("failed %v, skipped %v: %q, want a skip with %q", r.failed, r.skipped, r.log, text)
	}
}

// objectFile returns the name of an object of the module's test data for this machine.
func objectFile(name string) string {
	order := "bpfel"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = "bpfeb"
	}
	return filepath.Join("..", "testdata", name+"_"+order+".o")
}

// object reads an object of the module's test data.
func object(tb testing.TB, name string) *ebpf.CollectionSpec {
	tb.Helper()
	spec, err := ebpf.LoadCollectionSpec(objectFile(name))
	if err != nil {
		tb.Fatal(err)
	}
	return spec
}

// only leaves one program in a spec, since a kernel may lack the types of the others.
func only(spec *ebpf.CollectionSpec, program string) *ebpf.CollectionSpec {
	spec = spec.Copy()
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	return spec
}

// load loads one program of an object, and its maps.
func load(tb testing.TB, file, program string) (*ebpf.Program, map[string]*ebpf.Map) {
	tb.Helper()
	coll := NewCollection(tb, only(object(tb, file), program))
	return coll.Programs[program], coll.Maps
}

// packet has 64 bytes, and an EtherType for local experiments.
func packet() []byte {
	p := make([]byte, 64)
	p[12], p[13] = 0x88, 0xb5
	return p
}
