package cover

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"github.com/progrun/progrun"
)

// emulated reports whether the tests run in a slow virtual machine.
var emulated = os.Getenv("PROGRUN_KERNEL_MATRIX") == "1"

func TestMain(m *testing.M) {
	if err := rlimit.RemoveMemlock(); err != nil && os.Geteuid() == 0 {
		fmt.Fprintln(os.Stderr, "cannot raise the limit of locked memory, which old kernels count maps in:", err)
		os.Exit(1)
	}
	if os.Getenv(testRuns) == "" {
		os.Unsetenv(DirVariable) // the profiles of these tests are of no use to others
	}
	if why := examplesLack(); why != "" { // an example cannot skip itself
		fmt.Println(why)
		flag.Parse()
		flag.Set("test.skip", "^Example")
	}
	os.Exit(m.Run())
}

// examplesLack returns why the examples cannot run, or "".
func examplesLack() string {
	switch {
	case os.Geteuid() != 0:
		return "the examples load BPF programs: run the tests as root"
	case !describesTypes():
		return "this kernel cannot run the examples: it does not describe its types (CONFIG_DEBUG_INFO_BTF)"
	}
	return ""
}

// describesTypes reports whether the kernel has BTF of its own types. Without it, no
// global function can take a context.
func describesTypes() bool {
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	return err == nil
}

// needPrivilege skips a test that loads programs if the process may not.
func needPrivilege(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("PROGRUN_REQUIRE") == "1" {
		t.Fatal("PROGRUN_REQUIRE=1, but the tests do not run as root")
	}
	t.Skip("loads BPF programs: run the tests as root")
}

// byteOrder is the end of the names that bpf2go gives to objects for this machine.
var byteOrder = map[uint16]string{1: "bpfeb", 0x100: "bpfel"}[binary.NativeEndian.Uint16([]byte{0, 1})]

// object returns the name of an object for this machine.
func object(name string) string { return name + "_" + byteOrder + ".o" }

func loadSpec(t testing.TB, file string) *ebpf.CollectionSpec {
	t.Helper()
	needPrivilege(t)
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// instrument adds probes to an object's programs and loads it.
func instrument(t testing.TB, file string, opts *Options) (*Counters, *ebpf.Collection) {
	t.Helper()
	spec := loadSpec(t, file)
	if opts == nil {
		opts = &Options{}
	}
	opts.Dir = filepath.Dir(file)
	c, err := Instrument(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, newCollection(t, spec)
}

func newCollection(t testing.TB, spec *ebpf.CollectionSpec) *ebpf.Collection {
	t.Helper()
	coll, err := ebpf.NewCollection(spec)
	if err != nil && (!describesTypes() || strings.Contains(err.Error(), "not allowed in non-JITed programs")) {
		t.Skipf("this kernel does not describe its types, or has no JIT: %v", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(coll.Close)
	return coll
}

// run runs a program with a packet whose first byte is command.
func run(t testing.TB, coll *ebpf.Collection, program string, command byte) progrun.XDPAction {
	t.Helper()
	packet := make([]byte, 64)
	packet[0] = command
	res, err := progrun.XDP{Packet: packet}.Run(coll.Programs[program])
	if err != nil {
		t.Fatal(err)
	}
	return res.Action
}

func profile(t testing.TB, c *Counters) *Profile {
	t.Helper()
	p, err := c.Profile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// file returns the coverage of a file in a profile.
func file(t testing.TB, p *Profile, name string) *File {
	t.Helper()
	for _, f := range p.Files() {
		if filepath.Base(f.Name) == name {
			return &f
		}
	}
	t.Fatalf("the profile has no file %s", name)
	return nil
}

func lineState(t testing.TB, f *File, number int) State {
	t.Helper()
	for _, line := range f.Lines {
		if line.Number == number {
			return line.State
		}
	}
	t.Fatalf("%s has no line %d", f.Name, number)
	return 0
}

// A mark is the comment on a line of a source, which says which runs reach the line.
type mark struct {
	line int
	runs []byte // runs that reach the line
}

var markComment = regexp.MustCompile(`/\* run: ([0-9 ]+|none) \*/`)

func marks(t testing.TB, source string) (list []mark) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", source))
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range strings.Split(string(content), "\n") {
		found := markComment.FindStringSubmatch(text)
		if found == nil {
			continue
		}
		m := mark{line: i + 1}
		for _, field := range strings.Fields(strings.TrimSuffix(found[1], "none")) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			m.runs = append(m.runs, byte(n))
		}
		list = append(list, m)
	}
	return list
}

// checkMarks compares the profile of runs with the marks of a source.
func checkMarks(t *testing.T, p *Profile, source string, runs ...byte) {
	t.Helper()
	f := file(t, p, source)
	for _, m := range marks(t, source) {
		want := NotReached
		if slices.ContainsFunc(runs, func(r byte) bool { return slices.Contains(m.runs, r) }) {
			want = Reached
		}
		if got := lineState(t, f, m.line); got != want {
			t.Errorf("runs %v: line %d of %s is %s, want %s", runs, m.line, source, got, want)
		}
	}
}

// TestLines runs programs whose sources say which lines each run reaches. They have
// inlined functions, subprograms, global functions, callbacks, iterators, and tail
// calls that succeed or fail.
func TestLines(t *testing.T) {
	for _, c := range []struct {
		object, program string
		runs            []byte
		lacks           func() error
	}{
		{"lines", "lines", []byte{1, 2, 3, 4, 5}, nil},
		{"lines", "tail", []byte{11, 12, 13, 14}, nil},
		{"callback", "callback", []byte{20, 21, 22}, func() error { return features.HaveProgramHelper(ebpf.XDP, asm.FnLoop) }},
		{"iterator", "iterator", []byte{31, 32, 33}, haveIterators},
	} {
		for _, branches := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,branches=%v", c.program, branches), func(t *testing.T) {
				needPrivilege(t)
				if c.lacks != nil {
					if err := c.lacks(); errors.Is(err, ebpf.ErrNotSupported) {
						t.Skip("this kernel cannot load the program:", err)
					}
				}
				counters, coll := instrument(t, object("testdata/"+c.object), &Options{Branches: branches})
				if programs := coll.Maps["programs"]; programs != nil {
					if err := programs.Put(uint32(1), coll.Programs["called"]); err != nil {
						t.Fatal(err)
					}
				}
				source := c.object + ".c"
				checkMarks(t, profile(t, counters), source)
				for _, what := range c.runs {
					if err := counters.Reset(); err != nil {
						t.Fatal(err)
					}
					run(t, coll, c.program, what)
					checkMarks(t, profile(t, counters), source, what)
				}
				if err := counters.Reset(); err != nil {
					t.Fatal(err)
				}
				for _, what := range c.runs {
					run(t, coll, c.program, what)
				}
				checkMarks(t, profile(t, counters), source, c.runs...)
				if c.object == "lines" {
					checkMarks(t, profile(t, counters), "marks.h", c.runs...)
				}
			})
		}
	}
}

// haveIterators returns an error if the kernel has no open-coded iterators.
func haveIterators() error {
	spec, err := ebpf.LoadCollectionSpec(object("testdata/iterator"))
	if err != nil {
		return err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		// The kernel refuses a program with weak kfuncs that it lacks.
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	coll.Close()
	return nil
}

// TestFunctions checks the functions in profiles: where they begin, even if their first
// code is from a header, and whether they ran.
func TestFunctions(t *testing.T) {
	counters, coll := instrument(t, object("testdata/lines"), nil)
	run(t, coll, "lines", 1)
	got := map[string]State{}
	text, err := os.ReadFile("testdata/lines.c")
	if err != nil {
		t.Fatal(err)
	}
	source := strings.Split(string(text), "\n")
	for _, f := range file(t, profile(t, counters), "lines.c").Functions {
		got[f.Name] = f.State
		if line := source[f.Line-1]; !strings.Contains(line, "int "+f.Name+"(") {
			t.Errorf("%s begins at line %d: %s", f.Name, f.Line, line)
		}
	}
	want := map[string]State{
		"lines": Reached, "subprogram": NotReached, "global": NotReached, "tail": NotReached, "called": NotReached,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestBranches checks that a condition covers a return that has no line.
func TestBranches(t *testing.T) {
	counters, coll := instrument(t, object("testdata/lines"), &Options{Branches: true})
	if err := coll.Maps["programs"].Put(uint32(1), coll.Programs["called"]); err != nil {
		t.Fatal(err)
	}
	line := lineWith(t, "testdata/lines.c", "if (what == 14)")
	ways := func() (taken []State) {
		for _, b := range file(t, profile(t, counters), "lines.c").Branches {
			if b.Line == line {
				taken = append(taken, b.State, b.Jump.State, b.Next.State)
			}
		}
		slices.Sort(taken[1:])
		return taken
	}
	for _, c := range []struct {
		command byte
		want    []State
	}{
		{12, []State{NotReached, NotReached, NotReached}},
		{13, []State{Reached, NotReached, Reached}},
		{14, []State{Reached, Reached, Reached}},
	} {
		run(t, coll, "tail", c.command)
		if got := ways(); !slices.Equal(got, c.want) {
			t.Errorf("after run %d, the condition of line %d is %v, want %v", c.command, line, got, c.want)
		}
	}
}

func lineWith(t *testing.T, name, text string) int {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(content), text)
	if !ok {
		t.Fatalf("%s has no %q", name, text)
	}
	return strings.Count(before, "\n") + 1
}

// TestSkip leaves a program out. Its lines are unknown, even those that it shares with
// others, unless others reached them.
func TestSkip(t *testing.T) {
	counters, coll := instrument(t, object("testdata/lines"), &Options{Skip: []string{"tail"}})
	run(t, coll, "lines", 1)
	run(t, coll, "tail", 13)
	p := profile(t, counters)
	for text, want := range map[string]State{
		"DO(30);": Reached, "DO(33);": NotReached, "DO(50);": NotReached, "DO(60);": Unknown,
	} {
		line := lineWith(t, "testdata/lines.c", text)
		if got := lineState(t, file(t, p, "lines.c"), line); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]State{"DO(300);": Unknown, "DO(301);": Reached} {
		if got := lineState(t, file(t, p, "marks.h"), lineWith(t, "testdata/marks.h", text)); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	var out bytes.Buffer
	if err := errors.Join(p.WriteGo(&out), p.WriteLCOV(&out)); err != nil {
		t.Fatal(err)
	}
	if entry := fmt.Sprintf("DA:%d,", lineWith(t, "testdata/lines.c", "DO(60);")); strings.Contains(out.String(), entry) {
		t.Error("a report has a line that is unknown")
	}
}

// TestClosedCollection reads the profile of a program whose collection is closed.
func TestClosedCollection(t *testing.T) {
	spec := loadSpec(t, object("testdata/lines"))
	counters, err := Instrument(spec, &Options{Dir: "testdata"})
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	coll := newCollection(t, spec)
	program, err := coll.Programs["lines"].Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	coll.Close()
	packet := make([]byte, 64)
	packet[0] = 4
	if _, err := (progrun.XDP{Packet: packet}).Run(program); err != nil {
		t.Fatal(err)
	}
	checkMarks(t, profile(t, counters), "lines.c", 4)
}

// TestLoadedTwice checks that copies of a collection have the same counters.
func TestLoadedTwice(t *testing.T) {
	spec := loadSpec(t, object("testdata/lines"))
	counters, err := Instrument(spec, &Options{Dir: "testdata"})
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	run(t, newCollection(t, spec), "lines", 2)
	run(t, newCollection(t, spec.Copy()), "lines", 5)
	checkMarks(t, profile(t, counters), "lines.c", 2, 5)
}

func TestInstrumentedTwice(t *testing.T) {
	spec := loadSpec(t, object("testdata/lines"))
	counters, err := Instrument(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	_, err = Instrument(spec, nil)
	if want := "cover: program called: has probes already"; !errors.Is(err, ErrInstrumented) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestClose closes counters twice, and closes a nil *Counters.
func TestClose(t *testing.T) {
	t.Setenv(DirVariable, "")
	spec := loadSpec(t, object("testdata/lines"))
	counters, err := Instrument(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	var no *Counters
	if err := errors.Join(counters.Close(), counters.Close(), no.Close()); err != nil {
		t.Error(err)
	}
	if _, err := counters.Profile(); err == nil {
		t.Error("closed counters have a profile")
	}
	if _, err := ebpf.NewCollection(spec); err == nil {
		t.Error("a collection was loaded without its counters")
	}
}

// testRuns is the environment variable with the runs that TestProcesses makes in a
// process of its own, which then leaves its profile.
const testRuns = "COVER_TEST_RUNS"

// TestProcesses merges the profiles of two processes, one of which writes twice, and
// compares them with the profile of this process.
func TestProcesses(t *testing.T) {
	needPrivilege(t)
	if commands := os.Getenv(testRuns); commands != "" {
		for _, field := range strings.Fields(commands) {
			command, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			counters, coll := instrument(t, object("testdata/lines"), nil)
			run(t, coll, "lines", byte(command))
			if err := counters.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return
	}

	instrument(t, object("testdata/lines"), nil) // skips the test where the processes could not run
	dir := filepath.Join(t.TempDir(), "made")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, commands := range []string{"3 4", "5"} {
		cmd := exec.Command(self, "-test.run=^TestProcesses$")
		cmd.Env = append(os.Environ(), DirVariable+"="+dir, testRuns+"="+commands)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	p, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkMarks(t, p, "lines.c", 3, 4, 5)

	counters, coll := instrument(t, object("testdata/lines"), nil)
	run(t, coll, "lines", 1)
	if err := profile(t, counters).WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	if p, err = ReadDir(dir); err != nil {
		t.Fatal(err)
	}
	checkMarks(t, p, "lines.c", 1, 3, 4, 5)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("the folder has %d files, want one for each process (%v)", len(entries), err)
	}
}

func TestRelativeDir(t *testing.T) {
	err := (&Profile{}).WriteDir("cover")
	if err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("got %v", err)
	}
}

func TestEmptyDir(t *testing.T) {
	if _, err := ReadDir(t.TempDir()); err == nil {
		t.Error("a folder without profiles was read")
	}
}

// TestExplain checks that the error names the program that is too complex.
func TestExplain(t *testing.T) {
	spec := loadSpec(t, object("testdata/lines"))
	counters, err := Instrument(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()

	tooMany := &ebpf.VerifierError{Cause: syscall.EFAULT, Log: []string{"The sequence of 8193 jumps is too complex."}}
	refusals := []error{fmt.Errorf("program tail: load program: %w", tooMany)}
	refusals = append(refusals, refusal(t, spec))
	for _, err := range refusals {
		explained := counters.Explain(err)
		if !strings.Contains(explained.Error(), "program tail may be too much for the verifier: leave it out with Options.Skip") {
			t.Errorf("got %v", explained)
		}
		if !errors.Is(explained, err) {
			t.Errorf("%v is not %v", explained, err)
		}
	}
	for _, err := range []error{nil, errors.New("program tail: another error")} {
		if got := counters.Explain(err); got != err {
			t.Errorf("got %v", got)
		}
	}
}

// refusal returns the error of loading a program whose loop is too long for the
// verifier.
func refusal(t *testing.T, spec *ebpf.CollectionSpec) error {
	t.Helper()
	spec.Programs["tail"].Instructions = asm.Instructions{
		asm.Mov.Imm(asm.R6, 0).WithSymbol("tail"),
		asm.Add.Imm(asm.R6, 1).WithSymbol("again"),
		asm.JLT.Imm(asm.R6, 1000000, "again"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}
	_, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogDisabled: true}})
	if err == nil {
		t.Fatal("the verifier followed a loop of a million rounds")
	}
	return err
}
