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
	if o.err != nil {
		_, err := fmt.Fprintf(s.w, "%4d  %-64s  error: %s\n", o.n, o.summary(), o.err)
		return err
	}
	notes := o.notes(s.context)
	if o.res.Packet != nil {
		notes = append([]string{change(o.packet, o.res.Packet)}, notes...)
	}
	line := fmt.Sprintf("%4d  %-64s  %-11s  %s", o.n, o.summary(), o.res.Verdict, strings.Join(notes, ", "))
	_, err := fmt.Fprintln(s.w, strings.TrimRight(line, " "))
	return err
}

func (s listSink) end() error { return nil }
