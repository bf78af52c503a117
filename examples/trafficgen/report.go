//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

// report prints the progress and the totals of a run.
type report struct {
	*sender
	out      io.Writer
	terminal bool // whether out is one
	last     progrun.LiveStats
	open     bool // whether the next line overwrites the present one
}

// line is a line of -json, as the usage describes it. If Total is set, it has the
// totals of the run.
type line struct {
	Total    bool             `json:"total,omitempty"`
	Seconds  float64          `json:"seconds"`            // since the start
	Frames   int64            `json:"frames"`             // that the kernel ran, since the start
	Doubtful int64            `json:"uncertain"`          // that it may have run beyond these
	Missed   int64            `json:"missed"`             // that could not be sent in time
	Received *int64           `json:"received,omitempty"` // at the far end of the command's own wire
	Lost     map[string]int64 `json:"lost"`               // by reason
	Verdicts map[string]int64 `json:"verdicts"`           // frames, by what the program said of them
	LeftOut  int              `json:"left_out,omitempty"` // packets of the capture
	FPS      float64          `json:"frames_per_second"`  // since the last line; of the totals, the mean
	BPS      float64          `json:"bits_per_second"`    // likewise, of frames from their Ethernet header on
	Limit    string           `json:"limited_by,omitempty"`
	Held     *bool            `json:"held,omitempty"`
	Calls    int64            `json:"calls,omitempty"`
	Batches  int64            `json:"batches,omitempty"`
}

func newReport(out io.Writer, terminal bool, s *sender) *report {
	return &report{sender: s, out: out, terminal: terminal && !s.json}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// begin prints what is sent.
func (r *report) begin() {
	if r.json {
		return
	}
	l := r.load
	if l.template != nil {
		fmt.Fprintf(r.out, "frames of %d bytes, %s, %v\n", l.largest(), plural(l.flows(), "flow"), r.path)
		return
	}
	name := r.pcap
	if name == "-" {
		name = standardInput
	}
	fmt.Fprintf(r.out, "%s of %s, %v\n", plural(len(l.packets), "packet"), name, r.path)
	if l.leftOut.total() > 0 {
		fmt.Fprintf(r.out, "left out: %v\n", l.leftOut)
	}
}

func plural[N int | int64 | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// own reports whether the wire is the command's own, so that its far end counts.
func (r *report) own() bool {
	_, ok := r.path.(*wire)
	return ok
}

// line returns the state of the run.
func (r *report) line(s progrun.LiveStats) line {
	l := line{
		Seconds: s.Wall.Seconds(), Frames: s.Frames, Doubtful: s.Uncertain, Missed: s.Missed,
		Lost: r.programs.lost(), Verdicts: verdicts(s.Verdicts), LeftOut: r.load.leftOut.total(),
	}
	if r.own() {
		n := sum(r.programs.Received, 0)
		l.Received = &n
	}
	return l
}

// progress shows the state of the run, on one line of a terminal. The far end may be
// ahead of the stats, which cover only calls that have returned.
func (r *report) progress(s progrun.LiveStats) {
	l := r.line(s)
	if d := s.Wall - r.last.Wall; d > 0 {
		l.FPS = float64(s.Frames-r.last.Frames) / d.Seconds()
		l.BPS = 8 * float64(s.Bytes-r.last.Bytes) / d.Seconds()
	}
	r.last = s
	if r.json {
		r.print(l)
		return
	}
	if !r.terminal {
		fmt.Fprintln(r.out, l)
		return
	}
	r.open = true
	fmt.Fprintf(r.out, "\r\x1b[K%.*s", r.columns()-1, l)
}

// String returns the progress for people, in the order of what they miss most where
// the line is cut.
func (l line) String() string {
	text := fmt.Sprintf("%5.1f s  %.0f frames/s  %s  %d lost  %d sent", l.Seconds, l.FPS, bits(l.BPS), total(l.Lost), l.Frames)
	if l.Received != nil {
		text += fmt.Sprintf("  %d received", *l.Received)
	}
	return text + "  " + list(l.Verdicts)
}

// columns returns the width of the terminal. A line that is wider could not be
// overwritten.
func (r *report) columns() int {
	if f, ok := r.out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return 80
}

// print writes an object as a line.
func (r *report) print(l line) {
	_ = json.NewEncoder(r.out).Encode(l)
}

// totals prints the outcome of the run. It returns an error if every frame was lost.
func (r *report) totals(s progrun.LiveStats) error {
	if r.own() {
		r.programs.settled(s.Frames + s.Uncertain)
	}
	l := r.line(s)
	l.Total, l.Limit, l.Held, l.Calls, l.Batches = true, s.LimitedBy.String(), &s.Held, s.Calls, s.Batches
	if l.FPS = s.FramesPerSecond(); s.Wall > 0 {
		l.BPS = 8 * float64(s.Bytes) / s.Wall.Seconds()
	}
	if r.json {
		r.print(l)
	} else {
		r.end()
		r.rows(l, s)
	}
	if s.Frames > 0 && total(l.Lost) >= s.Frames {
		return fmt.Errorf("every frame was lost: %s", strings.Join(slices.Sorted(maps.Keys(l.Lost)), "; "))
	}
	return nil
}

// end ends the progress.
func (r *report) end() {
	if r.open {
		fmt.Fprintln(r.out)
	}
	fmt.Fprintln(r.out)
}

// rows prints the totals for people.
func (r *report) rows(l line, s progrun.LiveStats) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(r.out, "%-11s"+format+"\n", append([]any{name}, args...)...)
	}
	asked := ""
	if r.frames > 0 {
		asked = fmt.Sprintf(" of %d", r.frames)
	}
	row("sent", "%s%s in %v%s", plural(s.Frames, "frame"), asked, s.Wall.Round(10*time.Microsecond), upTo(s.Uncertain))
	if l.Received != nil {
		row("received", "%d", *l.Received)
		least := max(0, s.Frames-*l.Received)
		row("lost", "%d%s", least, upTo(max(0, s.Frames+s.Uncertain-*l.Received)-least))
	} else {
		row("lost", "%d", total(l.Lost))
	}
	for _, reason := range slices.Sorted(maps.Keys(l.Lost)) {
		row("", "%d: %s", l.Lost[reason], reason)
	}
	row("verdicts", "%s", list(l.Verdicts))
	row("rate", "%.0f frames/s, %s", l.FPS, bits(l.BPS))
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

// verdicts names the counts that are not zero.
func verdicts(v progrun.LiveVerdicts) map[string]int64 {
	counts := map[string]int64{
		progrun.XDPAborted.String(): v.Aborted, progrun.XDPDrop.String(): v.Drop, progrun.XDPPass.String(): v.Pass,
		progrun.XDPTX.String(): v.TX, progrun.XDPRedirect.String(): v.Redirect, "other": v.Other,
	}
	maps.DeleteFunc(counts, func(_ string, n int64) bool { return n == 0 })
	return counts
}

// list writes counts in one line, in the order of their names.
func list(counts map[string]int64) string {
	if len(counts) == 0 {
		return "none"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(parts, ", ")
}

func total(lost map[string]int64) int64 {
	var n int64
	for _, frames := range lost {
		n += frames
	}
	return n
}

// bits returns a rate in words.
func bits(perSecond float64) string {
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if perSecond < 1000 {
			return fmt.Sprintf("%.3g %s", perSecond, unit)
		}
		perSecond /= 1000
	}
	return fmt.Sprintf("%.1f Gbit/s", perSecond)
}

// upTo returns in words how many more frames there may be.
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
