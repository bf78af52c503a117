// Command kernels runs every test of the module on several Linux kernels and
// prints one table: kernels across, tests down.
//
//	go run ./internal/kernels [flags]
//
// The kernels are the machine's own, on which the tests run first and alone,
// and Debian's cloud kernels 5.10, 6.1, 6.12 and the newest that Debian has,
// each booted in QEMU with the module's test binaries as its whole user space.
// The packages come from the Debian archive that apt already uses, with apt's
// own checks, and are kept in the user's cache directory. Nothing is installed
// and apt's own state is left alone.
//
// Every test runs as root with PROGRUN_REQUIRE=1. In a virtual machine
// PROGRUN_KERNEL_MATRIX=1 is set too: emulation is slow, so tests leave out what
// they assert about speed.
//
// The exit status is 1 if a test failed, if a kernel complained on its console
// (Oops, BUG, WARNING), if a test passed on no kernel at all, or if the table of
// program types in README.md differs from what TestProgramTypes found. A run on
// chosen kernels does not ask that every test passes somewhere, and a run of
// chosen kernels or tests compares only those cells of the README that it ran.
//
// The flags are:
//
//	-kernel list
//		run on these kernels only: a comma-separated list of series such as
//		5.10, of "host", and of "newest"
//	-run regexp
//		run only the tests that match, as with go test
//	-v
//		list every subtest, not just those which failed or skipped somewhere
//	-goarch name
//		test binaries for this architecture in place of amd64, such as 386;
//		then nothing is compared with the README, and a test need not pass
//		anywhere
//	-write
//		write the table of program types into README.md
//	-timeout duration
//		give each kernel this long (default 10m)
//	-accel name
//		have QEMU use this accelerator (default "tcg,thread=multi"; "kvm" is
//		faster where it works)
package main

import (
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

// wanted names the kernels of a full run.
const wanted = "host,5.10,6.1,6.12,newest"

// machines is how many virtual machines run at a time.
const machines = 2

type options struct {
	kernels string
	run     string
	goarch  string
	verbose bool
	write   bool
	timeout time.Duration
	accel   string
}

// partial says whether the run leaves out kernels or tests.
func (o options) partial() bool { return o.kernels != "" || o.run != "" }

func main() {
	var opts options
	flag.StringVar(&opts.kernels, "kernel", "", "run on these kernels only: a comma-separated `list` of series such as 5.10, of \"host\", and of \"newest\"; a test need then not pass anywhere, and only these columns of the README are compared")
	flag.StringVar(&opts.run, "run", "", "run only the tests that match `regexp`; only the rows of the README that it covers are compared")
	flag.StringVar(&opts.goarch, "goarch", "", "test binaries for this `architecture` in place of amd64, such as 386; then nothing is compared with the README, and a test need not pass anywhere")
	flag.BoolVar(&opts.verbose, "v", false, "list every subtest, not just those which failed or skipped somewhere")
	flag.BoolVar(&opts.write, "write", false, "write the table of program types into README.md")
	flag.DurationVar(&opts.timeout, "timeout", 10*time.Minute, "give each kernel this long")
	flag.StringVar(&opts.accel, "accel", "tcg,thread=multi", "have QEMU use this accelerator `name`; kvm is faster where it works")
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
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return false, fmt.Errorf("the kernels are Linux on amd64, and so must this machine be, which is %s on %s", runtime.GOOS, runtime.GOARCH)
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
	s, err := buildSuite(ctx, dir, opts)
	if err != nil {
		return false, err
	}
	reports, err := runAll(ctx, targets, s, dir, opts)
	if err != nil {
		return false, err
	}
	ok, same := printReports(os.Stdout, reports, opts), true
	if opts.goarch == "" {
		same, err = checkReadme(os.Stdout, filepath.Join(s.root, "README.md"), reports, opts)
	}
	fmt.Printf("\nThis took %s.\n", time.Since(start).Round(time.Second))
	return ok && same, err
}

// A target is a kernel to run on: the machine's own, or one in packages.
type target struct {
	series  string
	version string // as the package or, on the host, uname -r has it
	host    bool
	debs    []string
}

// name is how the table and messages call the target.
func (t target) name() string {
	if t.host {
		return t.series + " (host)"
	}
	return t.series
}

// pickTargets finds the kernels that opts asks for, oldest first, and fetches
// the packages of those that run in a virtual machine.
func pickTargets(ctx context.Context, opts options) ([]target, error) {
	host, err := hostTarget()
	if err != nil {
		return nil, err
	}
	list := opts.kernels
	if list == "" {
		list = wanted
	}
	var targets []target
	var series []string
	for _, name := range strings.Split(list, ",") {
		name = strings.TrimSpace(name)
		// A series that a full run boots is never taken from the host.
		if name == "host" || name == host.series && !slices.Contains(strings.Split(wanted, ","), name) {
			targets = append(targets, host)
		} else {
			series = append(series, name)
		}
	}
	if len(targets) > 0 && os.Geteuid() != 0 {
		return nil, errors.New("the tests load BPF programs into this machine's kernel: run this as root, or leave the host out with -kernel")
	}
	if len(series) > 0 {
		if err := checkTools(); err != nil {
			return nil, err
		}
		guests, err := fetchKernels(ctx, series)
		if err != nil {
			return nil, err
		}
		targets = append(targets, guests...)
	}
	return sortTargets(targets), nil
}

// hostTarget is the kernel of this machine.
func hostTarget() (target, error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return target{}, err
	}
	version := strings.TrimSpace(string(release))
	return target{series: seriesOf(version), version: version, host: true}, nil
}

// checkTools says which packages the virtual machines lack.
func checkTools() error {
	var missing []string
	for _, tool := range []struct{ name, pkg string }{
		{"qemu-system-x86_64", "qemu-system-x86"},
		{"busybox", "busybox-static"},
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

// A report is what came of one target.
type report struct {
	target
	boot    time.Duration // until the first process; 0 on the host
	total   time.Duration
	results *results
	trouble []string // what went wrong with the kernel itself, a paragraph each
}

// runAll runs the suite on the host, alone, since tests measure speed there,
// and then on the others, some at a time.
func runAll(ctx context.Context, targets []target, s *suite, dir string, opts options) ([]*report, error) {
	reports := make([]*report, len(targets))
	errs := make([]error, len(targets))
	one := func(i int, run func(context.Context, target, *suite, string, options) (*report, error)) {
		start := time.Now()
		reports[i], errs[i] = run(ctx, targets[i], s, dir, opts)
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
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			one(i, runGuest)
		})
	}
	wg.Wait()
	return reports, errors.Join(errs...)
}

// summary is one line about the report: which kernel, and how long it took.
func (r *report) summary() string {
	line := fmt.Sprintf("%-12s %s: ", r.name(), r.version)
	if !r.host {
		line += fmt.Sprintf("booted in %s, ", r.boot.Round(100*time.Millisecond))
	}
	return line + fmt.Sprintf("done in %s", r.total.Round(100*time.Millisecond))
}
