//go:build linux

package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkLossCounting measures how much slower frames get by the programs that count
// the lost ones. Runs with and without them take turns, and the figure is the median of
// all pairs. -benchtime 40x makes 40 pairs.
func BenchmarkLossCounting(b *testing.B) {
	need(b)
	for _, flag := range []string{"-i", "-redirect"} {
		b.Run(strings.TrimPrefix(flag, "-"), func(b *testing.B) {
			s := newNetwork(b).prepare(b, flag+" near -frames 500k")
			defer s.close()
			slower := lossCost(b, s)
			slices.Sort(slower)
			b.ReportMetric(100*slower[len(slower)/2], "%slower")
		})
	}
}

// lossCost returns for each pair of runs by what part the counting one was slower.
func lossCost(b *testing.B, s *sender) (slower []float64) {
	b.Helper()
	for i := range b.N {
		var took [2]time.Duration // without, and with
		for _, with := range []int{i % 2, 1 - i%2} {
			s.watch(b, with == 1)
			stats, err := s.run(context.Background(), nil)
			if err != nil {
				b.Fatal(err)
			}
			took[with] = stats.Wall
		}
		slower = append(slower, took[1].Seconds()/took[0].Seconds()-1)
	}
	return slower
}

// watch switches the counting of lost frames on or off.
func (s *sender) watch(b *testing.B, on bool) {
	b.Helper()
	for _, l := range s.programs.links {
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
	s.programs.links = nil
	if !on {
		return
	}
	if err := s.watchLoss(); err != nil {
		b.Fatal(err)
	}
}
