package main

import (
	"fmt"
	"io"
	"strings"
)

// sink takes outcomes. An outcome is valid only during the call.
type sink interface {
	take(*outcome) error
	end() error
}

// listSink prints a line for each packet.
type listSink struct {
	w       io.Writer
	context bool
}

func (s listSink) take(o *outcome) error {
	verdict, rest := "error:", ""
	if o.err != nil {
		rest = o.err.Error()
		_, err := fmt.Fprintf(s.w, "%4d  %-64s  %s %s\n", o.n, o.summary(), verdict, rest)
		return err
	}
	verdict = o.verdict.String()
	notes := o.notes(s.context)
	if o.out != nil {
		notes = append([]string{change(o.packet, o.out, o.blank)}, notes...)
	}
	line := fmt.Sprintf("%4d  %-64s  %-11s  %s", o.n, o.summary(), verdict, strings.Join(notes, ", "))
	_, err := fmt.Fprintln(s.w, strings.TrimRight(line, " "))
	return err
}

func (s listSink) end() error { return nil }
