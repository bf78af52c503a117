package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// errDiffers says that results differ from those that were expected. It is returned
// after the differences were printed.
var errDiffers = errors.New("there are differences")

// goldenSink compares outcomes with the lines of an earlier -json.
type goldenSink struct {
	w       *output
	name    string
	capture *capture
	file    *os.File
	lines   *bufio.Scanner
	line    bytes.Buffer // line of the present outcome
	encoder jsonSink     // writes it
	differ  int
}

const longestLine = 1 << 20

func openGolden(name string, c *capture, w *output) (*goldenSink, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, longestLine)
	s := &goldenSink{w: w, name: name, capture: c, file: f, lines: lines}
	s.encoder = newJSONSink(&s.line)
	return s, nil
}

func (s *goldenSink) take(o *outcome) error {
	if !s.lines.Scan() {
		return s.ended(fmt.Sprintf("ends before packet %d", o.n))
	}
	s.line.Reset()
	if err := s.encoder.take(o); err != nil {
		return err
	}
	if bytes.Equal(bytes.TrimSpace(s.line.Bytes()), s.lines.Bytes()) {
		return nil // the usual case
	}
	was, err := s.parse()
	if err != nil {
		return err
	}
	is := o.record()
	if was.N != is.N || was.Length != is.Length || was.CRC != is.CRC {
		return fmt.Errorf("%s is of another capture: here comes %s, and there %s", s.name, is.identity(), was.identity())
	}
	words := differences(o.packet, &was, &is)
	if len(words) == 0 {
		return nil
	}
	s.differ++
	return printDifferences(s.w, o, words)
}

// identity returns what identifies a packet.
func (r *record) identity() string {
	return fmt.Sprintf("packet %d, %s of %d bytes with the CRC %s", r.N, r.Summary, r.Length, r.CRC)
}

// printDifferences prints a packet's line, with the new verdict.
func printDifferences(w io.Writer, o *outcome, words []string) error {
	_, err := fmt.Fprintf(w, "%4d  %-64s  %s\n", o.n, o.summary(), strings.Join(words, "; "))
	return err
}

// parse reads the line that was scanned.
func (s *goldenSink) parse() (r record, err error) {
	if err := json.Unmarshal(s.lines.Bytes(), &r); err != nil {
		return r, fmt.Errorf("%s is no output of -json: %w", s.name, err)
	}
	if r.N == 0 {
		return r, fmt.Errorf("%s is no output of -json: a line has no packet's number", s.name)
	}
	return r, nil
}

// ended returns an error that says why a line is missing, or one is left: the file
// could not be read, or is of another capture.
func (s *goldenSink) ended(how string) error {
	if err := s.lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return fmt.Errorf("%s %s: it is of another capture", s.name, how)
}

func (s *goldenSink) end() error {
	defer s.file.Close()
	read := s.capture.err == nil // else the file goes on, and not all packets are known
	if read && s.lines.Scan() {
		return s.ended("goes on after the last packet")
	}
	if s.differ > 0 {
		s.w.paragraph()
		fmt.Fprintf(s.w, "%s not as in %s.\n", count(s.differ, "packet"), s.name)
		return errDiffers
	}
	if read {
		fmt.Fprintf(s.w, "All packets are as in %s.\n", s.name)
	}
	return nil
}
