package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// runList runs the program on all packets, and processes the outcomes as the flags say.
func runList(ctx context.Context, o *options, p *program, c *capture) error {
	bar := o.progress(c)
	out := newOutput(bar.over(o.text()), c.live)
	defer out.Flush()
	defer bar.clear()
	sinks, err := o.sinks(out, p, c)
	if err != nil {
		return err
	}
	t, times := totals{only: o.only}, timing{prog: p}
	for outcome := range p.batch(c.inputs(ctx), p.ahead(c)) {
		if fatal(outcome.err) {
			return outcome.err
		}
		t.add(outcome)
		times.add(outcome)
		bar.step(t.packets)
		if !o.wants(outcome) {
			continue
		}
		t.wanted++
		if err := take(sinks, outcome); err != nil {
			return err
		}
		if err := out.line(); err != nil {
			return err
		}
	}
	bar.clear()
	failed := o.summarize(out, p, c, &t, &times)
	ended := end(sinks)
	return cmp.Or(t.err(c), out.Flush(), failed, ended)
}

func take(sinks []sink, o *outcome) error {
	for _, s := range sinks {
		if err := s.take(o); err != nil {
			return err
		}
	}
	return nil
}

func end(sinks []sink) (err error) {
	for _, s := range sinks {
		err = errors.Join(err, s.end())
	}
	return err
}

// text returns where the list goes, which must not mix with the packets of -write -.
func (o *options) text() io.Writer {
	if o.write == "-" {
		return os.Stderr
	}
	return os.Stdout
}

// sinks opens the sinks that the flags ask for, and prints the heading of a list.
func (o *options) sinks(out *output, p *program, c *capture) (sinks []sink, err error) {
	switch {
	case o.json:
		sinks = append(sinks, newJSONSink(out))
	case o.golden != "":
		golden, err := openGolden(o.golden, c, out)
		if err != nil {
			return nil, err
		}
		sinks = append(sinks, golden)
	case !o.time && o.write != "-":
		sinks = append(sinks, listSink{out, o.context})
	}
	if o.write != "" {
		var notes io.Writer = out
		if o.json || o.time {
			notes = os.Stderr
		}
		capture, err := createCapture(o.write, c, notes)
		if err != nil {
			return nil, err
		}
		sinks = append(sinks, capture)
	}
	if !o.json && !o.time {
		fmt.Fprintf(out, "%s on %s\n", p, c.name)
		out.paragraph()
	}
	return sinks, nil
}

// summarize prints the summary of all packets.
func (o *options) summarize(out *output, p *program, c *capture, t *totals, times *timing) error {
	switch {
	case o.json:
		c.printMade(os.Stderr)
		return nil
	case o.golden != "":
		c.printMade(out)
		return nil
	case o.time:
		c.printMade(os.Stderr)
		if err := times.measure(); err != nil || times.runs.n == 0 {
			return err
		}
		return times.printJSON(out, c.name, t.packets)
	}
	t.print(out, p)
	c.printMade(out)
	if c.err != nil {
		return nil
	}
	if err := times.measure(); err != nil {
		return err
	}
	times.print(out)
	return nil
}
