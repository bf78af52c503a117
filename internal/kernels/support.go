package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
)

// typesTest is the test with a subtest for each program type. The table of
// docs/kernels.md comes from its results.
const typesTest = "TestProgramTypes"

// supportFile is the file with the table.
const supportFile = "docs/kernels.md"

const (
	tableBegin = "<!-- kernel table: begin -->\n"
	tableEnd   = "<!-- kernel table: end -->"
)

// checkSupport compares the table of program types in docs/kernels.md with what
// the tests found, or writes it. It reports whether the table is right. A kernel that
// the table lacks, such as the machine's own, is named and does not make it wrong.
func checkSupport(w io.Writer, name string, reports []*report, opts options) (bool, error) {
	found := supportOf(reports)
	if len(found.rows) == 0 {
		return true, nil // no test of types ran
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	block, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return false, fmt.Errorf("%s has no lines %q and %q", name, strings.TrimSpace(tableBegin), tableEnd)
	}
	want := parseSupport(block)
	if known := want.columns(); !opts.write && len(known) > 0 {
		if others := found.dropOthers(known); len(others) > 0 {
			fmt.Fprintf(w, "\n%s has no column for %s (-write writes it).\n", supportFile, strings.Join(others, ", "))
		}
	}
	if opts.write && !opts.partial() {
		want = found
	} else {
		want.update(found)
	}
	table := want.markdown()
	switch {
	case block == table:
		return true, nil
	case !opts.write:
		fmt.Fprintf(w, "\n%s differs from what the tests found (-write writes it):\n%s", supportFile, diff(block, table))
		return false, nil
	case found.failed():
		return false, fmt.Errorf("%s failed, so %s stays as it is", typesTest, supportFile)
	}
	return true, os.WriteFile(name, []byte(before+tableBegin+table+tableEnd+after), 0o644)
}

// A support says which kernels run which program types.
type support struct {
	rows  []string                     // the types in the order of the tests
	cells map[string]map[string]string // by type and kernel
}

// supportOf builds the table from the results of typesTest's subtests, without those
// that only group others. If the host has the same series as one of Debian's kernels,
// the table has the results of Debian's.
func supportOf(reports []*report) *support {
	s := &support{cells: map[string]map[string]string{}}
	for _, id := range newTable(reports).rows {
		name, ok := strings.CutPrefix(id.name, typesTest+"/")
		if !ok || hasSubtests(id, reports) {
			continue
		}
		for _, r := range reports {
			if r.host && s.cells[name][r.column()] != "" {
				continue
			}
			s.set(name, r.column(), supportMark(r.results.byID[id]))
		}
	}
	return s
}

func hasSubtests(id testID, reports []*report) bool {
	return slices.ContainsFunc(reports, func(r *report) bool {
		return slices.ContainsFunc(r.results.order, func(other testID) bool {
			return other.pkg == id.pkg && strings.HasPrefix(other.name, id.name+"/")
		})
	})
}

func supportMark(res *result) string {
	switch {
	case res == nil:
		return "not run"
	case res.status == passed:
		return markRuns
	case res.status == skipped && strings.Contains(res.reason(), syscall.EPERM.Error()):
		return markForbidden
	case res.status == skipped:
		return markLacks
	}
	return "FAIL"
}

// The marks of the table.
const (
	markRuns      = "yes"
	markLacks     = "–"
	markForbidden = "†"
)

// legend explains the marks and the names of columns that need it.
var legend = []struct{ sign, text string }{
	{markLacks, "the kernel has no such programs, or too little of them to run one"},
	{markForbidden, "the machine that ran it does not permit them (EPERM)"},
	{"16k", "pages of 16 KiB"},
	{"64k", "pages of 64 KiB"},
}

func (s *support) set(row, column, mark string) {
	if s.cells[row] == nil {
		s.cells[row] = map[string]string{}
		s.rows = append(s.rows, row)
	}
	s.cells[row][column] = mark
}

// update copies the cells of other.
func (s *support) update(other *support) {
	for _, row := range other.rows {
		for column, mark := range other.cells[row] {
			s.set(row, column, mark)
		}
	}
}

// dropOthers removes the columns that are not among these, and returns them.
func (s *support) dropOthers(columns []string) []string {
	var others []string
	for _, column := range s.columns() {
		if slices.Contains(columns, column) {
			continue
		}
		others = append(others, column)
		for _, cells := range s.cells {
			delete(cells, column)
		}
	}
	return others
}

func (s *support) failed() bool {
	for _, cells := range s.cells {
		for _, mark := range cells {
			if mark != markRuns && mark != markLacks && mark != markForbidden {
				return true
			}
		}
	}
	return false
}

// columns returns the kernels, ordered by architecture and age.
func (s *support) columns() []string {
	all := map[string]bool{}
	for _, cells := range s.cells {
		for column := range cells {
			all[column] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), compareColumns)
}

func (s *support) markdown() string {
	columns := s.columns()
	var b strings.Builder
	fmt.Fprintf(&b, "| program type | %s |\n", strings.Join(columns, " | "))
	fmt.Fprintf(&b, "|---|%s\n", strings.Repeat(":-:|", len(columns)))
	for _, row := range s.rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, column := range columns {
			fmt.Fprintf(&b, " %s |", s.cells[row][column])
		}
		b.WriteString("\n")
	}
	var notes []string
	for _, l := range legend {
		if strings.Contains(b.String(), l.sign) {
			notes = append(notes, l.sign+": "+l.text)
		}
	}
	if len(notes) > 0 {
		fmt.Fprintf(&b, "\n%s.\n", strings.Join(notes, ".\n"))
	}
	return b.String()
}

// parseSupport parses what markdown returns.
func parseSupport(block string) *support {
	s := &support{cells: map[string]map[string]string{}}
	var columns []string
	for line := range strings.Lines(block) {
		if !strings.HasPrefix(line, "|") {
			continue // the legend, or nothing
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case columns == nil:
			columns = cells
		case strings.HasPrefix(cells[0], "-"):
		default:
			for i, mark := range cells[1:min(len(cells), len(columns))] {
				s.set(cells[0], columns[i+1], mark)
			}
		}
	}
	return s
}

// diff returns the lines that only one of two short texts has.
func diff(old, new string) string {
	var b strings.Builder
	without := func(sign, text, other string) {
		lines := strings.SplitAfter(other, "\n")
		for line := range strings.Lines(text) {
			if !slices.Contains(lines, line) {
				b.WriteString(sign + line)
			}
		}
	}
	without("-", old, new)
	without("+", new, old)
	return b.String()
}
