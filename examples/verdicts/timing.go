package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// timing is how long runs of a program take: single runs over all packets, by
// the kernel's own clock and without the system call.
//
// A Repeat of a million is the usual way, and reads the clock but twice. It is
// not taken here, for three reasons. It runs one packet, and packets take
// different paths through a program. The packet is not reset in between: a
// filter that strips a tag would strip one after the other. And for XDP the
// kernel spends tens of milliseconds on every call with a Repeat above 1,
// which for each packet of a capture is too long.
//
// What single runs have in addition is the kernel's reading of its clock. The
// same measurement with a program that does nothing tells how much that is.
type timing struct {
	prog   *program
	runs   histogram
	empty  histogram // of a program that does nothing
	sample [][]byte  // to measure with
}

const (
	sampleSize  = 1000
	measureTime = 200 * time.Millisecond
)

// add notes a run that was made anyway.
func (t *timing) add(o *outcome) {
	if o.err != nil {
		return
	}
	t.runs.add(o.perRun)
	if t.prog.own && len(t.sample) < sampleSize {
		t.sample = append(t.sample, o.packet)
	}
}

// measure runs the program on the sample, over and over for a short while. It
// leaves programs alone that others may use: there the runs that were made
// anyway have to do.
func (t *timing) measure() error {
	if len(t.sample) == 0 {
		return nil
	}
	t.runs = histogram{}
	if err := measure(t.prog, t.sample, &t.runs); err != nil {
		return err
	}
	empty, err := t.prog.empty()
	if err != nil {
		return nil // the time stands without it
	}
	defer empty.close()
	if measure(empty, t.sample, &t.empty) != nil {
		t.empty = histogram{}
	}
	return nil
}

func measure(p *program, sample [][]byte, h *histogram) error {
	for end := time.Now().Add(measureTime); time.Now().Before(end); {
		for d, err := range p.times(slices.Values(sample)) {
			if err != nil {
				return err
			}
			h.add(d)
		}
	}
	return nil
}

func (t *timing) print(w io.Writer) {
	if t.runs.n == 0 {
		return
	}
	fmt.Fprintf(w, "Time per run: %d ns, the mean of %d single runs", t.runs.mean().Nanoseconds(), t.runs.n)
	if t.empty.n > 0 {
		fmt.Fprintf(w, "; an empty program takes %d ns", t.empty.mean().Nanoseconds())
	}
	fmt.Fprintln(w)
	t.runs.print(w)
}

// printJSON prints the line of -time.
func (t *timing) printJSON(w io.Writer, capture string, packets int) error {
	return json.NewEncoder(w).Encode(struct {
		Program   string        `json:"program"`
		Type      string        `json:"type"`
		Capture   string        `json:"capture"`
		Packets   int           `json:"packets"`
		Runs      int           `json:"runs"`
		Mean      time.Duration `json:"mean_ns"`
		Median    time.Duration `json:"median_ns"`
		P90       time.Duration `json:"p90_ns"`
		P99       time.Duration `json:"p99_ns"`
		Empty     time.Duration `json:"empty_mean_ns,omitempty"`
		Histogram []bar         `json:"histogram"`
	}{t.prog.name, t.prog.Type().String(), capture, packets, t.runs.n, t.runs.mean(),
		t.runs.percentile(50), t.runs.percentile(90), t.runs.percentile(99), t.empty.mean(), t.runs.bars()})
}
