package cover

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lineEnd is a column beyond those that line information can hold.
const lineEnd = 1024

// WriteGo writes the profile in the format of go test -coverprofile, in mode set.
// go tool cover -html shows it in the C sources. WriteGo leaves out unknown lines,
// branches, and files that do not exist, at which the tool would give up.
func (p *Profile) WriteGo(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "mode: set")
	for _, f := range p.Files() {
		if !exists(f.Name) {
			continue
		}
		for _, line := range f.Lines {
			if line.State != Unknown {
				fmt.Fprintf(out, "%s:%d.1,%d.%d 1 %d\n", f.Name, line.Number, line.Number, lineEnd, hits(line.State))
			}
		}
	}
	return out.Flush()
}

// WriteLCOV writes the profile in the format of lcov, with functions and branches.
// genhtml and many services read it. Counts are 0 and 1. Way 0 of a branch is the
// jump, way 1 goes on. The line where a function begins counts as one of its lines.
// WriteLCOV leaves out what is unknown.
func (p *Profile) WriteLCOV(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, f := range p.Files() {
		fmt.Fprintf(out, "TN:\nSF:%s\n", f.Name)
		writeLCOVFunctions(out, f.Functions)
		writeLCOVBranches(out, f.Branches)
		writeLCOVLines(out, f)
		fmt.Fprintln(out, "end_of_record")
	}
	return out.Flush()
}

// writeLCOVLines writes the lines with code, and those where functions begin, since
// genhtml refuses a function without a line.
func writeLCOVLines(out io.Writer, f File) {
	states := map[int]State{}
	for _, function := range f.Functions {
		merge(states, function.Line, function.State)
	}
	for _, line := range f.Lines {
		states[line.Number] = line.State
	}
	found, hit := 0, 0
	for _, n := range slices.Sorted(maps.Keys(states)) {
		if states[n] != Unknown {
			fmt.Fprintf(out, "DA:%d,%d\n", n, hits(states[n]))
			found++
			hit += hits(states[n])
		}
	}
	fmt.Fprintf(out, "LF:%d\nLH:%d\n", found, hit)
}

func writeLCOVFunctions(out io.Writer, functions []Function) {
	found, hit := 0, 0
	for _, f := range functions {
		if f.State != Unknown {
			fmt.Fprintf(out, "FN:%d,%s\nFNDA:%d,%s\n", f.Line, f.Name, hits(f.State), f.Name)
			found++
			hit += hits(f.State)
		}
	}
	fmt.Fprintf(out, "FNF:%d\nFNH:%d\n", found, hit)
}

func writeLCOVBranches(out io.Writer, branches []Branch) {
	found, hit, block, line := 0, 0, 0, 0
	for _, b := range branches {
		if b.Line != line {
			block, line = 0, b.Line
		}
		for i, s := range []State{b.Jump.State, b.Next.State} {
			if b.State == Unknown || s == Unknown {
				continue
			}
			taken := "-" // the condition was never reached
			if b.State == Reached {
				taken = fmt.Sprint(hits(s))
			}
			fmt.Fprintf(out, "BRDA:%d,%d,%d,%s\n", b.Line, block, i, taken)
			found++
			hit += hits(s)
		}
		block++
	}
	if found > 0 {
		fmt.Fprintf(out, "BRF:%d\nBRH:%d\n", found, hit)
	}
}

func hits(s State) int {
	if s == Reached {
		return 1
	}
	return 0
}

// WriteText writes a summary for people: each file with its functions, the lines
// that were not reached, the unknown lines, and the conditions that always went one
// way.
func (p *Profile) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	var total Count
	for _, f := range p.Files() {
		count := f.Count()
		total.Reached += count.Reached
		total.NotReached += count.NotReached
		total.Unknown += count.Unknown
		fmt.Fprintf(out, "%s: %s\n", short(f.Name), count)
		for _, function := range f.Functions {
			writeTextFunction(out, function)
		}
		writeTextLines(out, "not reached", f.Lines, NotReached)
		writeTextLines(out, "unknown", f.Lines, Unknown)
		writeTextBranches(out, f)
	}
	fmt.Fprintf(out, "total: %s\n", total)
	return out.Flush()
}

// String returns the count in words, such as "12 of 14 lines, 85.7 %".
func (c Count) String() string {
	known := c.Reached + c.NotReached
	switch {
	case known == 0 && c.Unknown > 0:
		return fmt.Sprintf("%d lines unknown", c.Unknown)
	case known == 0:
		return "0 of 0 lines"
	case c.Unknown > 0:
		return fmt.Sprintf("%d of %d lines, %.1f %%, %d more unknown", c.Reached, known, c.Percent(), c.Unknown)
	}
	return fmt.Sprintf("%d of %d lines, %.1f %%", c.Reached, known, c.Percent())
}

func writeTextFunction(out io.Writer, f Function) {
	what := f.Count.String()
	if f.State == NotReached && f.Count.Reached == 0 {
		what = "never ran"
	}
	fmt.Fprintf(out, "\t%-24s %s\n", f.Name, what)
}

// writeTextLines writes the lines in a state as ranges, such as "3-5 9". A range may
// include lines without code.
func writeTextLines(out io.Writer, title string, lines []Line, state State) {
	var ranges []string
	for i := 0; i < len(lines); i++ {
		if lines[i].State != state {
			continue
		}
		first := i
		for i+1 < len(lines) && lines[i+1].State == state {
			i++
		}
		if first == i {
			ranges = append(ranges, fmt.Sprint(lines[i].Number))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", lines[first].Number, lines[i].Number))
		}
	}
	if ranges != nil {
		fmt.Fprintf(out, "\t%s: %s\n", title, strings.Join(ranges, " "))
	}
}

// writeTextBranches writes the ways that were never taken, of conditions that were
// reached. If a condition was compiled several times, it writes only what none of them
// led to, as far as that is known.
func writeTextBranches(out io.Writer, f File) {
	var order []string
	states := map[string]State{}
	for _, b := range f.Branches {
		if b.State != Reached {
			continue
		}
		for i, way := range []Way{b.Jump, b.Next} {
			text := fmt.Sprintf("%d:%d %s", b.Line, b.Column, describe(f, b, way, i == 0))
			if _, ok := states[text]; !ok {
				order = append(order, text)
			}
			merge(states, text, way.State)
		}
	}
	for _, text := range order {
		if states[text] == NotReached {
			fmt.Fprintf(out, "\t%s\n", text)
		}
	}
}

// describe returns in words what a way never did.
func describe(f File, b Branch, way Way, jump bool) string {
	switch {
	case way.File == f.Name:
		return fmt.Sprintf("never led to line %d", way.Line)
	case way.File != "":
		return fmt.Sprintf("never led to %s:%d", filepath.Base(way.File), way.Line)
	case jump:
		return "never jumped in " + b.Function
	}
	return "never went on in " + b.Function
}

// short returns a path relative to the current directory.
func short(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(relative, "..") {
		return path
	}
	return relative
}
