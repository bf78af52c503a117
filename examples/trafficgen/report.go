//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

// report is what the command prints.
type report struct {
	out      io.Writer
	terminal bool
	asked    int64 // frames, or 0
	last     progrun.LiveStats
	open     bool // the line is to be written over
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (r *report) begin(o options) {
	r.asked = o.frames
	fmt.Fprintf(r.out, "UDP frames of %d bytes from %v to %v, port %d\n", o.size, source, destination, discard)
}

// progress shows where the run is, on one line of a terminal. The far end may
// be ahead of the stats, which are those of the calls that have returned.
func (r *report) progress(s progrun.LiveStats, received int64) {
	rate := 0.0
	if d := s.Wall - r.last.Wall; d > 0 {
		rate = float64(s.Frames-r.last.Frames) / d.Seconds()
	}
	r.last = s
	start, end := "", "\n"
	if r.terminal {
		start, end, r.open = "\r\x1b[K", "", true
	}
	fmt.Fprintf(r.out, "%s%5.1f s  %d sent  %d received  %.0f frames/s%s", start, s.Wall.Seconds(), s.Frames, received, rate, end)
}

// totals says how it went in the end.
func (r *report) totals(s progrun.LiveStats, received int64) {
	if r.open {
		fmt.Fprintln(r.out)
	}
	row := func(name, format string, args ...any) {
		fmt.Fprintf(r.out, "%-11s"+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintln(r.out)
	asked := ""
	if r.asked > 0 {
		asked = fmt.Sprintf(" of %d", r.asked)
	}
	row("sent", "%d frames%s in %v%s", s.Frames, asked, s.Wall.Round(10*time.Microsecond), upTo(s.Uncertain))
	row("received", "%d", received)
	least := max(0, s.Frames-received)
	row("lost", "%d%s", least, upTo(max(0, s.Frames+s.Uncertain-received)-least))
	row("rate", "%.0f frames/s", s.FramesPerSecond())
	if len(s.Workers) > 1 {
		for _, w := range s.Workers {
			row("", "%.0f frames/s on CPU %d", w.FramesPerSecond(), w.CPU)
		}
	}
	row("calls", "%d, of %d batches", s.Calls, s.Batches)
	row("held", "%s", held(s))
	row("limited by", "%v", s.LimitedBy)
	row("missed", "%d", s.Missed)
}

// upTo is what to say about a number of frames that nobody is sure of.
func upTo(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", and up to %d more", n)
}

func held(s progrun.LiveStats) string {
	switch {
	case s.Held:
		return "yes"
	case s.HoldErr != nil:
		return "no: " + s.HoldErr.Error()
	}
	return "no: there was no need"
}
