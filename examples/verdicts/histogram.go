package main

import (
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"
)

// histogram counts durations, exactly up to 63 ns and to within a 32nd above. Its size
// is fixed.
type histogram struct {
	buckets [64 + 32*58]int
	n       int
	total   time.Duration
}

func bucketOf(d time.Duration) int {
	ns := uint64(max(d, 0))
	if ns < 64 {
		return int(ns)
	}
	shift := bits.Len64(ns) - 6
	return 64 + 32*(shift-1) + int(ns>>shift) - 32
}

// lowest returns the least duration of a bucket.
func lowest(bucket int) time.Duration {
	if bucket < 64 {
		return time.Duration(bucket)
	}
	shift := (bucket-64)/32 + 1
	return time.Duration(32+(bucket-64)%32) << shift
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.n++
	h.total += d
}

func (h *histogram) mean() time.Duration { return h.total / time.Duration(max(h.n, 1)) }

// percentile returns the duration that p percent do not exceed, with the precision of
// the buckets.
func (h *histogram) percentile(p float64) time.Duration {
	rank, sum := int(p*float64(h.n)/100+0.5), 0
	for i, n := range h.buckets {
		if sum += n; n > 0 && sum >= rank {
			return lowest(i)
		}
	}
	return 0
}

// bar is a row of a histogram: N durations of From and more.
type bar struct {
	From time.Duration `json:"from_ns"`
	N    int           `json:"runs"`
}

const mostBars = 8

// bars returns a few rows of equal width. The last has all longer durations too.
func (h *histogram) bars() (bars []bar) {
	first, last := h.percentile(0), h.percentile(99)
	width := roundWidth(last-first, mostBars-1)
	begin := first / width * width
	for i, n := range h.buckets {
		if n == 0 {
			continue
		}
		row := min(int((lowest(i)-begin)/width), int((last-begin)/width)+1, mostBars-1)
		for len(bars) <= row {
			bars = append(bars, bar{From: begin + time.Duration(len(bars))*width})
		}
		bars[row].N += n
	}
	return bars
}

// roundWidth returns 1, 2 or 5 times a power of ten, so that fewer than n widths cover a
// span.
func roundWidth(span time.Duration, n int) time.Duration {
	for width := time.Duration(1); ; width *= 10 {
		for _, times := range []time.Duration{1, 2, 5} {
			if span/(width*times)+1 < time.Duration(n) {
				return width * times
			}
		}
	}
}

// print prints the percentiles, and the histogram.
func (h *histogram) print(w io.Writer) {
	fmt.Fprintf(w, "Median %d ns, 90th percentile %d ns, 99th %d ns:\n",
		h.percentile(50).Nanoseconds(), h.percentile(90).Nanoseconds(), h.percentile(99).Nanoseconds())
	bars := h.bars()
	for i, b := range bars {
		share := float64(b.N) / float64(h.n)
		more := " "
		if i == len(bars)-1 {
			more = "+"
		}
		line := fmt.Sprintf("%8d ns%s %3.0f %%  %s", b.From.Nanoseconds(), more, 100*share, blocks(40*share))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// blocks draws a bar, to an eighth of a character.
func blocks(length float64) string {
	eighths := int(length*8 + 0.5)
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string(rune('▉' + 7 - rest))
	}
	return s
}
