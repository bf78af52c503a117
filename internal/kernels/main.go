// Command kernels runs every test of the module on several Linux kernels. It prints
// a table with a column for each kernel and a row for each test.
//
//	go run ./internal/kernels [flags]
//
// The tests first run on the machine's own kernel, alone. Then they run on these
// kernels of Debian's, each booted in QEMU with the module's test binaries as its
// whole user space, two at a time:
//
//   - amd64: the cloud kernels 5.10, 6.1, 6.12 and the newest that Debian has
//   - arm64: 6.12 with pages of 4 KiB, and 6.12-16k with pages of 16 KiB
//   - ppc64le: 6.12-64k with pages of 64 KiB
//   - s390x, a big-endian machine: 6.1
//
// The packages come from the Debian archive that apt already uses, and pass apt's
// own checks. They stay in the user's cache directory: a kernel that has booted once
// boots without the network. The command installs nothing, and does not change apt's
// own state.
//
// Every test runs as root with PROGRUN_REQUIRE=1, and on the newest kernel with
// PROGRUN_REQUIRE=all. There, tests fail that progruntest would skip because the
// kernel lacks a feature. In a virtual machine PROGRUN_KERNEL_MATRIX=1 is set too:
// emulation is slow, so tests then assert nothing about speed. On architectures other
// than amd64 they run with -short. A kernel that does not boot is tried once more.
//
// The exit status is 1 if a test failed, if a kernel complained on its console
// (Oops, BUG, WARNING), if a test passed on no kernel at all, or if the table of
// program types in docs/kernels.md differs from what TestProgramTypes found. A run on
// chosen kernels does not require that every test passes somewhere. Only the cells of
// the table that a run covers are compared with it, and not those of 32-bit binaries.
//
// The flags are:
//
//	-kernel list
//		run on these kernels only: a comma-separated list of series such as
//		5.10, of "host", and of "newest"; after one of these, "-16k" (arm64) and
//		"-64k" (ppc64le) ask for larger pages
//	-run regexp
//		run only the tests that match, as with go test
//	-short
//		run on architectures other than amd64 only the root's tests that hang on the
//		machine
//	-v
//		list every subtest, not only those that failed or skipped somewhere
//	-goarch name
//		run on kernels of this architecture only: amd64, arm64, ppc64le, s390x,
//		or 386 for 32-bit test binaries on amd64's kernels; with -kernel, amd64
//		unless given
//	-write
//		write the table of program types into docs/kernels.md
//	-timeout duration
//		give each kernel this long (default 20m)
//	-accel name
//		let QEMU use this accelerator for amd64 (default "tcg,thread=single";
//		"kvm" is faster where it works)
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// defaultAccel emulates every instruction, which works for any architecture. With a
// thread for each of a machine's processors, kernels panicked under QEMU 7.2 when one
// processor ran code that another one was changing.
const defaultAccel = "tcg,thread=single"

// machines is how many virtual machines run at a time.
const machines = 2

type options struct {
	kernels string
	run     string
	short   bool
	goarch  string
	verbose bool
	write   bool
	timeout time.Duration
	accel   string
}

// chosen reports whether the run is on chosen kernels.
func (o options) chosen() bool { return o.kernels != "" || o.goarch != "" }

// partial reports whether the run leaves out kernels or tests.
func (o options) partial() bool { return o.chosen() || o.run != "" }

// shortOn reports whether an architecture runs only what hangs on the machine.
func (o options) shortOn(a *arch) bool { return o.short && a.goarch != native }

// accelFor returns the accelerator for virtual machines of an architecture.
func (o options) accelFor(a *arch) string {
	if a.goarch == native {
		return o.accel
	}
	return defaultAccel
}

func main() {
	var opts options
	flag.StringVar(&opts.kernels, "kernel", "", "run on these kernels only: a comma-separated `list` of series such as 5.10, of \"host\", and of \"newest\"; after one of these, \"-16k\" (arm64) and \"-64k\" (ppc64le) ask for larger pages")
	flag.StringVar(&opts.run, "run", "", "run only the tests that match `regexp`; only the rows of the table that it covers are compared")
	flag.BoolVar(&opts.short, "short", false, "run on architectures other than amd64 only the root's tests that hang on the machine")
	flag.StringVar(&opts.goarch, "goarch", "", "run on kernels of this `architecture` only: amd64, arm64, ppc64le, s390x, or 386 for 32-bit test binaries on amd64's kernels")
	flag.BoolVar(&opts.verbose, "v", false, "list every subtest, not just those which failed or skipped somewhere")
	flag.BoolVar(&opts.write, "write", false, "write the table of program types into docs/kernels.md")
	flag.DurationVar(&opts.timeout, "timeout", 20*time.Minute, "give each kernel this long")
	flag.StringVar(&opts.accel, "accel", defaultAccel, "have QEMU use this accelerator `name` for amd64; kvm is faster where it works")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, opts)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run reports whether every kernel passed. An error means that it could not tell.
func run(ctx context.Context, opts options) (bool, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != native {
		return false, fmt.Errorf("this machine must be Linux on amd64, and is %s on %s", runtime.GOOS, runtime.GOARCH)
	}
	start := time.Now()
	dir, err := os.MkdirTemp("", "kernels-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)

	targets, err := pickTargets(ctx, opts)
	if err != nil {
		return false, err
	}
	suites, err := buildSuites(ctx, dir, targets, opts)
	if err != nil {
		return false, err
	}
	reports, err := runAll(ctx, targets, suites, dir, opts)
	if err != nil {
		return false, err
	}
	ok, same := printReports(os.Stdout, reports, opts), true
	if opts.goarch != "386" {
		same, err = checkSupport(os.Stdout, filepath.Join(suites[targets[0].arch].root, supportFile), reports, opts)
	}
	fmt.Printf("\nThis took %s.\n", time.Since(start).Round(time.Second))
	return ok && same, err
}

// A target is a kernel to run on: the machine's own, or one in packages.
type target struct {
	arch    *arch
	kernel  string // its name, as in -kernel
	newest  bool   // whether it was asked for as the newest kernel
	version string // as in the package or, on the host, in uname -r
	host    bool
	debs    []string
}

// column returns the name of the target in tables about kernels.
func (t target) column() string { return columnName(t.kernel, t.arch.goarch) }

// name returns the name of the target in messages and in the table of tests.
func (t target) name() string {
	if t.host {
		return t.column() + " (host)"
	}
	return t.column()
}

// pickTargets finds the kernels that opts asks for, in the order of their
// columns, and fetches the packages of those that run in a virtual machine.
func pickTargets(ctx context.Context, opts options) ([]target, error) {
	var targets []target
	for _, a := range archs {
		names, err := opts.kernelsOf(a)
		if err != nil {
			return nil, err
		}
		ts, err := pickKernels(ctx, a, names)
		if err != nil {
			return nil, err
		}
		targets = append(targets, ts...)
	}
	return sortTargets(targets), nil
}

// kernelsOf returns the kernels of an architecture that opts asks for.
func (o options) kernelsOf(a *arch) ([]string, error) {
	if o.chosen() {
		if wanted, err := kernelArch(cmp.Or(o.goarch, native)); wanted != a {
			return nil, err
		}
	}
	switch {
	case o.kernels != "":
		return strings.FieldsFunc(o.kernels, func(r rune) bool { return r == ',' || r == ' ' }), nil
	case a.goarch == native:
		return append([]string{"host"}, a.kernels...), nil
	}
	return a.kernels, nil
}

// pickKernels finds the named kernels of an architecture.
func pickKernels(ctx context.Context, a *arch, names []string) ([]target, error) {
	host, err := hostTarget()
	if err != nil {
		return nil, err
	}
	var targets []target
	var guests []string
	for _, name := range names {
		// A kernel that a full run boots is never the host's.
		if name == "host" || name == host.kernel && a == host.arch && !slices.Contains(a.kernels, name) {
			if a != host.arch {
				return nil, fmt.Errorf("this machine does not run binaries for %s", a.goarch)
			}
			targets = append(targets, host)
		} else {
			guests = append(guests, name)
		}
	}
	if len(targets) > 0 && os.Geteuid() != 0 {
		return nil, errors.New("the tests load BPF programs into this machine's kernel: run this as root, or leave the host out with -kernel")
	}
	if len(guests) == 0 {
		return targets, nil
	}
	if err := checkTools(a); err != nil {
		return nil, err
	}
	fetched, err := fetchKernels(ctx, a, guests)
	return append(targets, fetched...), err
}

// hostTarget returns the target for this machine's kernel.
func hostTarget() (target, error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return target{}, err
	}
	a, err := kernelArch(native)
	version := strings.TrimSpace(string(release))
	return target{arch: a, kernel: seriesOf(version), version: version, host: true}, err
}

// sortTargets orders targets by their columns, and removes duplicates.
func sortTargets(targets []target) []target {
	slices.SortStableFunc(targets, func(a, b target) int { return compareColumns(a.column(), b.column()) })
	return slices.CompactFunc(targets, func(a, b target) bool { return a.name() == b.name() })
}

// checkTools returns an error that names the missing packages of the virtual
// machines.
func checkTools(a *arch) error {
	var missing []string
	for _, tool := range []struct{ name, pkg string }{
		{a.qemu, a.qemuPackage},
		{"xz", "xz-utils"},
		{"dpkg-deb", "dpkg"},
		{"apt-get", "apt"},
	} {
		if _, err := exec.LookPath(tool.name); err != nil {
			missing = append(missing, tool.pkg)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		missing = append(missing, "debian-archive-keyring")
	}
	if len(missing) > 0 {
		return fmt.Errorf("first run: apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}

// A report is the outcome of one target.
type report struct {
	target
	boot    time.Duration // until the first process; 0 on the host
	total   time.Duration
	results *results
	trouble []string // what went wrong with the kernel itself, a paragraph each
}

// runAll runs the suite on the host, alone, since tests measure speed there,
// and then on the others, some at a time.
func runAll(ctx context.Context, targets []target, suites map[*arch]*suite, dir string, opts options) ([]*report, error) {
	reports := make([]*report, len(targets))
	errs := make([]error, len(targets))
	one := func(i int, run func(context.Context, target, *suite, string, options) (*report, error)) {
		start := time.Now()
		reports[i], errs[i] = run(ctx, targets[i], suites[targets[i].arch], dir, opts)
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", targets[i].name(), errs[i])
			return
		}
		reports[i].total = time.Since(start)
		fmt.Fprintln(os.Stderr, reports[i].summary())
	}
	for i, t := range targets {
		if t.host {
			one(i, runHost)
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, machines)
	for i, t := range targets {
		if t.host {
			continue
		}
		slots <- struct{}{} // amd64's kernels begin, since they take the longest
		wg.Go(func() {
			defer func() { <-slots }()
			one(i, runGuest)
		})
	}
	wg.Wait()
	return reports, errors.Join(errs...)
}

// summary returns a line about the report: which kernel, and how long it took.
func (r *report) summary() string {
	line := fmt.Sprintf("%-15s %s: ", r.name(), r.version)
	if !r.host {
		line += fmt.Sprintf("booted in %s, ", r.boot.Round(100*time.Millisecond))
	}
	return line + fmt.Sprintf("done in %s", r.total.Round(100*time.Millisecond))
}
