package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

// A suite is the module's test binaries.
type suite struct {
	root     string // the module's directory
	args     []string
	packages []testPackage
}

type testPackage struct {
	path   string // its import path
	dir    string // where its tests run
	binary string
}

// buildSuites builds the test binaries for the architectures of the targets.
func buildSuites(ctx context.Context, dir string, targets []target, opts options) (map[*arch]*suite, error) {
	suites := map[*arch]*suite{}
	for _, t := range targets {
		if suites[t.arch] != nil {
			continue
		}
		s, err := buildSuite(ctx, dir, t.arch, opts)
		if err != nil {
			return nil, err
		}
		suites[t.arch] = s
	}
	return suites, nil
}

// buildSuite builds a static test binary of every package of the module that has
// tests, except this command.
func buildSuite(ctx context.Context, dir string, a *arch, opts options) (*suite, error) {
	goarch := cmp.Or(opts.goarch, a.goarch)
	root, err := goCommand(ctx, goarch, "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	s := &suite{root: strings.TrimSpace(root), args: testArgs(a, opts)}
	packages := s.root + "/..."
	if opts.shortOn(a) {
		packages = s.root
	}
	list, err := goCommand(ctx, goarch, "list", "-f",
		`{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}`, packages)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(list) {
		path, pkgDir, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path == ownPath() {
			continue
		}
		binary := filepath.Join(dir, fmt.Sprintf("%s-%d.test", goarch, len(s.packages)))
		if _, err := goCommand(ctx, goarch, "test", "-c", "-ldflags=-s -w", "-o", binary, path); err != nil {
			return nil, err
		}
		s.packages = append(s.packages, testPackage{path: path, dir: pkgDir, binary: binary})
	}
	if len(s.packages) == 0 {
		return nil, fmt.Errorf("no package below %s has tests", s.root)
	}
	return s, nil
}

// testArgs returns the arguments of the test binaries.
func testArgs(a *arch, opts options) []string {
	run := opts.run
	if opts.shortOn(a) {
		run = cmp.Or(run, a.short)
	}
	args := []string{
		"-test.v=test2json",
		"-test.run=" + run,
		// Shorter than the kernel's own limit, so that a test that hangs
		// prints where.
		fmt.Sprintf("-test.timeout=%s", opts.timeout*9/10),
	}
	if a.goarch != native {
		// A few requests of each kind show as well as thousands what differs there.
		args = append(args, "-test.short")
	}
	return args
}

// ownPath returns the import path of this command, whose tests need no kernel.
func ownPath() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return info.Path
}

// goCommand returns a go command that builds static Linux binaries.
func goCommand(ctx context.Context, goarch string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off", "GOARCH="+goarch)
	return output(cmd)
}

// output runs cmd and returns what it prints. Its error holds what cmd wrote to
// standard error.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// runHost runs the suite on this machine's kernel.
func runHost(ctx context.Context, t target, s *suite, _ string, opts options) (*report, error) {
	r := &report{target: t, results: newResults()}
	deadline, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	for _, p := range s.packages {
		done, err := runBinary(deadline, p, s.args)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if err := r.results.add(ctx, done); err != nil {
			return nil, err
		}
	}
	if len(r.results.unfinished) > 0 {
		r.trouble = append(r.trouble, fmt.Sprintf("Not every package's tests ended within %s.", opts.timeout))
	}
	return r, nil
}

// runBinary runs the tests of a package here.
func runBinary(ctx context.Context, p testPackage, args []string) (section, error) {
	if ctx.Err() != nil {
		return section{path: p.path}, nil
	}
	cmd := exec.CommandContext(ctx, p.binary, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "PROGRUN_REQUIRE=1")
	cmd.WaitDelay = time.Second // children that outlive a killed test keep its output open
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return section{}, err
	}
	return section{path: p.path, output: out, ended: ctx.Err() == nil, status: cmd.ProcessState.ExitCode()}, nil
}
