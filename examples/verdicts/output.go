package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// output writes lines. It writes each line at once if someone reads along, and otherwise
// in large pieces.
type output struct {
	*bufio.Writer
	live bool
	gap  bool // whether the last line is empty
}

// newOutput returns an output to w. It writes in large pieces unless w is a terminal or
// the input is live.
func newOutput(w io.Writer, live bool) *output {
	return &output{Writer: bufio.NewWriterSize(w, 1<<16), live: live || isTerminal(os.Stdout)}
}

func (o *output) Write(b []byte) (int, error) {
	if len(b) > 0 {
		o.gap = false
	}
	return o.Writer.Write(b)
}

// paragraph writes an empty line, unless the last line is empty.
func (o *output) paragraph() {
	if !o.gap {
		fmt.Fprintln(o)
		o.gap = true
	}
}

// line must be called after each line. It flushes if someone reads along.
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
