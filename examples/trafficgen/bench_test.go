//go:build linux

package main

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"
)

// BenchmarkLossCounting measures how much slower frames get by the programs that count
// the lost ones. Runs with and without them take turns. The figure compares the fastest
// of each, since whatever else the machine does only slows a run. -benchtime 60x makes
// 60 of each.
func BenchmarkLossCounting(b *testing.B) {
	need(b)
	for _, flag := range []string{"-i", "-redirect"} {
		b.Run(strings.TrimPrefix(flag, "-"), func(b *testing.B) {
			s := newNetwork(b).prepare(b, flag+" near -frames 300k")
			defer s.close()
			without, with := lossCost(b, s)
			b.ReportMetric(100*(with.Seconds()/without.Seconds()-1), "%slower")
			b.ReportMetric(float64(with.Nanoseconds()-without.Nanoseconds())/float64(s.frames), "ns/frame")
		})
	}
}

// lossCost returns the time of the fastest run without and with counting.
func lossCost(b *testing.B, s *sender) (without, with time.Duration) {
	b.Helper()
	least := map[bool]time.Duration{false: math.MaxInt64, true: math.MaxInt64}
	for i := range 2 * b.N {
		count := i%2 == 1
		s.watch(b, count)
		stats, err := s.run(context.Background(), nil)
		if err != nil {
			b.Fatal(err)
		}
		least[count] = min(least[count], stats.Wall)
	}
	return least[false], least[true]
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
