package progrun

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMeasure(t *testing.T) {
	for _, c := range []struct {
		name, program string
		drifts        bool
	}{
		{"passes", "xdp_pass", false},
		{"cuts the head off", "xdp_shrink_head", true},
		{"edits a byte", "xdp_increment", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, "xdp", c.program)
			got, err := Measure(o.Program, XDP{Packet: frame(1000)}, 20*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if got.Drifts != c.drifts {
				t.Errorf("drifts %v, want %v", got.Drifts, c.drifts)
			}
			if got.PerRun <= 0 || got.PerFreshRun <= 0 || got.Runs < 100 || got.FreshRuns < 1 || !got.Held {
				t.Errorf("got %+v", got)
			}
			wantNothingHeld(t, o)
		})
	}
}

// TestMeasureGrowsCheaply has many steps of an XDP program, none of which pays
// for the XDP dispatcher.
func TestMeasureGrowsCheaply(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	begin := time.Now()
	got, err := Measure(o.Program, XDP{Packet: frame(64)}, time.Millisecond)
	if err != nil || !got.Held {
		t.Fatalf("%+v, %v", got, err)
	}
	if took := time.Since(begin); took > 200*time.Millisecond && !emulated {
		t.Errorf("2 ms of measuring took %v", took)
	}
}

func TestMeasureContext(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	for _, c := range []struct {
		mark   uint32
		drifts bool
	}{{7, true}, {9, false}} {
		got, err := Measure(o.Program, TC{Packet: frame(64), Context: SKB{Mark: c.mark}}, time.Millisecond)
		if err != nil || got.Drifts != c.drifts || got.Held {
			t.Errorf("mark %d: got %+v, %v, want drifts %v", c.mark, got, err, c.drifts)
		}
	}
	flow := load(t, "flow_dissector", "flow_dissect")
	if got, err := Measure(flow.Program, FlowDissector{Packet: udp4(somewhere, 53)}, time.Millisecond); err != nil || got.Drifts {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMeasureFails(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	_, err := Measure(o.Program, XDP{Packet: frame(13)}, time.Second)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.EINVAL) || e.Field != "Packet" {
		t.Errorf("got %v", err)
	}
}
