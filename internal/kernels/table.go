package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// printReports prints the table with its footnotes and the failures. It reports
// whether all is well.
func printReports(w io.Writer, reports []*report, opts options) bool {
	t := newTable(reports)
	for _, r := range reports {
		fmt.Fprintln(w, r.summary())
	}
	fmt.Fprintln(w)
	t.print(w, opts.verbose)
	failures := t.printFailures(w)
	var nowhere []testID
	if !opts.chosen() {
		nowhere = t.passedNowhere()
	}
	for _, id := range nowhere {
		fmt.Fprintf(w, "\n%s passed on no kernel.\n", t.label(id))
	}
	return failures == 0 && len(nowhere) == 0
}

// A table has a row for each test that ran on any kernel.
type table struct {
	reports []*report
	rows    []testID
	reasons []string // of skipped tests; the table refers to them by number
}

func newTable(reports []*report) *table {
	t := &table{reports: reports}
	place := map[testID]int{}
	for _, r := range reports {
		for _, id := range r.results.order {
			if _, ok := place[id]; !ok {
				place[id] = len(place)
				t.rows = append(t.rows, id)
			}
		}
	}
	// Subtests that only a later kernel ran go with their test, and tests with their
	// package.
	slices.SortStableFunc(t.rows, func(a, b testID) int {
		if a.pkg != b.pkg {
			return strings.Compare(a.pkg, b.pkg)
		}
		return place[testID{a.pkg, a.top()}] - place[testID{b.pkg, b.top()}]
	})
	return t
}

// status returns the status of a test on a kernel, which is empty if the test did not
// run there. A test that the kernel did not get to has failed.
func (t *table) status(id testID, r *report) status {
	if res, ok := r.results.byID[id]; ok {
		return res.status
	}
	if r.results.unfinished[id.pkg] && id.name == id.top() {
		return failed
	}
	return ""
}

// label returns the name of a test, with its package if there are several.
func (t *table) label(id testID) string {
	name := id.name
	if name == "" {
		name = "(package)"
	}
	if t.rows[0].pkg == t.rows[len(t.rows)-1].pkg {
		return name
	}
	return id.pkg[strings.LastIndex(id.pkg, "/")+1:] + "." + name
}

func (t *table) print(w io.Writer, verbose bool) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "test")
	for _, r := range t.reports {
		fmt.Fprintf(tw, "\t%s", r.name())
	}
	fmt.Fprintln(tw)
	for _, id := range t.rows {
		if !verbose && t.dull(id) {
			continue
		}
		fmt.Fprint(tw, t.label(id))
		for _, r := range t.reports {
			fmt.Fprintf(tw, "\t%s", t.cell(id, r))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	if len(t.reasons) > 0 {
		fmt.Fprintln(w)
	}
	for i, reason := range t.reasons {
		fmt.Fprintf(w, "[%d] %s\n", i+1, reason)
	}
}

// dull reports whether id is a subtest that passed wherever it ran.
func (t *table) dull(id testID) bool {
	if id.name == id.top() {
		return false
	}
	for _, r := range t.reports {
		if s := t.status(id, r); s != passed && s != "" {
			return false
		}
	}
	return true
}

func (t *table) cell(id testID, r *report) string {
	switch s := t.status(id, r); s {
	case failed:
		return "FAIL"
	case skipped:
		return fmt.Sprintf("skip [%d]", t.footnote(r.results.byID[id].reason()))
	default:
		return string(s)
	}
}

// footnote returns the number of a reason.
func (t *table) footnote(reason string) int {
	if reason == "" {
		reason = "(no reason given)"
	}
	i := slices.Index(t.reasons, reason)
	if i < 0 {
		i = len(t.reasons)
		t.reasons = append(t.reasons, reason)
	}
	return i + 1
}

// printFailures prints what the failed tests said, and what went wrong with the
// kernels themselves, and returns how many of both there are.
func (t *table) printFailures(w io.Writer) int {
	n := 0
	for _, r := range t.reports {
		for _, text := range r.trouble {
			n++
			fmt.Fprintf(w, "\n--- %s: %s\n", r.name(), text)
		}
		for _, id := range t.rows {
			if t.status(id, r) != failed {
				continue
			}
			n++
			res, ran := r.results.byID[id]
			if ran && len(res.output) == 0 {
				continue // its subtests say why
			}
			fmt.Fprintf(w, "\n--- %s: FAIL: %s\n", r.name(), t.label(id))
			if ran {
				fmt.Fprint(w, strings.Join(res.output, ""))
			} else {
				fmt.Fprintln(w, "    the kernel did not get to this test")
			}
		}
	}
	return n
}

// passedNowhere returns the tests that failed on no kernel and passed on none.
func (t *table) passedNowhere() []testID {
	var ids []testID
	for _, id := range t.rows {
		somewhere := slices.ContainsFunc(t.reports, func(r *report) bool {
			s := t.status(id, r)
			return s == passed || s == failed
		})
		if !somewhere {
			ids = append(ids, id)
		}
	}
	return ids
}
