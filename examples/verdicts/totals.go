package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/progrun/progrun"
)

// totals counts the outcomes of a capture's packets.
type totals struct {
	packets, failed, cut, part int
	only                       string // the value of -only
	wanted                     int    // number of packets that -only asks for
	verdicts                   map[string]int
	last                       error // error of the last packet that failed
}

func (t *totals) add(o *outcome) {
	t.packets++
	if o.cut() {
		t.cut++
	}
	if o.err != nil {
		t.failed, t.last = t.failed+1, o.err
		return
	}
	if o.res.Sight == progrun.SightPart {
		t.part++
	}
	if t.verdicts == nil {
		t.verdicts = map[string]int{}
	}
	t.verdicts[o.res.Verdict.String()]++
}

func (t *totals) String() string {
	byCount := func(a, b string) int {
		return cmp.Or(cmp.Compare(t.verdicts[b], t.verdicts[a]), cmp.Compare(a, b))
	}
	var parts []string
	for _, verdict := range slices.SortedFunc(maps.Keys(t.verdicts), byCount) {
		parts = append(parts, fmt.Sprintf("%d %s", t.verdicts[verdict], verdict))
	}
	if t.failed > 0 {
		parts = append(parts, count(t.failed, "error"))
	}
	return fmt.Sprintf("%s: %s", count(t.packets, "packet"), strings.Join(parts, ", "))
}

// count returns a number of things, such as "1 packet" and "2 packets".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// print prints the totals, and notes about them.
func (t *totals) print(w *output, p *program) {
	if t.packets == 0 {
		return
	}
	w.paragraph()
	fmt.Fprintln(w, t)
	if t.wanted == 0 {
		fmt.Fprintf(w, "None of these is %s.\n", strings.ReplaceAll(t.only, ",", " or "))
	}
	if t.cut > 0 {
		fmt.Fprintf(w, "%d of these were cut short when they were captured: the program saw what was left.\n", t.cut)
	}
	if t.part > 0 {
		fmt.Fprintf(w, "The program saw only a part of %s: %s.\n", count(t.part, "packet"), whyPart(p))
	}
}

// err returns an error if packets were missing or could not be run.
func (t *totals) err(c *capture) error {
	switch {
	case c.err != nil:
		return c.err
	case t.packets == 0:
		return fmt.Errorf("%s holds no packets", c.name)
	case t.failed == t.packets:
		return fmt.Errorf("no packet could be run: %w", t.last)
	}
	return nil
}
