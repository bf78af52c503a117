package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"os"
	"strings"
)

// runAgainst runs two programs and prints where their results differ.
func runAgainst(ctx context.Context, o *options, p *program, c *capture) error {
	other, err := openAgainst(o, p)
	if err != nil {
		return err
	}
	defer other.close()
	if err := other.consent(o.yes); err != nil {
		return err
	}
	bar := o.progress(c)
	out := newOutput(bar.over(os.Stdout), c.live)
	defer out.Flush()
	defer bar.clear()
	fmt.Fprintf(out, "%s against %s on %s\n", p, other.name, c.name)
	out.paragraph()
	d := duel{is: newSide(p), was: newSide(other), w: out}
	if err := d.run(ctx, c, bar); err != nil {
		return err
	}
	bar.clear()
	c.printMade(out)
	d.printTotals()
	if err := d.is.totals.err(c); err != nil {
		return err
	}
	differs := d.conclude()
	failed := d.printTimes()
	return cmp.Or(out.Flush(), failed, differs)
}

// openAgainst loads the program of -against, OBJECT[:PROGRAM]. Without a name, it is
// the program with the name of p, or the only one.
func openAgainst(o *options, p *program) (*program, error) {
	file, name := splitObject(o.against)
	spec, err := readObject(file)
	if err != nil {
		return nil, err
	}
	if name == "" && spec.Programs[p.name] != nil {
		name = p.name
	}
	obj, err := newObject(spec, name, o.typ)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if t := obj.spec.Programs[obj.name].Type; t != p.Type() {
		return nil, fmt.Errorf("%s is an %s program and %s an %s program: they cannot be compared", p.name, p.Type(), obj.name, t)
	}
	obj.optional = true
	other, err := obj.load(o.config)
	if err != nil {
		return nil, err
	}
	other.name += " of " + file
	return other, nil
}

// splitObject splits OBJECT[:PROGRAM]. The name of a file may have a colon too.
func splitObject(s string) (file, program string) {
	i := strings.LastIndexByte(s, ':')
	if _, err := os.Stat(s); err == nil || i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// duel runs two programs on the same packets.
type duel struct {
	is, was side
	w       *output
	differ  int // number of packets on which they differ
}

// side is one of the two programs, and what it did.
type side struct {
	prog   *program
	totals totals
	timing timing
}

func newSide(p *program) side { return side{prog: p, timing: timing{prog: p}} }

func (s *side) add(o *outcome) {
	s.totals.add(o)
	s.timing.add(o)
}

// run runs both programs on all packets and prints where their results differ.
func (d *duel) run(ctx context.Context, c *capture, bar *progress) error {
	forIs, forWas, stop := tee(c.inputs(ctx))
	defer stop()
	nextWas, stopWas := iter.Pull(d.was.prog.batch(forWas, d.was.prog.ahead(c)))
	defer stopWas()
	for is := range d.is.prog.batch(forIs, d.is.prog.ahead(c)) {
		was, _ := nextWas() // there is one for each input
		if err := d.compare(was, is); err != nil {
			return err
		}
		bar.step(d.is.totals.packets)
	}
	return nil
}

func (d *duel) compare(was, is *outcome) error {
	if err := cmp.Or(was.err, is.err); fatal(err) {
		return err
	}
	d.was.add(was)
	d.is.add(is)
	if is.same(was) {
		return nil
	}
	before, after := was.record(), is.record()
	words := differences(is.packet, &before, &after)
	if len(words) == 0 {
		return nil
	}
	d.differ++
	return cmp.Or(printDifferences(d.w, is, words), d.w.line())
}

func (d *duel) printTotals() {
	d.w.paragraph()
	fmt.Fprintf(d.w, "Was, %s\nIs,  %s\n", &d.was.totals, &d.is.totals)
}

// conclude prints whether the programs do the same. It returns errDiffers if they do not.
func (d *duel) conclude() error {
	if d.differ == 0 {
		fmt.Fprintln(d.w, "The two programs do the same with all packets.")
		return nil
	}
	fmt.Fprintf(d.w, "The two programs differ on %s.\n", count(d.differ, "packet"))
	return errDiffers
}

// printTimes prints how long runs of the two take.
func (d *duel) printTimes() error {
	was, is := &d.was.timing, &d.is.timing
	if err := cmp.Or(was.measure(), is.measure()); err != nil {
		return err
	}
	if was.runs.n > 0 && is.runs.n > 0 {
		fmt.Fprintf(d.w, "Time per run, median: was %d ns, is %d ns.\n",
			was.runs.percentile(50).Nanoseconds(), is.runs.percentile(50).Nanoseconds())
	}
	return nil
}

// same reports whether two outcomes for the same input are equal, apart from the time.
func (o *outcome) same(p *outcome) bool {
	if o.err != nil || p.err != nil {
		return o.err != nil && p.err != nil && o.err.Error() == p.err.Error()
	}
	a, b := &o.res, &p.res
	return a.Verdict == b.Verdict && a.Sight == b.Sight && a.Context == b.Context && a.Keys == b.Keys &&
		bytes.Equal(a.Packet, b.Packet) && bytes.Equal(a.Metadata, b.Metadata)
}
