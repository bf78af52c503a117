//go:build linux

package main

import (
	"slices"
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	if cpus, err := parseCPUs("0-3, 6,5"); err != nil || !slices.Equal(cpus, []int{0, 1, 2, 3, 6, 5}) {
		t.Errorf("have %v, %v", cpus, err)
	}
	for _, list := range []string{"", "0,", "-1", "3-", "x", "0-1,1"} {
		if cpus, err := parseCPUs(list); err == nil {
			t.Errorf("%q gave %v", list, cpus)
		}
	}
	for s, want := range map[string]int{"1M": 1e6, "1e6": 1e6, "1.5k": 1500, "2,000": 2000, "0": 0, "10Gbit": 10_000_000, "1kbit": 1, "8Mbps": 8000, "8Mbit/s": 8000, "2Mpps": 2e6, "5k/s": 5000} {
		if r, err := parseRate(s); err != nil || r.of(125) != want {
			t.Errorf("%s: have %d, %v, want %d", s, r.of(125), err, want)
		}
	}
	for s, want := range map[string]time.Duration{"5": 5 * time.Second, "0.5": time.Second / 2, "1m": time.Minute, "3ms": 3 * time.Millisecond} {
		if d, err := parseDuration(s); err != nil || d != want {
			t.Errorf("%s: have %v, %v", s, d, err)
		}
	}
}
