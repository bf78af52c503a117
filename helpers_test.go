package progrun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/progrun/progrun/cover"
	"golang.org/x/sys/unix"
)

// unrunnable collects what tests could not run, for the end of the output.
var unrunnable struct {
	sync.Mutex
	list []string
}

// skipOnThisKernel skips a test because the kernel lacks what it needs.
func skipOnThisKernel(t testing.TB, what string, err error) {
	t.Helper()
	unrunnable.Lock()
	defer unrunnable.Unlock()
	if line := fmt.Sprintf("%s: %v", what, err); !slices.Contains(unrunnable.list, line) {
		unrunnable.list = append(unrunnable.list, line)
	}
	t.Skipf("this kernel cannot run %s: %v", what, err)
}

func privileged() bool { return os.Geteuid() == 0 }

// needPrivilege skips a test that loads programs if the process may not.
func needPrivilege(t testing.TB) {
	t.Helper()
	if privileged() {
		return
	}
	if require := os.Getenv("PROGRUN_REQUIRE"); require != "" {
		t.Fatalf("PROGRUN_REQUIRE=%s, but the tests do not run as root", require)
	}
	t.Skip("loads BPF programs: run the tests as root")
}

// need skips a test if err says that the kernel lacks a feature.
func need(t testing.TB, err error) {
	t.Helper()
	needPrivilege(t)
	if errors.Is(err, ebpf.ErrNotSupported) {
		skipOnThisKernel(t, "this test", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// object is a program of testdata, with its maps.
type object struct {
	*ebpf.Program
	maps     map[string]*ebpf.Map
	counters *cover.Counters // nil unless coverage is wanted
}

// load loads one program of an object in testdata, with all maps. It skips the test if
// this kernel does not know such programs.
func load(t testing.TB, file, program string) *object {
	t.Helper()
	needPrivilege(t)
	o, err := loadObject(file, program)
	if err != nil {
		skipUnloadable(t, file, program, err)
	}
	t.Cleanup(o.close)
	return o
}

// objectFile returns the file of an object in testdata for this machine.
func objectFile(name string) string {
	order := "bpfel"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = "bpfeb"
	}
	return filepath.Join("testdata", name+"_"+order+".o")
}

func loadObject(file, program string) (*object, error) {
	spec, err := ebpf.LoadCollectionSpec(objectFile(file))
	if err != nil {
		return nil, err
	}
	if spec.Programs[program] == nil {
		return nil, fmt.Errorf("no program %s in %s", program, file)
	}
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	for name, m := range spec.Maps {
		if m.Type == ebpf.StructOpsMap { // the kernel refuses to register dummy ops
			delete(spec.Maps, name)
		}
	}
	var counters *cover.Counters
	if cover.Wanted() {
		if counters, err = cover.Instrument(spec, &cover.Options{Dir: "testdata"}); err != nil {
			return nil, err
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	return &object{coll.Programs[program], coll.Maps, counters}, nil
}

// skipUnloadable skips the test if the kernel lacks such programs, and fails it
// otherwise.
func skipUnloadable(t testing.TB, file, program string, err error) {
	t.Helper()
	newer := map[string]string{
		"lwt_seg6local": "LWTSeg6Local", "sk_lookup": "SkLookup", "netfilter": "Netfilter", "syscall": "Syscall",
		"tracing": "Tracing", "struct_ops": "StructOps", "raw_tracepoint": "RawTracepoint",
		"xdp_frags": "XDP with fragments",
	}
	if what, ok := newer[file]; ok {
		var verr *ebpf.VerifierError
		refused := errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) ||
			errors.Is(err, btf.ErrNotFound) || // no bpf_dummy_ops
			strings.Contains(err.Error(), "not found in bpf_dummy_ops") || // no test_sleepable
			tooMuchFor32Bits(err)
		if refused || errors.As(err, &verr) && file == "tracing" {
			skipOnThisKernel(t, what+" programs such as "+program, lastLine(err))
		}
	}
	t.Fatalf("load %s of %s: %+v", program, file, err)
}

// tooMuchFor32Bits reports whether cilium/ebpf could not read the BTF of a 64-bit
// kernel.
func tooMuchFor32Bits(err error) bool {
	return err != nil && strings.Contains(err.Error(), "exceeds int")
}

func lastLine(err error) error {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return errors.New(lines[len(lines)-1])
}

func (o *object) close() {
	o.Program.Close()
	for _, m := range o.maps {
		m.Close()
	}
	if err := o.counters.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// set writes an entry of an array.
func set[T any](t testing.TB, o *object, name string, key uint32, value T) {
	t.Helper()
	if err := o.maps[name].Put(key, value); err != nil {
		t.Fatalf("set %s[%d]: %v", name, key, err)
	}
}

// get returns an entry of an array.
func get[T any](t testing.TB, o *object, name string, key uint32) T {
	t.Helper()
	var value T
	if err := o.maps[name].Lookup(key, &value); err != nil {
		t.Fatalf("get %s[%d]: %v", name, key, err)
	}
	return value
}

// sum returns the sum of an entry of a per-CPU array over all CPUs.
func sum(t testing.TB, o *object, name string, key uint32) uint64 {
	t.Helper()
	var values []uint64
	if err := o.maps[name].Lookup(key, &values); err != nil {
		t.Fatalf("get %s[%d]: %v", name, key, err)
	}
	var total uint64
	for _, v := range values {
		total += v
	}
	return total
}

// runs returns how often the program of an object ran, by the program's own count.
func runs(t testing.TB, o *object) uint64 {
	t.Helper()
	return get[uint64](t, o, "runs", 0)
}

// wantError checks the text of an error, what it Is, and whether the program ran.
func wantError(t *testing.T, err error, text string, is error, ran Ran) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if !strings.HasPrefix(err.Error(), "progrun: ") || !strings.Contains(err.Error(), text) {
		t.Errorf("got  %q\nwant something with %q", err, text)
	}
	if !errors.Is(err, is) {
		t.Errorf("%q is not %q", err, is)
	}
	if e.Ran != ran {
		t.Errorf("%q: %s, want: %s", err, e.Ran, ran)
	}
}

// inNetNS runs f on a thread in a network namespace of its own, whose loopback is down.
// The namespace is gone when f returns.
func inNetNS(t testing.TB, f func()) {
	t.Helper()
	needPrivilege(t)
	var err error
	onThread(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f()
		}
		return false // so the thread ends
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
}

// frame returns an Ethernet frame of n bytes. Its addresses are zero, like that of
// loopback, and its EtherType is for local experiments.
func frame(n int) []byte {
	b := make([]byte, n)
	for i := ethHLen; i < n; i++ {
		b[i] = byte(i)
	}
	if n >= ethHLen {
		b[12], b[13] = 0x88, 0xb5
	}
	return b
}

// udp4 returns a frame with 42 bytes of headers and a payload, from 192.0.2.1:1234.
func udp4(dst [4]byte, port uint16, payload ...byte) []byte {
	n := 28 + len(payload)
	b := []byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x08, 0x00,
		0x45, 0, byte(n >> 8), byte(n), 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, dst[0], dst[1], dst[2], dst[3],
		1234 >> 8, 1234 & 0xff, byte(port >> 8), byte(port), byte((n - 20) >> 8), byte(n - 20), 0, 0}
	c := checksum(b[14:34])
	b[24], b[25] = byte(c>>8), byte(c)
	return append(b, payload...)
}

// udp6 returns a frame with 62 bytes of headers and a payload, from [2001:db8::1]:1234
// to [2001:db8::2]:port, without a UDP checksum.
func udp6(port uint16, payload ...byte) []byte {
	n := 8 + len(payload)
	b := []byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
		0x60, 0x0a, 0xbc, 0xde, byte(n >> 8), byte(n), 17, 64,
		0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
		0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
		1234 >> 8, 1234 & 0xff, byte(port >> 8), byte(port), byte(n >> 8), byte(n), 0, 0}
	return append(b, payload...)
}

// checksum returns the checksum of the Internet protocols.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var somewhere = [4]byte{198, 51, 100, 1}

// mallocs returns how many allocations f makes.
func mallocs(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.Mallocs - before.Mallocs)
}

// inherit runs this test binary with a program as descriptor 3, and returns its output.
func inherit(t *testing.T, o *object, what string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, what)
	cmd.ExtraFiles = []*os.File{descriptor(t, o)}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// descriptor returns a file for a program, which another process can inherit.
func descriptor(t *testing.T, o *object) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(o.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "program")
	t.Cleanup(func() { file.Close() })
	return file
}

// unwrapped returns the errno at the bottom of an error.
func unwrapped(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
