package main

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// keyring is the keyring that verifies Debian's archive.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// listsAge is how old the archive's package lists may be before they are read again.
const listsAge = 24 * time.Hour

// fetchKernels fetches the newest package of each kernel. If a package has left the
// archive since the lists were read, it reads the lists again.
func fetchKernels(ctx context.Context, arch *arch, names []string) ([]target, error) {
	a, err := openArchive(ctx, arch)
	if err != nil {
		return nil, err
	}
	fresh, err := a.refresh(ctx, listsAge)
	if err != nil {
		return nil, err
	}
	targets, err := a.fetchAll(ctx, names)
	if err == nil || fresh || ctx.Err() != nil {
		return targets, err
	}
	if _, err := a.refresh(ctx, 0); err != nil {
		return nil, err
	}
	return a.fetchAll(ctx, names)
}

// An archive is Debian's archive for one architecture, with an apt configuration of
// its own.
type archive struct {
	arch *arch
	dir  string // holds the configuration, the lists, and a directory for each kernel
	conf string
}

// openArchive prepares the archive in the user's cache directory.
func openArchive(ctx context.Context, arch *arch) (*archive, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "progrun", "kernels", arch.deb)
	a := &archive{arch: arch, dir: dir, conf: filepath.Join(dir, "apt.conf")}
	return a, a.configure(ctx)
}

// refresh reads the archive's lists if those in the cache are older than age, and
// reports whether it did. If it cannot read all of them, it keeps the old ones.
func (a *archive) refresh(ctx context.Context, age time.Duration) (bool, error) {
	stamp := filepath.Join(a.dir, "updated")
	info, err := os.Stat(stamp)
	if err == nil && time.Since(info.ModTime()) < age {
		return false, nil
	}
	// Without the error mode, apt-get only warns about lists that it could not read.
	_, err = output(exec.CommandContext(ctx, "apt-get", "-c", a.conf, "-q", "-o", "APT::Update::Error-Mode=any", "update"))
	if err == nil {
		return true, os.WriteFile(stamp, nil, 0o644)
	}
	if ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "kernels: using the package lists that are there:", err)
	}
	return false, ctx.Err()
}

// configure writes the private configuration. It has the suites that hold the
// kernels, and takes their location from the machine's own configuration.
func (a *archive) configure(ctx context.Context) error {
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, sub), 0o755); err != nil {
			return err
		}
	}
	main, security, err := archiveURIs(ctx)
	if err != nil {
		return err
	}
	sources := sourcesStanza(main, a.arch.suites...)
	if security != "" {
		sources += "\n" + sourcesStanza(security, a.arch.security...)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "debian.sources"), []byte(sources), 0o644); err != nil {
		return err
	}
	// The machine's hooks after an update are for its own lists. Without the
	// sandbox user, apt writes here as the user who runs it.
	conf := fmt.Sprintf(`APT::Architecture "%[2]s";
APT::Architectures { "%[2]s"; };
APT::Sandbox::User "root";
Dir::Etc::sourcelist "%[1]s/debian.sources";
Dir::Etc::sourceparts "-";
Dir::State::lists "%[1]s/lists";
Dir::Cache "%[1]s";
Dir::Cache::pkgcache "pkgcache.bin";
Acquire::Retries "3";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
`, a.dir, a.arch.deb)
	return os.WriteFile(a.conf, []byte(conf), 0o644)
}

func sourcesStanza(uri string, suites ...string) string {
	return fmt.Sprintf("Types: deb\nTargets: Packages\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n",
		uri, strings.Join(suites, " "), keyring)
}

// archiveURIs asks apt for the locations of the machine's own release and of its
// security updates.
func archiveURIs(ctx context.Context) (main, security string, err error) {
	codename, err := debianCodename()
	if err != nil {
		return "", "", err
	}
	list, err := output(exec.CommandContext(ctx, "apt-get", "indextargets", "--no-release-info",
		"--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"))
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(list) {
		switch suite, uri, _ := strings.Cut(strings.TrimSpace(line), " "); suite {
		case codename:
			main = uri
		case codename + "-security":
			security = uri
		}
	}
	if main == "" {
		return "", "", fmt.Errorf("apt's sources have no suite %s, so Debian's archive is not known here", codename)
	}
	return main, security, nil
}

func debianCodename() (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release has no VERSION_CODENAME")
}

// A debPackage is a stanza of the archive's lists.
type debPackage struct {
	name, version, filename, sha256, depends string
}

// packages lists the archive's kernels, the packages they are split in, and the
// shell of the virtual machines.
func (a *archive) packages(ctx context.Context) ([]debPackage, error) {
	list, err := output(exec.CommandContext(ctx, "apt-cache", "-c", a.conf, "show",
		"^linux-(image|binary|modules)-[0-9].*-("+strings.Join(slices.Sorted(maps.Values(a.arch.flavours)), "|")+")$",
		"^"+shell+"$"))
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "kernels: no package lists:", err) // what the cache holds may do
	}
	return parsePackages(list), ctx.Err()
}

// shell is the package with the virtual machines' shell, a static program.
const shell = "busybox-static"

func parsePackages(list string) []debPackage {
	var all []debPackage
	for stanza := range strings.SplitSeq(list, "\n\n") {
		var p debPackage
		for line := range strings.Lines(stanza) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "Package":
				p.name = value
			case "Version":
				p.version = value
			case "Filename":
				p.filename = path.Base(value)
			case "SHA256":
				p.sha256 = value
			case "Depends":
				p.depends = value
			}
		}
		// The archive leaves an epoch out of the names of its files, apt-get does not.
		if epoch, _, ok := strings.Cut(p.version, ":"); ok {
			p.filename = strings.Replace(p.filename, "_", "_"+epoch+"%3a", 1)
		}
		if p.name != "" && p.sha256 != "" {
			all = append(all, p)
		}
	}
	return all
}

// imageName matches the start of the name of a kernel's package. It does not match
// packages such as linux-image-6.12-cloud-amd64, which only depend on one.
var imageName = regexp.MustCompile(`^linux-image-(\d+\.\d+)\.`)

// series returns the series of a kernel of this flavour, or "" for any other
// package.
func (p debPackage) series(flavour string) string {
	if m := imageName.FindStringSubmatch(p.name); m != nil && strings.HasSuffix(p.name, "-"+flavour) {
		return m[1]
	}
	return ""
}

// partNames matches the packages into which a kernel is split since 7.x.
var partNames = regexp.MustCompile(`linux-(binary|modules)-[^\s,]+`)

// parts returns the packages that hold the files of kernel p.
func (p debPackage) parts(all []debPackage) []debPackage {
	parts := []debPackage{p}
	for _, name := range partNames.FindAllString(p.depends, -1) {
		i := slices.IndexFunc(all, func(q debPackage) bool { return q.name == name && q.version == p.version })
		if i >= 0 {
			parts = append(parts, all[i])
		}
	}
	return parts
}

func newestSeries(all []debPackage, flavour string) string {
	newest := ""
	for _, p := range all {
		if s := p.series(flavour); compareSeries(s, newest) > 0 {
			newest = s
		}
	}
	return newest
}

// newestCached returns the newest series that the cache holds of a kernel named
// "newest" with a suffix.
func (a *archive) newestCached(name string) string {
	_, suffix, _ := strings.Cut(name, "-")
	debs, _ := filepath.Glob(filepath.Join(a.dir, "[0-9]*", "*.deb")) // the pattern is well-formed
	newest := ""
	for _, deb := range debs {
		series, s, _ := strings.Cut(filepath.Base(filepath.Dir(deb)), "-")
		if s == suffix && compareSeries(series, newest) > 0 {
			newest = series
		}
	}
	return newest
}

// fetchAll fetches the named kernels, and their shell.
func (a *archive) fetchAll(ctx context.Context, names []string) ([]target, error) {
	all, err := a.packages(ctx)
	if err != nil {
		return nil, err
	}
	shells := slices.DeleteFunc(slices.Clone(all), func(p debPackage) bool { return p.name != shell })
	_, busybox, err := a.fetchNewest(ctx, shell, shells, all)
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, name := range names {
		t, err := a.fetchKernel(ctx, name, all)
		if err != nil {
			return nil, err
		}
		t.debs = append(t.debs, busybox...)
		targets = append(targets, t)
	}
	return targets, nil
}

// fetchKernel fetches a kernel by its name in -kernel.
func (a *archive) fetchKernel(ctx context.Context, name string, all []debPackage) (target, error) {
	series, flavour, err := a.arch.flavour(name)
	if err != nil {
		return target{}, err
	}
	newest := series == "newest"
	if newest {
		series = cmp.Or(newestSeries(all, flavour), a.newestCached(name))
		name = strings.Replace(name, "newest", series, 1)
	}
	kernels := slices.DeleteFunc(slices.Clone(all), func(p debPackage) bool { return p.series(flavour) != series })
	version, debs, err := a.fetchNewest(ctx, name, kernels, all)
	return target{arch: a.arch, kernel: name, newest: newest, version: version, debs: debs}, err
}

// fetchNewest fetches the newest of several packages that it can get, with its parts.
// If it gets none, it uses what an earlier run put into the cache. It returns the
// version and the names of the files.
func (a *archive) fetchNewest(ctx context.Context, name string, packages, all []debPackage) (string, []string, error) {
	slices.SortFunc(packages, func(p, q debPackage) int { return -compareVersions(ctx, p.version, q.version) })
	errs := []error{fmt.Errorf("%s of %s cannot be had from the archive", name, a.arch.deb)}
	for _, p := range packages {
		debs, err := a.fetch(ctx, name, p.parts(all))
		if err == nil {
			return p.version, debs, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
		fmt.Fprintf(os.Stderr, "kernels: %s %s cannot be had, trying an older one: %v\n", p.name, p.version, err)
	}
	if debs, err := filepath.Glob(filepath.Join(a.dir, name, "*.deb")); err == nil && len(debs) > 0 && ctx.Err() == nil {
		version := strings.Split(filepath.Base(debs[0]), "_")[1]
		fmt.Fprintf(os.Stderr, "kernels: the archive has no %s of %s, taking %s from the cache\n", name, a.arch.deb, version)
		return version, debs, nil
	}
	return "", nil, errors.Join(errs...)
}

// compareVersions orders versions by dpkg's rules.
func compareVersions(ctx context.Context, a, b string) int {
	is := func(relation string) bool {
		return exec.CommandContext(ctx, "dpkg", "--compare-versions", a, relation, b).Run() == nil
	}
	switch {
	case is("lt"):
		return -1
	case is("gt"):
		return 1
	}
	return 0
}

// fetch downloads a package with its parts, unless the cache has it, and then removes
// older ones from the cache. apt-get checks what it downloads. fetch also checks what
// the cache holds against the lists.
func (a *archive) fetch(ctx context.Context, name string, parts []debPackage) ([]string, error) {
	dir := filepath.Join(a.dir, name)
	partial := filepath.Join(dir, "partial")
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return nil, err
	}
	var debs, fetched []string
	for _, p := range parts {
		debs = append(debs, filepath.Join(dir, p.filename))
		if p.matches(filepath.Join(dir, p.filename)) {
			continue
		}
		if err := a.download(ctx, partial, p); err != nil {
			return nil, err
		}
		fetched = append(fetched, p.filename)
	}
	// The cache must never hold a part without the others.
	for _, file := range fetched {
		if err := os.Rename(filepath.Join(partial, file), filepath.Join(dir, file)); err != nil {
			return nil, err
		}
	}
	return debs, dropOthers(dir, debs)
}

// download fetches a package into a directory, unless it is there.
func (a *archive) download(ctx context.Context, dir string, p debPackage) error {
	deb := filepath.Join(dir, p.filename)
	if p.matches(deb) {
		return nil
	}
	fmt.Fprintf(os.Stderr, "fetching %s %s of %s\n", p.name, p.version, a.arch.deb)
	cmd := exec.CommandContext(ctx, "apt-get", "-c", a.conf, "-q", "download", p.name+"="+p.version)
	cmd.Dir = dir
	if _, err := output(cmd); err != nil {
		return err
	}
	if !p.matches(deb) {
		return errors.Join(fmt.Errorf("%s is not what the package lists promise", p.filename), os.Remove(deb))
	}
	return nil
}

func dropOthers(dir string, keep []string) error {
	old, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range old {
		if !slices.Contains(keep, deb) {
			if err := os.Remove(deb); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(filepath.Join(dir, "partial"))
}

// matches reports whether the file exists and has the package's checksum.
func (p debPackage) matches(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == p.sha256
}

// A kernel holds the files of a kernel that a virtual machine needs.
type kernel struct {
	image   []byte
	modules map[string][]byte // by name, compressed as in the package
	shell   []byte
}

// readKernel reads the kernel out of its packages.
func readKernel(ctx context.Context, debs []string) (*kernel, error) {
	k := &kernel{modules: map[string][]byte{}}
	for _, deb := range debs {
		if err := k.read(ctx, deb); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(deb), err)
		}
	}
	if k.image == nil || k.shell == nil {
		return nil, fmt.Errorf("no vmlinuz or no busybox in %s", strings.Join(debs, ", "))
	}
	return k, nil
}

func (k *kernel) read(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := k.readTar(out)
	_, drainErr := io.Copy(io.Discard, out) // a writer that nobody reads never ends
	return errors.Join(readErr, drainErr, cmd.Wait())
}

func (k *kernel) readTar(r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		base := path.Base(h.Name)
		name, _, isModule := strings.Cut(base, ".ko")
		switch {
		case strings.HasPrefix(base, "vmlinu"):
			k.image, err = io.ReadAll(tr)
		case base == "busybox" && path.Base(path.Dir(h.Name)) == "bin":
			k.shell, err = io.ReadAll(tr)
		case isModule:
			k.modules[moduleName(name)], err = io.ReadAll(tr)
		}
		if err != nil {
			return err
		}
	}
}
