//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/progruntest"
	"github.com/vishvananda/netlink"
)

// asCommand is the environment variable that makes the test binary the command.
const asCommand = "TRAFFICGEN_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// need skips a test that sends frames if the machine cannot.
func need(t testing.TB) {
	t.Helper()
	progruntest.Need(t, progrun.HaveXDPLiveFrames())
}

// command returns the command as a process of its own, in a directory.
func command(t *testing.T, dir, args string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, strings.Fields(args)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// output runs the command in this process, and returns what it printed. It fails the
// test if the command fails.
func output(t *testing.T, terminal bool, args string) string {
	t.Helper()
	need(t)
	var out bytes.Buffer
	o, err := parse(strings.Fields(args), &out)
	if err == nil {
		err = run(context.Background(), o, &out, terminal)
	}
	if err != nil {
		t.Fatalf("%v, after:\n%s", err, &out)
	}
	return out.String()
}

// totals returns the rows after the empty line, by the name that they begin with.
func totals(out string) map[string]string {
	rows := make(map[string]string)
	_, last, _ := strings.Cut(out, "\n\n")
	for line := range strings.Lines(last) {
		if len(line) > 11 {
			rows[strings.TrimSpace(line[:11])] = strings.TrimSpace(line[11:])
		}
	}
	return rows
}

// number returns the number at the start of a row, or -1.
func number(row string) int64 {
	n, err := strconv.ParseInt(regexp.MustCompile(`^\d+`).FindString(row), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// TestDuration checks that the end of -duration is no error, and that progress is shown.
func TestDuration(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		out := output(t, terminal, "-rate 1k -duration 2500ms -frames 1e12 -cpus 0")
		rows := totals(out)
		if n := number(rows["sent"]); n <= 0 || n != number(rows["received"]) || rows["lost"] != "0" {
			t.Errorf("have %v", rows)
		}
		line := regexp.MustCompile(`\d\.\d s  \d+ frames/s  \S+ k?bit/s  0 lost  [1-9]\d* sent  [1-9]\d* rece`)
		if !line.MatchString(out) || strings.Contains(out, "\r\x1b[K") != terminal {
			t.Errorf("no progress in %q", out)
		}
	}
}

// With -json each line is an object. The last one has the totals.
func TestJSON(t *testing.T) {
	out := output(t, true, "-rate 1000 -duration 2.5 -json -cpus 0")
	var lines []line
	for text := range strings.Lines(out) {
		var l line
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lines = append(lines, l)
	}
	last := lines[len(lines)-1]
	if len(lines) < 2 || lines[0].Total || !last.Total || last.Frames <= 0 || last.Received == nil || *last.Received != last.Frames || math.Abs(last.BPS/last.FPS-480) > 1e-6 || last.Verdicts["XDP_TX"] != last.Frames {
		t.Errorf("have %s", out)
	}
}

// TestLost checks that frames that the target refuses are counted by reason.
func TestLost(t *testing.T) {
	need(t)
	for _, test := range []struct {
		reason string
		spoil  func(near netlink.Link) error
	}{
		{"larger than the target's MTU", func(near netlink.Link) error { return netlink.LinkSetMTU(near, 1000) }},
		{"the target is down", netlink.LinkSetDown},
	} {
		out, err := newNetwork(t).sendAfter(t, test.spoil)
		rows := totals(out)
		if err == nil || err.Error() != "every frame was lost: "+test.reason || rows["lost"] != "1000" || !strings.Contains(out, "1000: "+test.reason) {
			t.Errorf("have %v: %s", err, out)
		}
	}
}

// sendAfter sends 1,000 frames out of near, to which something happens after it was
// checked.
func (n *network) sendAfter(t *testing.T, spoil func(near netlink.Link) error) (string, error) {
	t.Helper()
	s := n.prepare(t, "-redirect near -frames 1000 -size 1500")
	defer s.close()
	if err := inNetNS(n.ns, func() error { return spoil(s.path.(*target).redirect) }); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := s.send(context.Background(), newReport(&out, false, s))
	return out.String(), err
}

// prepare gets the command ready in the network.
func (n *network) prepare(t testing.TB, args string) *sender {
	t.Helper()
	o, err := parse(strings.Fields(fmt.Sprintf("%s -netns /proc/self/fd/%d -dst-mac 02:00:00:00:00:02 -cpus 0", args, n.ns.Fd())), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s, err := prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
