package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// native is the architecture of the machine, and the default for its kernels.
const native = "amd64"

// An arch is an architecture whose kernels boot in virtual machines.
type arch struct {
	goarch   string
	deb      string            // Debian's name of the architecture
	kernels  []string          // the kernels of a full run
	short    string            // the root's tests that run with -short
	flavours map[string]string // Debian's flavours of kernels, by the end of a kernel's name
	suites   []string          // Debian's suites that hold the kernels
	security []string          // suites of Debian's security archive

	qemu        string // the emulator
	qemuPackage string // the package that holds the emulator
	machine     string // which machine to emulate
	console     string // the kernel's name for the console
}

// machineTests matches the root's tests that hang on the machine: on the layout of
// structs, on the page, and on what the kernel is built with and its JIT can do. With
// -short an architecture other than amd64 runs these and its own.
const machineTests = "^Test(Golden|Kernel|ProgramTypes|Have|Documented|EveryContextByte|Differential)|Limit|Size|TooLarge|LargePacket|Metadata"

var archs = []*arch{
	{
		goarch: "amd64", deb: "amd64", kernels: []string{"5.10", "6.1", "6.12", "newest"},
		flavours: map[string]string{"": "cloud-amd64"},
		suites:   []string{"bullseye", "bookworm", "bookworm-backports", "sid"},
		security: []string{"bullseye-security", "bookworm-security"},
		qemu:     "qemu-system-x86_64", qemuPackage: "qemu-system-x86", machine: "pc", console: "ttyS0",
	},
	{
		// Pages of two sizes. The JIT makes trampolines, but no code for the XDP
		// dispatcher.
		goarch: "arm64", deb: "arm64", kernels: []string{"6.12", "6.12-16k"},
		short:    machineTests + "|^Test(Tracing|StructOps|Hold|LiveCounts|LiveBusyDispatcher)",
		flavours: map[string]string{"": "cloud-arm64", "16k": "arm64-16k"},
		suites:   []string{"trixie", "sid"},
		security: []string{"trixie-security"},
		qemu:     "qemu-system-aarch64", qemuPackage: "qemu-system-arm", machine: "virt", console: "ttyAMA0",
	},
	{
		// Pages of 64 KiB and cache lines of 128 bytes. The JIT makes no trampolines, and
		// no tail calls from subprograms.
		goarch: "ppc64le", deb: "ppc64el", kernels: []string{"6.12-64k"},
		short:    machineTests + "|^Test(Tracing|StructOps|BatchCarried|LiveExchange)",
		flavours: map[string]string{"": "powerpc64le", "64k": "powerpc64le-64k"},
		suites:   []string{"trixie", "sid"},
		security: []string{"trixie-security"},
		qemu:     "qemu-system-ppc64", qemuPackage: "qemu-system-ppc", machine: "pseries", console: "hvc0",
	},
	{
		// Big-endian, with cache lines of 256 bytes. The kernel has neither BTF nor a JIT.
		goarch: "s390x", deb: "s390x", kernels: []string{"6.1"},
		short:    machineTests + "|^Test(Any|XDP|TC|SKB|SocketFilter|CGroup|LWT|FlowDissector|SkLookup|Netfilter|RawTracepoint|Syscall|StructOps)",
		flavours: map[string]string{"": "s390x"},
		suites:   []string{"bookworm", "trixie", "sid"},
		security: []string{"bookworm-security"},
		qemu:     "qemu-system-s390x", qemuPackage: "qemu-system-misc", machine: "s390-ccw-virtio", console: "ttysclp0",
	},
}

// kernelArch returns the architecture of the kernels that run binaries for goarch.
func kernelArch(goarch string) (*arch, error) {
	if goarch == "386" {
		goarch = "amd64"
	}
	i := slices.IndexFunc(archs, func(a *arch) bool { return a.goarch == goarch })
	if i < 0 {
		return nil, fmt.Errorf("no kernels are known that run binaries for %s", goarch)
	}
	return archs[i], nil
}

// flavour splits the name of a kernel: it returns the series, and Debian's flavour
// for the rest of the name.
func (a *arch) flavour(kernel string) (series, flavour string, err error) {
	series, suffix, _ := strings.Cut(kernel, "-")
	flavour, ok := a.flavours[suffix]
	if !ok {
		return "", "", fmt.Errorf("kernel %s: there are no kernels -%s of %s, but %q", kernel, suffix, a.goarch, slices.Sorted(maps.Keys(a.flavours)))
	}
	return series, flavour, nil
}

// seriesOf returns the series of a kernel's release, such as 5.10 for
// 5.10.0-46-cloud-amd64.
func seriesOf(release string) string {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 3 {
		return release
	}
	return parts[0] + "." + parts[1]
}

// compareSeries orders 5.10 after 5.9.
func compareSeries(a, b string) int {
	numbers := func(s string) []int {
		var ns []int
		for part := range strings.SplitSeq(s, ".") {
			n, _ := strconv.Atoi(part)
			ns = append(ns, n)
		}
		return ns
	}
	return slices.Compare(numbers(a), numbers(b))
}

// columnName returns the name of a kernel in tables, such as "6.12-16k arm64".
func columnName(kernel, goarch string) string {
	if goarch == native {
		return kernel
	}
	return kernel + " " + goarch
}

// compareColumns orders the names of columns by architecture, then from the
// oldest kernel.
func compareColumns(a, b string) int {
	kernelA, archA, _ := strings.Cut(a, " ")
	kernelB, archB, _ := strings.Cut(b, " ")
	seriesA, suffixA, _ := strings.Cut(kernelA, "-")
	seriesB, suffixB, _ := strings.Cut(kernelB, "-")
	return cmp.Or(cmp.Compare(archA, archB), compareSeries(seriesA, seriesB), cmp.Compare(suffixA, suffixB))
}
