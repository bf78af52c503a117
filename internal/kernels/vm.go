package main

import (
	"bytes"
	"context"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// guestModules are the modules that are loaded before the tests, with those that they
// depend on, since nothing in the machine loads modules later. Those built into a
// kernel are left out.
var guestModules = []string{
	"virtio_pci", "virtio_console", // the port for the tests' output
	"crc32c_generic", // nf_tables needs it through libcrc32c
	"veth", "dummy", "tun", "ipv6",
	"sch_ingress", "cls_bpf", "act_bpf",
	"nf_defrag_ipv4", "nf_defrag_ipv6", "nf_tables",
}

//go:embed init.sh
var initScript []byte

// runGuest boots the target's kernel in QEMU and runs the suite on it.
func runGuest(ctx context.Context, t target, s *suite, dir string, opts options) (*report, error) {
	k, err := readKernel(ctx, t.debs)
	if err != nil {
		return nil, err
	}
	modules, err := k.pick(ctx, guestModules)
	if err != nil {
		return nil, err
	}
	initrd, err := guestImage(k.shell, modules, s, t.require())
	if err != nil {
		return nil, err
	}
	vm := machine{arch: t.arch, dir: filepath.Join(dir, t.arch.deb+"-"+t.kernel), accel: opts.accelFor(t.arch), limit: opts.timeout}
	if err := vm.prepare(k.image, initrd); err != nil {
		return nil, err
	}
	r, err := vm.run(ctx, s)
	if ctx.Err() == nil && (err != nil || r.boot == 0) {
		fmt.Fprintf(os.Stderr, "kernels: %s did not boot, trying once more\n", t.name())
		r, err = vm.run(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	r.target = t
	return r, os.RemoveAll(vm.dir)
}

// A machine is QEMU with a kernel and two ports, a serial one for the kernel's
// console and one for the tests' output.
type machine struct {
	arch  *arch
	dir   string
	accel string
	limit time.Duration
}

func (m machine) file(name string) string { return filepath.Join(m.dir, name) }

func (m machine) prepare(image, initrd []byte) error {
	return errors.Join(
		os.Mkdir(m.dir, 0o755),
		os.WriteFile(m.file("vmlinuz"), image, 0o644),
		os.WriteFile(m.file("initrd"), initrd, 0o644),
	)
}

// run runs the machine until it turns itself off, and returns what it reported.
func (m machine) run(ctx context.Context, s *suite) (*report, error) {
	ended, err := m.boot(ctx)
	if err != nil {
		return nil, err
	}
	r, err := m.report(ctx, s)
	if err == nil && !ended {
		r.trouble = append(r.trouble, fmt.Sprintf("The machine did not end within %s.", m.limit))
	}
	return r, err
}

// boot runs the machine until it turns itself off, and reports whether it did. It
// kills the machine if that takes too long, or if its kernel does not boot.
func (m machine) boot(ctx context.Context) (ended bool, err error) {
	deadline, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	defer time.AfterFunc(m.limit/5, func() {
		if out, _ := os.ReadFile(m.file("tests")); parseGuest(out).boot == 0 {
			cancel()
		}
	}).Stop()
	cmd := exec.CommandContext(deadline, m.arch.qemu, "-machine", m.arch.machine,
		"-accel", m.accel, "-cpu", "max", "-smp", "2", "-m", "1G",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
		"-serial", "file:"+m.file("console"),
		"-device", "virtio-serial", "-chardev", "file,id=tests,path="+m.file("tests"), "-device", "virtserialport,chardev=tests",
		"-kernel", m.file("vmlinuz"), "-initrd", m.file("initrd"),
		// This level shows the warnings that report looks for.
		"-append", "console="+m.arch.console+" loglevel=5 panic=-1")
	_, err = output(cmd)
	if deadline.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return true, err
}

// report reads what the machine wrote to its ports.
func (m machine) report(ctx context.Context, s *suite) (*report, error) {
	console, err := os.ReadFile(m.file("console"))
	if err != nil {
		return nil, err
	}
	tests, err := os.ReadFile(m.file("tests"))
	if err != nil {
		return nil, err
	}
	out := parseGuest(tests)
	r := &report{boot: out.boot, results: newResults(), trouble: complaints(console)}
	for _, p := range s.packages {
		sec, ok := out.sections[p.path]
		if !ok {
			sec = section{path: p.path}
		}
		if err := r.results.add(ctx, sec); err != nil {
			return nil, err
		}
	}
	if len(r.results.unfinished) > 0 && len(r.trouble) == 0 {
		r.trouble = append(r.trouble, "Not every package's tests ended. The console's last lines:\n"+lastLines(console, 20))
	}
	return r, nil
}

// complaint matches what a kernel prints when something is wrong with it, and what
// init.sh prints.
var complaint = regexp.MustCompile(`\b(BUG: |kernel BUG at |Oops: |WARNING: |Kernel panic |general protection fault|rcu: INFO: |INFO: task )|^kernels: `)

// complaints returns the console's lines from the first complaint on.
func complaints(console []byte) []string {
	lines := consoleLines(console)
	for i, line := range lines {
		if complaint.MatchString(line) {
			return []string{"The kernel complained:\n" + strings.Join(lines[i:min(i+60, len(lines))], "\n")}
		}
	}
	return nil
}

func lastLines(console []byte, n int) string {
	lines := consoleLines(console)
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func consoleLines(console []byte) []string {
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(string(console), "\r", "")), "\n")
}

// A module is a module of a kernel, in the form that insmod takes.
type module struct {
	name    string
	content []byte
}

// pick returns the named modules in the order of loading, each after those that it
// depends on.
func (k *kernel) pick(ctx context.Context, names []string) ([]module, error) {
	var picked []module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		content, ok := k.modules[name]
		if !ok || seen[name] {
			return nil // built in, or done
		}
		seen[name] = true
		content, err := unpackModule(ctx, content)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		depends, err := moduleDepends(content)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		picked = append(picked, module{name, content})
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return picked, nil
}

// moduleName returns a module's name as modinfo spells it.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// unpackModule decompresses a .ko.xz.
func unpackModule(ctx context.Context, content []byte) ([]byte, error) {
	if !bytes.HasPrefix(content, []byte("\xfd7zXZ\x00")) {
		return content, nil
	}
	cmd := exec.CommandContext(ctx, "xz", "-dc")
	cmd.Stdin = bytes.NewReader(content)
	out, err := output(cmd)
	return []byte(out), err
}

// moduleDepends reads the names of the modules that a module depends on.
func moduleDepends(content []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(moduleName(list), ","), nil
		}
	}
	return nil, nil
}

// require returns the value of PROGRUN_REQUIRE for the tests.
func (t target) require() string {
	if t.newest {
		return "all"
	}
	return "1"
}

// guestImage returns the machine's initial file system. It has the packages of the
// module at their paths, each with its test data and README.
func guestImage(shell []byte, modules []module, s *suite, require string) ([]byte, error) {
	var a cpio
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "root", "bin", "modules", "tests"} {
		a.dir(dir)
	}
	a.file("init", 0o755, initScript)
	a.file("bin/busybox", 0o755, shell)
	var order strings.Builder
	for _, m := range modules {
		fmt.Fprintln(&order, m.name)
		a.file("modules/"+m.name+".ko", 0o644, m.content)
	}
	a.file("modules/order", 0o644, []byte(order.String()))
	a.file("tests/require", 0o644, []byte(require+"\n"))
	a.file("tests/args", 0o644, []byte(strings.Join(s.args, "\n")+"\n"))
	var list strings.Builder
	for _, p := range s.packages {
		rel, err := filepath.Rel(s.root, p.dir)
		if err != nil {
			return nil, err
		}
		dir := path.Join("module", filepath.ToSlash(rel))
		fmt.Fprintf(&list, "/%s %s\n", dir, p.path)
		if err := a.copyPackage(p, dir); err != nil {
			return nil, err
		}
	}
	a.file("tests/list", 0o644, []byte(list.String()))
	return a.finish(), nil
}

// copyPackage copies the files that a package's tests need into the archive.
func (a *cpio) copyPackage(p testPackage, dest string) error {
	binary, err := os.ReadFile(p.binary)
	if err != nil {
		return err
	}
	a.dir(dest)
	a.file(path.Join(dest, "package.test"), 0o755, binary)
	// Some tests are about the sources and the documentation.
	files, err := filepath.Glob(filepath.Join(p.dir, "*.go"))
	if err != nil {
		return err
	}
	for _, name := range []string{"README.md", "docs", "testdata"} {
		files = append(files, filepath.Join(p.dir, name))
	}
	for _, name := range files {
		err := a.copyTree(name, path.Join(dest, filepath.Base(name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// copyTree copies a file, or a directory and all below it, into the archive.
func (a *cpio) copyTree(src, dest string) error {
	return filepath.WalkDir(src, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := path.Join(dest, filepath.ToSlash(strings.TrimPrefix(name, src)))
		if d.IsDir() {
			a.dir(to)
			return nil
		}
		content, err := os.ReadFile(name)
		a.file(to, 0o644, content)
		return err
	})
}
