//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/progrun/progrun"
)

// asCommand in the environment makes the test binary the command.
const asCommand = "TRAFFICGEN_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// need skips a test that sends frames where that cannot be.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("PROGRUN_REQUIRE") == "1" {
			t.Fatal("PROGRUN_REQUIRE=1, but the tests do not run as root")
		}
		t.Skip("makes namespaces and loads BPF programs: run the tests as root")
	}
	if err := progrun.HaveXDPLiveFrames(); errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
}

// output runs the command without a process of its own.
func output(t *testing.T, ctx context.Context, o options, terminal bool) string {
	t.Helper()
	need(t)
	var out bytes.Buffer
	if err := run(ctx, o, &out, terminal); err != nil {
		t.Fatalf("%v, after:\n%s", err, &out)
	}
	t.Log("\n" + out.String())
	return out.String()
}

// totals are the last lines, by their first word.
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

// number is the one that a row begins with, or -1.
func number(row string) int64 {
	n, err := strconv.ParseInt(regexp.MustCompile(`^\d+`).FindString(row), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// What was sent arrives.
func TestFrames(t *testing.T) {
	for _, o := range []options{
		{frames: 10_000, size: minSize},
		{frames: 10_000, size: 1514, cpus: []int{0}, batch: 16},
		{frames: 1_000, size: 3300, rate: 10_000},
		{frames: 1, size: minSize},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			rows := totals(output(t, context.Background(), o, false))
			if number(rows["sent"]) != o.frames || number(rows["received"]) != o.frames || rows["lost"] != "0" {
				t.Errorf("asked for %d frames, have %v", o.frames, rows)
			}
		})
	}
}

// The end of the context is no error, and the progress is there.
func TestDuration(t *testing.T) {
	for _, o := range []options{
		{size: minSize, rate: 1000, duration: 1200 * time.Millisecond},
		{size: minSize, rate: 1000, duration: 1200 * time.Millisecond, frames: 1 << 40},
	} {
		for _, terminal := range []bool{false, true} {
			out := output(t, context.Background(), o, terminal)
			rows := totals(out)
			if n := number(rows["sent"]); n <= 0 || n != number(rows["received"]) || rows["lost"] != "0" {
				t.Errorf("have %v", rows)
			}
			line := regexp.MustCompile(`[1-9]\d* sent  [1-9]\d* received  \d+ frames/s\n`)
			if !line.MatchString(out) || strings.Contains(out, "\r\x1b[K") != terminal {
				t.Errorf("no progress in %q", out)
			}
		}
	}
}

// Mistakes end in one sentence.
func TestMistakes(t *testing.T) {
	need(t)
	for _, test := range []struct {
		o    options
		want string
	}{
		{options{size: 59}, "a frame of 59 bytes is too small: the least is 60"},
		{options{size: minSize, duration: -1}, "the duration cannot be negative, as -1ns is"},
		{options{size: 9000, frames: 1}, "progrun: Live.Packet: 9000 bytes: "},
		{options{size: minSize, frames: -1}, "progrun: Live.Frames: -1: it cannot be negative: invalid argument"},
		{options{size: minSize, frames: 1, batch: 257}, "progrun: Live.BatchSize: 257: over the kernel's 256: argument list too long"},
		{options{size: minSize, frames: 1, cpus: []int{0, 1 << 20}}, "progrun: Live.CPUs: 1048576: no such CPU is online"},
	} {
		err := run(context.Background(), test.o, new(bytes.Buffer), false)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("have %v\nwant %s", err, test.want)
		}
	}
}

// Whatever ends the command, nothing is left of what it made. That is more
// than it can take care of itself.
func TestNothingIsLeft(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			need(t)
			cmd := exec.Command("/proc/self/exe", "-duration", "0", "-rate", "200000")
			cmd.Env = append(os.Environ(), asCommand+"=1")
			var complaints bytes.Buffer
			cmd.Stderr = &complaints
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill() }() // if the test has failed before
			lines := bufio.NewScanner(out)
			for range 2 { // a headline, and the first progress
				if !lines.Scan() {
					t.Fatalf("no progress: %s", &complaints)
				}
			}
			have := thingsOf(t, cmd.Process.Pid)
			// The two ends and the receiver's link; and a link of the Hold, whose
			// namespace a socket keeps.
			if len(have.namespaces) != 2 || len(have.links) != 2 || len(have.programs) != 2 {
				t.Fatalf("while it runs: %+v", have)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			var rest strings.Builder
			for lines.Scan() {
				fmt.Fprintln(&rest, lines.Text())
			}
			err = cmd.Wait()
			if sig != syscall.SIGKILL {
				rows := totals("\n" + rest.String())
				if err != nil || complaints.Len() > 0 || number(rows["sent"]) <= 0 || number(rows["sent"]) != number(rows["received"]) {
					t.Errorf("ended with %v, %s%s", err, &rest, &complaints)
				}
			}
			// The kernel lets go of some things a moment later, and may give the
			// number of a namespace to a new one of somebody else.
			left := have.left(t)
			for end := time.Now().Add(5 * time.Second); left != "" && time.Now().Before(end); left = have.left(t) {
				time.Sleep(10 * time.Millisecond)
			}
			if left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// things are what a process has of what must not outlive it.
type things struct {
	namespaces      []string // as in net:[4026531840]
	links, programs []uint32
}

func thingsOf(t *testing.T, pid int) things {
	t.Helper()
	var have things
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if ns, err := os.Readlink(fd); err == nil && strings.HasPrefix(ns, "net:[") && ns != own && !slices.Contains(have.namespaces, ns) {
			have.namespaces = append(have.namespaces, ns)
		}
		info, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(fd)), "fdinfo", filepath.Base(fd)))
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(info)) {
			name, value, _ := strings.Cut(line, ":")
			id, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			switch {
			case name == "link_id":
				have.links = append(have.links, uint32(id))
			case name == "prog_id" && !bytes.Contains(info, []byte("link_id")) && !slices.Contains(have.programs, uint32(id)):
				have.programs = append(have.programs, uint32(id)) // once, however many descriptors it has
			}
		}
	}
	return have
}

// left names what is still there.
func (have things) left(t *testing.T) string {
	t.Helper()
	var left []string
	for _, id := range have.links {
		if l, err := link.NewFromID(link.ID(id)); err == nil {
			l.Close()
			left = append(left, fmt.Sprintf("link %d", id))
		}
	}
	for _, id := range have.programs {
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
			p.Close()
			left = append(left, fmt.Sprintf("program %d", id))
		}
	}
	// Namespaces live on by threads, files and mounts.
	for _, pattern := range []string{"/proc/[0-9]*/task/*/ns/net", "/proc/[0-9]*/fd/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if ns, err := os.Readlink(name); err == nil && slices.Contains(have.namespaces, ns) {
				left = append(left, name)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range have.namespaces {
		if bytes.Contains(mounts, []byte(ns)) {
			left = append(left, "a mount of "+ns)
		}
	}
	for _, name := range []string{nearName, farName} {
		if _, err := net.InterfaceByName(name); err == nil {
			left = append(left, name)
		}
	}
	return strings.Join(left, ", ")
}

// The frame is what the programs take it for.
func TestPacket(t *testing.T) {
	w := &wire{near: end{mac: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, far: end{mac: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
	for _, size := range []int{minSize, 1514} {
		b, err := newPacket(w, size)
		if err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
		ip, _ := p.NetworkLayer().(*layers.IPv4)
		udp, _ := p.TransportLayer().(*layers.UDP)
		if len(b) != size || p.ErrorLayer() != nil || ip == nil || udp == nil {
			t.Fatalf("%d bytes: %v", len(b), p)
		}
		if int(ip.Length) != size-ethernetHeader || int(udp.Length) != size-headers+8 || udp.DstPort != discard || udp.Checksum != 0 {
			t.Errorf("%v", p)
		}
		if err, checksum := ip.VerifyChecksum(); err != nil || !checksum.Valid {
			t.Errorf("checksum: %v, %+v", err, checksum)
		}
	}
}

func TestTotals(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &out, asked: 2000}
	r.totals(progrun.LiveStats{
		Frames: 1000, Uncertain: 64, Missed: 3, Batches: 17, Calls: 2, Wall: 500 * time.Millisecond,
		HoldErr: errors.New("full"), LimitedBy: progrun.LimitDispatcher,
	}, 1010)
	want := `
sent       1000 frames of 2000 in 500ms, and up to 64 more
received   1010
lost       0, and up to 54 more
rate       2000 frames/s
calls      2, of 17 batches
held       no: full
limited by XDP dispatcher
missed     3
`
	if out.String() != want {
		t.Errorf("have %s\nwant %s", &out, want)
	}
}

func TestCPUs(t *testing.T) {
	if cpus, err := parseCPUs("0, 3,1"); err != nil || !slices.Equal(cpus, []int{0, 3, 1}) {
		t.Errorf("have %v, %v", cpus, err)
	}
	for _, list := range []string{"", "0,", "-1", "0-3", "x"} {
		if cpus, err := parseCPUs(list); err == nil {
			t.Errorf("%q gave %v", list, cpus)
		}
	}
}
