package main

import (
	"fmt"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// The names of contenders, which also appear in the benchmark results.
const (
	byProgrun = "progrun"
	byGo      = "go"
	byC       = "c"
	byCilium  = "cilium"
)

// contender is one way to do an operation.
type contender struct {
	by string
	// run does n operations and returns how long they took.
	run func(n int) (time.Duration, error)
	// once, if set, does one operation, whose allocations are counted.
	once func() error
}

// each returns a contender from a function that does one operation.
func each(by string, once func() error) contender {
	return contender{by: by, once: once, run: func(n int) (time.Duration, error) {
		begin := time.Now()
		for range n {
			if err := once(); err != nil {
				return 0, err
			}
		}
		return time.Since(begin), nil
	}}
}

// timed returns a contender from a function that does n operations.
func timed(by string, f func(n int) error) contender {
	return contender{by: by, run: func(n int) (time.Duration, error) {
		begin := time.Now()
		err := f(n)
		return time.Since(begin), err
	}}
}

// point is one row of a table: contenders that do the same.
type point struct {
	name       string  // in the table, such as "XDP, verdict only"
	series     string  // what grows, if the point is a step of a growth
	x          float64 // the place of the step
	contenders []contender
	claims     []claim
	n          int // operations in a turn; 0 means as many as take a slice
	share      int // percentage of the rounds, for turns that take long and need no warming up; 0 means all
	allocs     int // allocations that progrun may make in an operation
	// received, if set, returns how many operations arrived elsewhere.
	received func() (uint64, error)
}

// sense says on which side of its target a ratio should be.
type sense int

const (
	shown sense = iota // there is no target
	atMost
	atLeast
)

// claim is a ratio of two contenders' times, and what it should be.
type claim struct {
	label    string // label of the column
	of, over string
	sense    sense
	target   float64
}

// result is what was measured at a point.
type result struct {
	point
	perOp map[string][]float64 // nanoseconds per operation in every round, by contender
	ops   int
	alloc map[string]float64
	note  string
}

// plan is how thoroughly to measure.
type plan struct {
	only   *regexp.Regexp
	rounds int           // number of rounds of points whose operations are short
	slice  time.Duration // time of a contender's turn
	quick  bool
}

// roundsOf returns how many rounds a point gets. Points whose rounds take long get
// fewer.
func (p plan) roundsOf(pt point) int {
	if pt.share > 0 {
		return max(3, p.rounds*pt.share/100)
	}
	return p.rounds
}

// measure lets the contenders take turns. The machine may change its speed at any
// time, so only neighbouring measurements can be compared. The contender that begins
// changes from round to round.
func (p plan) measure(pt point) (result, error) {
	res := result{point: pt, ops: pt.n, perOp: make(map[string][]float64), alloc: make(map[string]float64)}
	err := res.countAllocs()
	if err == nil && res.ops == 0 {
		res.ops, err = p.calibrate(pt.contenders[0])
	}
	if err != nil {
		return res, fmt.Errorf("%s: %w", pt.name, err)
	}
	runtime.GC()
	var before uint64
	if pt.received != nil {
		if before, err = pt.received(); err != nil {
			return res, err
		}
	}
	rounds := p.roundsOf(pt)
	for round := range rounds {
		for i := range pt.contenders {
			c := pt.contenders[(round+i)%len(pt.contenders)]
			took, err := p.turn(c, res.ops, pt.share == 0)
			if err != nil {
				return res, fmt.Errorf("%s: %s: %w", pt.name, c.by, err)
			}
			res.perOp[c.by] = append(res.perOp[c.by], float64(took)/float64(res.ops))
		}
	}
	if pt.received != nil {
		after, err := pt.received()
		if err != nil {
			return res, err
		}
		sent := float64(rounds * res.ops * len(pt.contenders))
		res.note = fmt.Sprintf("%s: %.2f %% of the frames reached the far end.", pt.name, 100*float64(after-before)/sent)
	}
	return res, nil
}

// countAllocs counts what one operation of each contender allocates.
func (r *result) countAllocs() (err error) {
	for _, c := range r.contenders {
		if c.once == nil || r.share > 0 {
			continue
		}
		r.alloc[c.by] = testing.AllocsPerRun(100, func() {
			if e := c.once(); e != nil {
				err = fmt.Errorf("%s: %w", c.by, e)
			}
		})
	}
	return err
}

// turn measures one contender, after a few operations that warm the caches.
func (p plan) turn(c contender, n int, warm bool) (time.Duration, error) {
	if warm && n >= 16 {
		if _, err := c.run(n / 16); err != nil {
			return 0, err
		}
	}
	return c.run(n)
}

// calibrate finds how many operations take about a slice.
func (p plan) calibrate(c contender) (int, error) {
	for n := 1; ; n *= 2 {
		took, err := c.run(n)
		if err != nil {
			return 0, err
		}
		if took >= p.slice/2 {
			return max(1, int(float64(n)*float64(p.slice)/float64(took))), nil
		}
	}
}

// nsPerOp returns the median over the rounds.
func (r result) nsPerOp(by string) (float64, bool) {
	ns, ok := r.perOp[by]
	if !ok {
		return 0, false
	}
	return quantile(ns, 0.5), true
}

// ratio returns the median of a claim's ratio over the rounds, and half the distance
// between the quartiles.
func (r result) ratio(c claim) (median, spread float64, ok bool) {
	of, over := r.perOp[c.of], r.perOp[c.over]
	if of == nil || over == nil {
		return 0, 0, false
	}
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i] / over[i]
	}
	return quantile(ratios, 0.5), (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / 2, true
}

// met reports whether a ratio is what its claim says.
func (c claim) met(ratio float64) bool {
	switch c.sense {
	case atMost:
		return ratio <= c.target
	case atLeast:
		return ratio >= c.target
	}
	return true
}

// goal returns the target in signs, such as "≤ 1.10".
func (c claim) goal() string {
	switch c.sense {
	case atMost:
		return fmt.Sprintf("≤ %.2f", c.target)
	case atLeast:
		return fmt.Sprintf("≥ %.2f", c.target)
	}
	return ""
}

// quantile interpolates between the two nearest values.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// slug returns a string as part of a benchmark's name.
func slug(s string) string {
	return strings.Trim(notInNames.ReplaceAllString(s, "-"), "-")
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_.]+`)
