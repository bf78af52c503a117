//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/progrun/progrun/progruntest"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden compares the whole output of every kind of run, on real interfaces and
// captures, and of every mistake. The frames leave from one CPU, so that none can
// overrun a ring that another CPU empties.
func TestGolden(t *testing.T) {
	need(t)
	net := newNetwork(t)
	dir := captures(t)
	for _, test := range []struct {
		name, args string
		stdin      string
		need       func() error
	}{
		{name: "help", args: "-h"},

		// the command's own wire
		{name: "wire", args: "-frames 10k -cpus 0"},
		{name: "wire-one", args: "-frames 1"},
		{name: "wire-large", args: "-frames 1e3 -size 3300 -batch 16 -cpus 0"},
		{name: "wire-paced", args: "-frames 500 -rate 10000 -cpus 0"},
		{name: "wire-bits", args: "-frames 200 -size 125 -rate 1Mbit -cpus 0"},
		{name: "wire-tcp6", args: "-frames 5000 -proto tcp -vlan 7 -dst 2001:db8::1:0/112 -dst-port 80-89 -cpus 0"},
		{name: "wire-two-cpus", args: "-frames 1000 -cpus 0-1 -rate 10k", need: twoCPUs},
		{name: "wire-json", args: "-frames 1000 -cpus 0 -json"},
		{name: "progress", args: "-frames 2500 -rate 1000 -cpus 0"},

		// captures
		{name: "pcap", args: "-pcap traffic.pcap -loops 1 -cpus 0"},
		{name: "pcap-loops", args: "-pcap traffic.pcap -loops 100 -cpus 0"},
		{name: "pcap-frames", args: "-pcap traffic.pcap -frames 50 -cpus 0"},
		{name: "pcap-rate", args: "-pcap traffic.pcap -loops 2 -rate 1000 -cpus 0"},
		{name: "pcap-speed", args: "-pcap traffic.pcap -loops 3 -speed 100 -cpus 0"},
		{name: "pcap-speed-backwards", args: "-pcap backwards.pcap -loops 1 -speed 1000 -cpus 0"},
		{name: "pcap-json", args: "-pcap jumbo.pcap -loops 1 -cpus 0 -json"},
		{name: "pcap-gzip", args: "-pcap traffic.pcap.gz -loops 1 -cpus 0"},
		{name: "pcap-stdin", args: "-pcap - -loops 1 -cpus 0", stdin: "traffic.pcap"},
		{name: "pcapng", args: "-pcap traffic.pcapng -loops 1 -cpus 0"},
		{name: "pcap-jumbo", args: "-pcap jumbo.pcap -loops 1 -cpus 0"},
		{name: "pcap-all-jumbo", args: "-pcap alljumbo.pcap -loops 1"},
		{name: "pcap-short-packet", args: "-pcap short.pcap -loops 1 -cpus 0"},
		{name: "pcap-missing", args: "-pcap nowhere.pcap"},
		{name: "pcap-directory", args: "-pcap ."},
		{name: "pcap-empty", args: "-pcap empty.pcap"},
		{name: "pcap-13-bytes", args: "-pcap 13bytes.pcap"},
		{name: "pcap-magic", args: "-pcap magic.pcap"},
		{name: "pcap-no-packets", args: "-pcap header.pcap"},
		{name: "pcap-truncated", args: "-pcap truncated.pcap"},
		{name: "pcap-link-type", args: "-pcap sll.pcap"},

		// existing interfaces
		{name: "out-tx", args: "-i near -frames 5000"},
		{name: "out-redirect", args: "-redirect near -frames 5000"},
		{name: "out-redirect-from", args: "-i gro0 -redirect near -frames 5000"},
		{name: "out-json", args: "-i near -frames 5000 -json"},
		{name: "out-pcap", args: "-i near -pcap traffic.pcap -loops 2"},
		{name: "out-pcap-small", args: "-redirect small0 -pcap traffic.pcap -loops 2"},
		{name: "out-gro", args: "-i gro0 -frames 1000"},
		{name: "out-mtu", args: "-i near -size 1519 -frames 10"},
		{name: "out-mtu-just", args: "-i near -size 1518 -frames 10"},
		{name: "out-mtu-peer", args: "-i small0 -size 1019 -frames 10"},
		{name: "out-tap", args: "-i tap0 -src-mac 02:00:00:00:00:01 -frames 3", need: tun},
		{name: "out-tap-steps", args: "-i tap0 -src-mac 02:00:00:00:00:01 -frames 7 -src-port 5 -dst-port 80-81 -dst 192.0.2.0/31 -src 10.0.0.255-10.0.1.0 -vlan 9", need: tun},
		{name: "out-tap-tcp6", args: "-i tap0 -src-mac 02:00:00:00:00:01 -frames 3 -proto tcp -src-port 1 -dst 2001:db8::ffff:fffe/127", need: tun},
		{name: "out-tap-redirect", args: "-redirect tap0 -src-mac 02:00:00:00:00:01 -frames 1 -src-port 1", need: tun},

		// existing interfaces from which nothing could arrive
		{name: "refused-down", args: "-i down0"},
		{name: "refused-redirect-down", args: "-i near -redirect down0"},
		{name: "refused-peer-down", args: "-i half0"},
		{name: "refused-peer", args: "-i plain0", need: features},
		{name: "refused-loopback", args: "-i lo", need: features},
		{name: "refused-bridge", args: "-redirect br0", need: features},
		{name: "refused-tun", args: "-i tun0", need: tun},
		{name: "refused-missing", args: "-i nowhere0"},

		// mistakes
		{name: "bad-netns", args: "-i near -netns nowhere -dst-mac 02:00:00:00:00:02"},
		{name: "bad-netns-alone", args: "-netns x"},
		{name: "bad-no-mac", args: "-i near -netns /proc/self/fd/3"},
		{name: "bad-mac", args: "-dst-mac 02:00:00:00:00:00:00:02"},
		{name: "bad-size", args: "-size 59"},
		{name: "bad-size-headers", args: "-size 61 -vlan 1 -src ::1"},
		{name: "bad-size-page", args: "-size 60k -frames 1"},
		{name: "bad-size-large", args: "-size 2147483647"},
		{name: "bad-size-text", args: "-size big"},
		{name: "bad-duration", args: "-duration -1ns"},
		{name: "bad-duration-text", args: "-duration long"},
		{name: "bad-frames", args: "-frames -1"},
		{name: "bad-frames-part", args: "-frames 1.5"},
		{name: "bad-batch", args: "-batch 257"},
		{name: "bad-cpu", args: "-frames 1 -cpus 0,40000"},
		{name: "bad-cpus", args: "-cpus 1-0"},
		{name: "bad-rate", args: "-rate fast"},
		{name: "bad-rate-high", args: "-rate 2G"},
		{name: "bad-rate-bits", args: "-rate 0bit"},
		{name: "bad-families", args: "-src 10.0.0.1 -dst ::1"},
		{name: "bad-range", args: "-src 10.0.0.9-10.0.0.1"},
		{name: "bad-port", args: "-dst-port 65536"},
		{name: "bad-vlan", args: "-vlan 4095"},
		{name: "bad-proto", args: "-proto icmp"},
		{name: "bad-speed", args: "-speed 1"},
		{name: "bad-speed-rate", args: "-pcap traffic.pcap -speed 1 -rate 1"},
		{name: "bad-speed-cpus", args: "-pcap traffic.pcap -speed 1 -cpus 0-1"},
		{name: "bad-loops-frames", args: "-pcap traffic.pcap -loops 1 -frames 1"},
		{name: "bad-pcap-size", args: "-pcap traffic.pcap -size 64"},
		{name: "bad-flag", args: "-now"},
		{name: "bad-argument", args: "now"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.need != nil {
				progruntest.Need(t, test.need())
			}
			args := test.args
			if strings.HasPrefix(test.name, "out-") || strings.HasPrefix(test.name, "refused-") {
				args += " -netns /proc/self/fd/3 -cpus 0"
				if !strings.Contains(args, "-pcap") {
					args += " -dst-mac 02:00:00:00:00:02"
				}
			}
			cmd := command(t, dir, args)
			cmd.ExtraFiles = []*os.File{net.ns}
			if test.stdin != "" {
				stdin, err := os.Open(filepath.Join(dir, test.stdin))
				if err != nil {
					t.Fatal(err)
				}
				defer stdin.Close()
				cmd.Stdin = stdin
			}
			before := net.arrived(t)
			text := outcome(t, cmd)
			if strings.HasPrefix(test.name, "out-") {
				text += net.since(t, before)
			}
			same(t, "$ trafficgen "+args+"\n"+steady(text, test.name == "progress"), test.name)
		})
	}
}

// outcome runs a command, and returns its output and its exit status.
func outcome(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	text := stdout.String()
	if stderr.Len() > 0 {
		text += "--- standard error\n" + stderr.String()
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		text += fmt.Sprintf("--- exit status %d\n", code)
	}
	return text
}

// volatile are the parts of the output that depend on the machine: its speed, and the
// size of its pages.
var volatile = []struct {
	found   *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?m)^(sent +\d+ frames?(?: of \d+)?) in \S+`), "$1 in T"},
	{regexp.MustCompile(`(?m)^rate  .*`), "rate       N frames/s, N bit/s"},
	{regexp.MustCompile(`(?m)^( +)\d+ frames/s on CPU`), "${1}N frames/s on CPU"},
	{regexp.MustCompile(`(?m)^calls  .*`), "calls      N, of N batches"},
	{regexp.MustCompile(`(?m)^held  .*`), "held       H"},
	{regexp.MustCompile(`(?m)^limited by .*`), "limited by L"},
	{regexp.MustCompile(`(?m)^missed  .*`), "missed     N"},
	{regexp.MustCompile(`"(seconds|missed|frames_per_second|bits_per_second|calls|batches)":[0-9.e+]+`), `"$1":N`},
	{regexp.MustCompile(`\d+ bytes that fit the (page of a live frame|veth pair)`), "N bytes that fit the W"},
	{regexp.MustCompile(`fit the (page of a live frame|veth pair): at most \d+ bytes`), "fit the W: at most N bytes"},
	{regexp.MustCompile(`"held":(true|false)`), `"held":H`},
	{regexp.MustCompile(`"limited_by":"[^"]+"`), `"limited_by":"L"`},
}

// progressLines match the progress of any number of seconds.
var progressLines = regexp.MustCompile(`(?m)((^ +\d+\.\d s  \d+ frames/s  \S+ [kMG]?bit/s  0 lost  \d+ sent(  \d+ received)?  (none|\d+ XDP_\w+)|^{"seconds".*"lost":{}.*)\n)+`)

// steady replaces what depends on the machine. It leaves the progress out,
// or a single line of it.
func steady(text string, progress bool) string {
	line := ""
	if progress {
		line = "  T s  N frames/s  N bit/s  0 lost  N sent  N received  N XDP_TX\n"
	}
	text = progressLines.ReplaceAllString(text, line)
	for _, v := range volatile {
		text = v.found.ReplaceAllString(text, v.instead)
	}
	return text
}

// same compares a text with a golden file, or writes that.
func same(t *testing.T, have, name string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Errorf("%s (-update writes it):\n%s\nhave:\n%s", file, want, have)
	}
}
