package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type status string

const (
	passed  status = "pass"
	failed  status = "fail"
	skipped status = "skip"
)

// A testID names a test. A test without a name is the package as a whole.
type testID struct{ pkg, name string }

// top returns the test to which a subtest belongs.
func (id testID) top() string {
	top, _, _ := strings.Cut(id.name, "/")
	return top
}

type result struct {
	status status // empty while the test runs
	output []string
}

// reason returns what a test passed to t.Skip.
func (r *result) reason() string {
	var words []string
	for _, line := range r.output {
		if m := logLine.FindStringSubmatch(line); m != nil {
			words = words[:0] // a log line before the reason
			line = m[1]
		}
		words = append(words, strings.Fields(line)...)
	}
	return strings.Join(words, " ")
}

// logLine matches the first line of what a test logs, after its position.
var logLine = regexp.MustCompile(`^ *[^ ]+\.go:\d+: (.*)`)

// results holds the results of one kernel.
type results struct {
	order      []testID // in the order in which the tests ran
	byID       map[testID]*result
	unfinished map[string]bool // the packages that did not end
}

func newResults() *results {
	return &results{byID: map[testID]*result{}, unfinished: map[string]bool{}}
}

// A section is what the test binary of one package printed.
type section struct {
	path   string
	output []byte
	ended  bool
	status int
}

// add adds the results of a package.
func (r *results) add(ctx context.Context, s section) error {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", s.path)
	cmd.Stdin = bytes.NewReader(s.output)
	events, err := output(cmd)
	if err != nil {
		return err
	}
	if err := r.apply(s.path, strings.NewReader(events)); err != nil {
		return err
	}
	r.finish(s)
	return nil
}

// apply adds the events that test2json makes of a package's output.
func (r *results) apply(pkg string, events io.Reader) error {
	dec := json.NewDecoder(events)
	for {
		var event struct{ Action, Test, Output string }
		if err := dec.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the tests of %s: %w", pkg, err)
		}
		id := testID{pkg, event.Test}
		switch event.Action {
		case "pass", "fail", "skip":
			if event.Test != "" {
				r.get(id).status = status(event.Action)
			}
		case "output":
			if !framing.MatchString(event.Output) {
				res := r.get(id)
				res.output = append(res.output, event.Output)
			}
		case "run":
			r.get(id)
		}
	}
}

// framing matches the lines that a test binary prints around its tests' own.
var framing = regexp.MustCompile(`^(?: *=== (RUN|PAUSE|CONT|NAME) | *--- (PASS|FAIL|SKIP): |(PASS|FAIL)?\s*$)`)

func (r *results) get(id testID) *result {
	res, ok := r.byID[id]
	if !ok {
		res = &result{}
		r.byID[id] = res
		r.order = append(r.order, id)
	}
	return res
}

// finish fails the tests that did not end. A package has a result of its own only if
// it failed although none of its tests did.
func (r *results) finish(s section) {
	whole := testID{pkg: s.path}
	failedTest := false
	for _, id := range r.order {
		res := r.byID[id]
		if id.pkg != s.path || id == whole {
			continue
		}
		if res.status == "" {
			res.status = failed
			res.output = append(res.output, "    the test did not end\n")
		}
		failedTest = failedTest || res.status == failed
	}
	if !s.ended {
		r.unfinished[s.path] = true
	}
	res := r.get(whole)
	res.status = failed
	if s.ended && (s.status == 0 || failedTest && len(res.output) == 0) {
		r.drop(whole)
	}
}

func (r *results) drop(id testID) {
	delete(r.byID, id)
	for i, other := range r.order {
		if other == id {
			r.order = append(r.order[:i], r.order[i+1:]...)
			return
		}
	}
}

// guestOutput is what a virtual machine's tests wrote to their serial port.
type guestOutput struct {
	boot     time.Duration
	sections map[string]section
}

// parseGuest splits the output at the lines that init.sh writes into it.
func parseGuest(output []byte) guestOutput {
	out := guestOutput{sections: map[string]section{}}
	var current section
	lines := bufio.NewReader(bytes.NewReader(output))
	for {
		line, err := lines.ReadString('\n')
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "##booted":
			seconds, _ := strconv.ParseFloat(words[1], 64)
			out.boot = time.Duration(seconds * float64(time.Second))
		case len(words) == 2 && words[0] == "##begin":
			current = section{path: words[1]}
		case len(words) == 3 && words[0] == "##end":
			current.ended = true
			current.status, _ = strconv.Atoi(words[2])
		default:
			current.output = append(current.output, line...)
		}
		if current.path != "" {
			out.sections[current.path] = current
		}
		if err != nil {
			return out
		}
	}
}
