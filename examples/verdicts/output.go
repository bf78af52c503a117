package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// output is where lines go: in time for whoever reads along, and otherwise in
// large pieces.
type output struct {
	*bufio.Writer
	live bool
	gap  bool // the last line is empty
}

// newOutput writes to w in large pieces, unless that is a terminal or the input
// is live.
func newOutput(w io.Writer, live bool) *output {
	return &output{Writer: bufio.NewWriterSize(w, 1<<16), live: live || isTerminal(os.Stdout)}
}

func (o *output) Write(b []byte) (int, error) {
	if len(b) > 0 {
		o.gap = false
	}
	return o.Writer.Write(b)
}

// paragraph leaves a line empty.
func (o *output) paragraph() {
	if !o.gap {
		fmt.Fprintln(o)
		o.gap = true
	}
}

// line is called at the end of a line. It flushes if someone reads along.
func (o *output) line() error {
	if !o.live {
		return nil
	}
	return o.Flush()
}

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
