//go:build linux

package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/progrun/progrun"
)

func TestTotals(t *testing.T) {
	var out bytes.Buffer
	received := int64(1010)
	r := &report{out: &out, sender: &sender{options: options{frames: 2000}, load: &load{packets: [][]byte{make([]byte, 125)}}}}
	l := line{Received: &received, Lost: map[string]int64{"no route": 3}, Verdicts: map[string]int64{"XDP_TX": 990, "XDP_DROP": 10}, FPS: 2000, BPS: 2e6}
	r.rows(l, progrun.LiveStats{
		Frames: 1000, Uncertain: 64, Missed: 3, Batches: 17, Calls: 2, Wall: 500 * time.Millisecond,
		HoldErr: errors.New("full"), LimitedBy: progrun.LimitDispatcher,
	})
	want := `sent       1000 frames of 2000 in 500ms, and up to 64 more
received   1010
lost       0, and up to 54 more
           3: no route
verdicts   10 XDP_DROP, 990 XDP_TX
rate       2000 frames/s, 2 Mbit/s
calls      2, of 17 batches
held       no: full
limited by XDP dispatcher
missed     3
`
	if out.String() != want {
		t.Errorf("have %s\nwant %s", &out, want)
	}
}
