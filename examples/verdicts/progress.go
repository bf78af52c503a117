package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// progress is a bar on a terminal that shows how much of a file has been read. A nil
// progress shows nothing.
type progress struct {
	w      io.Writer
	read   *atomic.Int64
	size   int64
	begin  time.Time
	next   time.Time // when to draw again
	drawn  bool
	length int // length of the bar
}

const (
	progressAfter = 500 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

// progress returns a bar, unless a list on the terminal shows the progress already.
func (o *options) progress(c *capture) *progress {
	if o.golden == "" && o.against == "" && !o.time && o.only == "" && isTerminal(os.Stdout) {
		return nil
	}
	return newProgress(os.Stderr, c)
}

// newProgress returns a bar if f is a terminal and the capture's size is known.
func newProgress(f *os.File, c *capture) *progress {
	if c.size == 0 || !isTerminal(f) {
		return nil
	}
	now := time.Now()
	return &progress{w: f, read: &c.read, size: c.size, begin: now, next: now.Add(progressAfter), length: 30}
}

// step draws the bar if it is time. It must be called after each packet.
func (p *progress) step(packets int) {
	if p == nil || packets%256 != 0 {
		return
	}
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next, p.drawn = now.Add(progressEvery), true
	done := min(1, float64(p.read.Load())/float64(p.size))
	full := int(done * float64(p.length))
	rate := float64(packets) / now.Sub(p.begin).Seconds()
	fmt.Fprintf(p.w, "\r[%s%s] %3.0f %%  %d packets, %.0f a second ", strings.Repeat("=", full),
		strings.Repeat(" ", p.length-full), 100*done, packets, rate)
}

// clear removes the bar.
func (p *progress) clear() {
	if p != nil && p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

// over returns a writer that removes the bar before it writes.
func (p *progress) over(w io.Writer) io.Writer {
	if p == nil {
		return w
	}
	return clearingWriter{p, w}
}

type clearingWriter struct {
	p *progress
	w io.Writer
}

func (c clearingWriter) Write(b []byte) (int, error) {
	c.p.clear()
	return c.w.Write(b)
}
