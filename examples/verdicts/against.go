package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// runAgainst runs two programs and prints where their results differ.
func runAgainst(ctx context.Context, o *options, p *program, c *capture) error {
	other, err := openAgainst(o, p)
	if err != nil {
		return err
	}
	defer other.close()
	bar := o.progress(c)
	out := newOutput(bar.over(os.Stdout), c.live)
	defer out.Flush()
	defer bar.clear()
	fmt.Fprintf(out, "%s against %s of %s on %s\n", p, other.name, o.against, c.name)
	out.paragraph()
	d := duel{is: p, was: other, w: out, isTime: timing{prog: p}, wasTime: timing{prog: other}}
	if err := d.run(ctx, c, bar); err != nil {
		return err
	}
	bar.clear()
	c.printMade(out)
	return errors.Join(d.isT.err(c), d.end(), d.times())
}

// openAgainst loads the program of -against, OBJECT[:PROGRAM]. Without a name, it is
// the program with the name of p, or the only one.
func openAgainst(o *options, p *program) (*program, error) {
	file, name := o.against, ""
	if i := strings.LastIndexByte(file, ':'); i >= 0 {
		if _, err := os.Stat(file); err != nil {
			file, name = file[:i], file[i+1:]
		}
	}
	spec, err := readObjectFile(file)
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
	return obj.load(o.config)
}

// duel runs two programs on the same packets.
type duel struct {
	is, was   *program
	w         *output
	isT, wasT totals
	isTime    timing
	wasTime   timing
	differ    int
}

// chunkSize is how many packets one program runs on before the other does.
const chunkSize = 512

func (d *duel) run(ctx context.Context, c *capture, bar *progress) error {
	size := chunkSize
	if c.live {
		size = 1
	}
	var chunk []input
	for in := range c.inputs(ctx) {
		if chunk = append(chunk, in); len(chunk) < size {
			continue
		}
		if err := d.compare(chunk); err != nil {
			return err
		}
		bar.step(d.isT.packets)
		chunk = chunk[:0]
	}
	return d.compare(chunk)
}

// compare runs both programs on a few packets and prints where their results differ.
func (d *duel) compare(chunk []input) error {
	was := make([]outcome, 0, len(chunk))
	for o := range d.was.batch(slices.Values(chunk), 0) {
		if fatal(o.err) {
			return o.err
		}
		d.wasT.add(&o)
		d.wasTime.add(&o)
		was = append(was, o.clone())
	}
	i := 0
	for o := range d.is.batch(slices.Values(chunk), 0) {
		if fatal(o.err) {
			return o.err
		}
		d.isT.add(&o)
		d.isTime.add(&o)
		if !o.same(&was[i]) {
			if err := d.tell(&was[i], &o); err != nil {
				return err
			}
		}
		i++
	}
	return nil
}

func (d *duel) tell(was, is *outcome) error {
	before, after := was.record(), is.record()
	words := differences(is.packet, &before, &after)
	if len(words) == 0 {
		return nil
	}
	d.differ++
	return printDifferences(d.w, is, words)
}

// end prints the totals of both.
func (d *duel) end() error {
	d.w.paragraph()
	fmt.Fprintf(d.w, "Was, %s\nIs,  %s\n", &d.wasT, &d.isT)
	if d.differ == 0 {
		fmt.Fprintln(d.w, "The two programs do the same with all packets.")
		return nil
	}
	fmt.Fprintf(d.w, "The two programs differ on %s.\n", count(d.differ, "packet"))
	return errDiffers
}

// times prints how long runs of the two take.
func (d *duel) times() error {
	for _, t := range []*timing{&d.wasTime, &d.isTime} {
		if err := t.measure(); err != nil {
			return err
		}
	}
	if d.isTime.runs.n > 0 && d.wasTime.runs.n > 0 {
		fmt.Fprintf(d.w, "Time per run, median: was %d ns, is %d ns.\n",
			d.wasTime.runs.percentile(50).Nanoseconds(), d.isTime.runs.percentile(50).Nanoseconds())
	}
	return nil
}

// clone returns a copy that stays valid.
func (o *outcome) clone() outcome {
	c := *o
	c.out, c.metadata = bytes.Clone(o.out), bytes.Clone(o.metadata)
	return c
}

// same reports whether two outcomes for the same input are equal, apart from the time.
func (o *outcome) same(p *outcome) bool {
	if o.err != nil || p.err != nil {
		return o.err != nil && p.err != nil && o.err.Error() == p.err.Error()
	}
	return o.code == p.code && o.sight == p.sight &&
		bytes.Equal(o.out, p.out) && bytes.Equal(o.metadata, p.metadata) &&
		equal(o.context, p.context) && equal(o.flow, p.flow)
}

func equal[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
