package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// timing measures how long runs of a program take: single runs over all packets, by the
// kernel's own clock and without the system call.
//
// The usual way is a Repeat of a million, which reads the clock only twice. It does not
// serve here, for three reasons. It runs one packet, but packets take different paths
// through a program. It does not reset the packet in between: a filter that strips a
// tag would strip one after the other. And for XDP the kernel spends tens of
// milliseconds on every call with a Repeat above 1, which is too long for each packet of
// a capture.
//
// Single runs include the kernel's reading of its clock. The same measurement with a
// program that does nothing shows how long that takes.
type timing struct {
	prog   *program
	runs   histogram
	empty  histogram // times of a program that does nothing
	sample [][]byte  // packets to measure with
}

const (
	sampleSize  = 1000
	measureTime = 200 * time.Millisecond
)

// add adds a run that was not made for timing.
func (t *timing) add(o *outcome) {
	if o.err != nil {
		return
	}
	t.runs.add(o.res.PerRun)
	if t.prog.own && len(t.sample) < sampleSize {
		t.sample = append(t.sample, o.packet)
	}
}

// measure runs the program on the sample repeatedly, for a short while. It does not run
// programs that others may use. For these, only the runs that add counted serve.
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
		return nil // the times are valid without it
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

// timingRecord is the line of -time, as schema.json describes it.
type timingRecord struct {
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
}

// printJSON prints the line of -time.
func (t *timing) printJSON(w io.Writer, capture string, packets int) error {
	return json.NewEncoder(w).Encode(timingRecord{
		Program: t.prog.name, Type: t.prog.Type().String(), Capture: capture, Packets: packets,
		Runs: t.runs.n, Mean: t.runs.mean(), Median: t.runs.percentile(50), P90: t.runs.percentile(90),
		P99: t.runs.percentile(99), Empty: t.empty.mean(), Histogram: t.runs.bars(),
	})
}
