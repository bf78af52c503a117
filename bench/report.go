package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// titles are the contenders' names in tables and plots.
var titles = map[string]string{
	byProgrun: "progrun", byGo: "Go floor", byC: "C loop", byCilium: "cilium Run",
	byPlain: "Run, packet only", byTwo: "progrun, 2 workers", byGoTwo: "Go floor, 2 goroutines",
	byCarried: "ahead", byTwoCarried: "ahead, 2 workers", byStaying: "not copied", byTwoStaying: "not copied, 2 workers", byCarriedTwice: "not copied, 2 batches at once", byCounted: "progrun, verdicts counted",
	byCapture: "progrun, capture", byTCPReplay: "tcpreplay",
	byBlocked: "progrun, signals blocked", byHeld: "progrun, held", byGoHeld: "Go floor, held", byCHeld: "C loop, held",
	byOne: "progrun, 1 worker", byGoOne: "Go floor, 1 goroutine", byOneFrame: "1 frame", byManyFrames: "256 frames",
	byInterval: "all the time", byNoRate: "progrun, no rate",
	byOneFrameC: "1 frame, C", byManyFramesC: "256 frames, C",
}

// table returns the results of a section in rows: the time of an operation by each
// contender, then the ratios with their targets.
func table(results []result) (head []string, rows [][]string) {
	contenders, labels := columns(results)
	head = []string{""}
	for _, by := range contenders {
		head = append(head, titles[by])
	}
	head = append(head, labels...)
	withAllocs := slices.ContainsFunc(results, func(r result) bool { return len(r.alloc) > 0 })
	if withAllocs {
		head = append(head, "allocations")
	}
	for _, r := range results {
		row := []string{r.name}
		for _, by := range contenders {
			row = append(row, r.cell(by))
		}
		for _, label := range labels {
			row = append(row, r.claimed(label))
		}
		if withAllocs {
			row = append(row, r.allocated())
		}
		rows = append(rows, row)
	}
	return head, rows
}

// columns returns the contenders and the claims that any of the results has.
func columns(results []result) (contenders, labels []string) {
	for _, r := range results {
		for _, c := range r.contenders {
			if !slices.Contains(contenders, c.by) {
				contenders = append(contenders, c.by)
			}
		}
		for _, c := range r.claims {
			if _, _, ok := r.ratio(c); ok && !slices.Contains(labels, c.label) {
				labels = append(labels, c.label)
			}
		}
	}
	return contenders, labels
}

func (r result) cell(by string) string {
	ns, ok := r.nsPerOp(by)
	if !ok {
		return "–"
	}
	switch {
	case ns >= 1e6:
		return fmt.Sprintf("%.4g ms", ns/1e6)
	case ns >= 1e4:
		return fmt.Sprintf("%.4g µs", ns/1e3)
	}
	return fmt.Sprintf("%.4g ns", ns)
}

// claimed returns a ratio with its spread, its target, and a sign if it was missed.
func (r result) claimed(label string) string {
	i := slices.IndexFunc(r.claims, func(c claim) bool { return c.label == label })
	if i < 0 {
		return "–"
	}
	c := r.claims[i]
	ratio, spread, ok := r.ratio(c)
	if !ok {
		return "–"
	}
	text := fmt.Sprintf("%.2f ±%.2f", ratio, spread)
	if c.sense != shown {
		text += " (" + c.goal() + ")"
	}
	if !c.met(ratio) {
		text += " ✗"
	}
	return text
}

func (r result) allocated() string {
	n, ok := r.alloc[byProgrun]
	if !ok {
		return "–"
	}
	text := fmt.Sprintf("%.0f", n)
	if other, ok := r.alloc[byCilium]; ok {
		text += fmt.Sprintf(" (Run: %.0f)", other)
	}
	if int(n) > r.allocs {
		text += " ✗"
	}
	return text
}

// misses returns the names of what missed its target.
func misses(results []result) []string {
	var all []string
	for _, r := range results {
		for _, c := range r.claims {
			if ratio, _, ok := r.ratio(c); ok && !c.met(ratio) {
				all = append(all, fmt.Sprintf("%s: %.2f %s, not %s", r.name, ratio, c.label, c.goal()))
			}
		}
		if n := int(r.alloc[byProgrun]); n > r.allocs {
			all = append(all, fmt.Sprintf("%s: %d allocations, not %d", r.name, n, r.allocs))
		}
	}
	return all
}

// writeText writes a table for a terminal.
func writeText(w io.Writer, head []string, rows [][]string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range append([][]string{head}, rows...) {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func writeMarkdown(w io.Writer, head []string, rows [][]string) {
	fmt.Fprintf(w, "| %s |\n|---%s|\n", strings.Join(head, " | "), strings.Repeat("|---:", len(head)-1))
	for _, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintln(w)
}

// writeBench writes results in Go's benchmark format, each as up to ten lines,
// so that benchstat can tell a difference from noise.
func writeBench(w io.Writer, s section, results []result) {
	for _, r := range results {
		for _, c := range r.contenders {
			ns := r.perOp[c.by]
			lines := min(10, len(ns))
			for i := range lines {
				part := ns[i*len(ns)/lines : (i+1)*len(ns)/lines]
				fmt.Fprintf(w, "Benchmark%s/case=%s/by=%s %d %.5g ns/op", s.bench, slug(r.name), c.by, r.ops*len(part), quantile(part, 0.5))
				if n, ok := r.alloc[c.by]; ok {
					fmt.Fprintf(w, " %.0f allocs/op", n)
				}
				fmt.Fprintln(w)
			}
		}
	}
}

// writer collects the files of a run. The zero writer writes none.
type writer struct {
	dir             string
	machine         string // description of the machine, made in the host's network namespace
	readme, results strings.Builder
}

func (w *writer) begin() {
	w.readme.WriteString("# Results of one run\n\n" +
		"Written by `go run -C bench .`, as are the other files here. [machine.md](machine.md) tells where it ran,\n" +
		"[bench.txt](bench.txt) has the figures in Go's benchmark format. Contenders took turns; ratios are medians\n" +
		"of the ratios of each round, ± half the distance of their quartiles, with the target in brackets and ✗ where\n" +
		"it was missed. Only ratios compare: times depend on the machine and on what else it does.\n\n")
	fmt.Fprintf(&w.results, "goos: %s\ngoarch: %s\npkg: github.com/progrun/progrun/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, cpuModel())
}

// add adds a section.
func (w *writer) add(s section, results []result, notes []string) error {
	if w.dir == "" {
		return nil
	}
	fmt.Fprintf(&w.readme, "## %s\n\n%s\n\n", s.title, s.text)
	head, rows := table(results)
	writeMarkdown(&w.readme, head, rows)
	for _, n := range notes {
		fmt.Fprintf(&w.readme, "%s\n\n", n)
	}
	writeBench(&w.results, s, results)
	for _, p := range s.plots(results) {
		if err := os.MkdirAll(w.dir, 0o777); err != nil {
			return err
		}
		if err := p.save(filepath.Join(w.dir, p.file)); err != nil {
			return err
		}
		fmt.Fprintf(&w.readme, "![%s](%s)\n\n", p.title, p.file)
	}
	return nil
}

func (w *writer) finish() error {
	if w.dir == "" {
		return nil
	}
	if err := os.MkdirAll(w.dir, 0o777); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"README.md":  strings.TrimRight(w.readme.String(), "\n") + "\n",
		"bench.txt":  w.results.String(),
		"machine.md": w.machine,
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// release matches the release of a kernel, without what its builder appended.
var release = regexp.MustCompile(`^[0-9.]+`)

// machine returns a description of the machine, and how to repeat the run.
func machine() string {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	kind := "no hypervisor seen"
	if strings.Contains(firstLine("/proc/cpuinfo", "flags"), " hypervisor") {
		kind = "a virtual machine"
	}
	return fmt.Sprintf(`# The machine

| | |
|---|---|
| CPU | %s, %d cores, %s |
| memory | %s |
| kernel | Linux %s, %s |
| BPF JIT | %s |
| RCU grace periods | %s |
| Go | %s |
| C compiler | %s |

As root:

    %s
    benchstat -col /by bench/results/bench.txt
`, cpuModel(), runtime.NumCPU(), kind, firstLine("/proc/meminfo", "MemTotal"),
		release.FindString(unix.ByteSliceToString(uts.Release[:])), unix.ByteSliceToString(uts.Machine[:]),
		jit(), gracePeriods(), runtime.Version(), compilerVersion(), strings.Join(append([]string{"go run -C bench ."}, os.Args[1:]...), " "))
}

func jit() string {
	b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	if err != nil {
		return "unknown"
	}
	return map[string]string{"0": "off", "1": "on", "2": "on, debugging"}[strings.TrimSpace(string(b))]
}

// gracePeriods returns how the kernel waits for readers. It does so twice for a call
// that adds a program to the XDP dispatcher and removes it again. That takes tens of
// milliseconds as a rule, and less than one if the kernel was told to expedite grace
// periods.
func gracePeriods() string {
	set := func(name string) bool {
		b, err := os.ReadFile("/sys/kernel/" + name)
		return err == nil && strings.TrimSpace(string(b)) != "0"
	}
	if set("rcu_expedited") && !set("rcu_normal") {
		return "expedited: the XDP dispatcher costs a call little"
	}
	return "normal"
}

func cpuModel() string {
	if model := firstLine("/proc/cpuinfo", "model name"); model != "" {
		return model
	}
	return "unknown " + runtime.GOARCH
}

// firstLine returns what follows the first "key:" in a file of /proc.
func firstLine(file, key string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
