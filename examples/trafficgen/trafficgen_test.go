//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
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
func need(t *testing.T) {
	t.Helper()
	progruntest.Need(t, progrun.HaveXDPLiveFrames())
}

// output returns what the command prints. It fails the test if the command fails.
func output(t *testing.T, terminal bool, args ...string) string {
	t.Helper()
	need(t)
	out, err := command(terminal, args...)
	if err != nil {
		t.Fatalf("%v, after:\n%s", err, out)
	}
	t.Log("\n" + out)
	return out
}

// command runs the command in this process, and returns what it printed.
func command(terminal bool, args ...string) (string, error) {
	var out bytes.Buffer
	o, err := parse(args, &out)
	if err == nil {
		err = run(context.Background(), o, &out, terminal)
	}
	return out.String(), err
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

// All frames that were sent arrive.
func TestFrames(t *testing.T) {
	for _, args := range [][]string{
		{"-frames", "10k"},
		{"-frames", "10000", "-size", "1514", "-cpus", "0", "-batch", "16"},
		{"-frames", "1e3", "-size", "3300", "-rate", "10000"},
		{"-frames", "1"},
		{"-frames", "5000", "-proto", "tcp", "-vlan", "7", "-src", "2001:db8::1", "-dst", "2001:db8::1:0/112", "-dst-port", "80-89"},
		{"-frames", "920", "-pcap", testPcap},
		{"-frames", "92", "-pcap", testPcap, "-rate", "1000"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			rows := totals(output(t, false, append(args, "-duration", "0")...))
			asked, err := parseCount(args[1])
			if err != nil || number(rows["sent"]) != asked || number(rows["received"]) != asked || rows["lost"] != "0" {
				t.Errorf("asked for %d frames, have %v", asked, rows)
			}
		})
	}
}

// testPcap is a capture with packets from 14 to 1,514 bytes.
const testPcap = "../../testdata/traffic.pcap"

// A capture is sent unchanged, as often as asked, at its own times.
func TestReplay(t *testing.T) {
	packets := int64(46)
	for _, test := range []struct {
		args  []string
		loops int64
	}{
		{[]string{"-loops", "1"}, 1},
		{[]string{"-loops", "100"}, 100},
		{[]string{"-loops", "3", "-speed", "100"}, 3},
	} {
		out := output(t, false, append(test.args, "-pcap", testPcap, "-duration", "20")...)
		rows := totals(out)
		if n := test.loops * packets; number(rows["sent"]) != n || number(rows["received"]) != n || rows["verdicts"] != fmt.Sprintf("%d XDP_TX", n) || rows["missed"] != "0" {
			t.Errorf("%v: have %s", test.args, out)
		}
	}
}

// The end of -duration is no error, and the progress is shown.
func TestDuration(t *testing.T) {
	for _, args := range [][]string{
		{"-rate", "1000", "-duration", "1.2"},
		{"-rate", "1k", "-duration", "1200ms", "-frames", "1e12"},
	} {
		for _, terminal := range []bool{false, true} {
			out := output(t, terminal, args...)
			rows := totals(out)
			if n := number(rows["sent"]); n <= 0 || n != number(rows["received"]) || rows["lost"] != "0" {
				t.Errorf("have %v", rows)
			}
			line := regexp.MustCompile(`[1-9]\d* sent  [1-9]\d* received  0 lost  [1-9]\d* XDP_TX  \d+ frames/s  \S+ [kM]bit/s\n`)
			if !line.MatchString(out) || strings.Contains(out, "\r\x1b[K") != terminal {
				t.Errorf("no progress in %q", out)
			}
		}
	}
}

// With -json each line is an object. The last one has the totals.
func TestJSON(t *testing.T) {
	out := output(t, true, "-rate", "1000", "-duration", "1.2", "-json")
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
	if len(lines) < 2 || lines[0].Total || !last.Total || last.Frames < 500 || last.Received == nil || *last.Received != last.Frames || math.Abs(last.BPS/last.FPS-480) > 1e-6 || last.Verdicts["XDP_TX"] != last.Frames {
		t.Errorf("have %s", out)
	}
}

// A mistake ends the command with one sentence, before it makes anything.
func TestMistakes(t *testing.T) {
	need(t)
	for _, test := range []struct{ args, want string }{
		{"-size 59", "a frame of 59 bytes is too small: the least is 60"},
		{"-size 61 -vlan 1 -src ::1 -dst ::2", "a frame of 61 bytes is too small: the least is 66"},
		{"-duration -1ns", "the duration cannot be negative: -1ns"},
		{"-size 9000 -frames 1", "progrun: Live.Packet: 9000 bytes: "},
		{"-frames -1", `invalid value "-1" for flag -frames: -1 is negative`},
		{"-frames 1.5", `invalid value "1.5" for flag -frames: 1.5 is not a whole number`},
		{"-batch 257", "a batch has 1 to 256 frames, not 257"},
		{"-frames 1 -cpus 0,40000", "progrun: Live.CPUs: 40000: no such CPU is online"},
		{"-cpus 1-0", `invalid value "1-0" for flag -cpus: "1-0" is neither a CPU nor a range of CPUs`},
		{"-rate fast", `invalid value "fast" for flag -rate: "fast" is not a number such as 1000000, 1e6 or 1M`},
		{"-rate 2G", `invalid value "2G" for flag -rate: 2G is more than 1,000,000,000 frames a second`},
		{"-i nowhere0", "-dst-mac is missing: it is the address of the receiver"},
		{"-i nowhere0 -dst-mac 02:00:00:00:00:01", "no interface nowhere0: "},
		{"-i lo -netns nowhere0 -dst-mac 02:00:00:00:00:01", "no network namespace nowhere0: "},
		{"-netns x", "-netns goes with -i or -redirect"},
		{"-src 10.0.0.1 -dst ::1", "-src 10.0.0.1 and -dst ::1 are of different families"},
		{"-src 10.0.0.9-10.0.0.1", `invalid value "10.0.0.9-10.0.0.1" for flag -src: `},
		{"-speed 1", "-speed and -loops go with -pcap"},
		{"-pcap " + testPcap + " -size 64", "-size does not go with -pcap"},
		{"-pcap " + testPcap + " -speed 1 -rate 1", "-rate and -speed both say"},
		{"-pcap flags.go", "flags.go: neither a pcap nor a pcapng file: "},
		{"-pcap nowhere.pcap", "open nowhere.pcap: no such file or directory"},
		{"now", `unexpected argument "now"`},
	} {
		out, err := command(false, strings.Fields(test.args)...)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("%s\nhave %v\nwant %s%s", test.args, err, test.want, out)
		}
	}
}

// However the command ends, it leaves nothing behind, even if it is killed.
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
			defer func() { _ = cmd.Process.Kill() }() // in case the test fails before
			lines := bufio.NewScanner(out)
			for range 2 { // a headline, and the first progress
				if !lines.Scan() {
					t.Fatalf("no progress: %s", &complaints)
				}
			}
			have := thingsOf(t, cmd.Process.Pid)
			// The two ends, the receiver's link and those of the tracepoints; and a
			// link of the Hold, whose namespace a socket keeps. The sixth program
			// counts the verdicts.
			if len(have.namespaces) != 2 || len(have.links) != 4 || len(have.programs) != 6 {
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
			// The kernel releases some objects a moment later, and may give the number
			// of a namespace to a new one.
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

// things are the kernel objects of a process that must not outlive it.
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

// left returns the names of the objects that still exist.
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

// Every generated frame has right checksums, and the flows follow one another.
func TestGenerate(t *testing.T) {
	need(t)
	for _, args := range []string{
		"",
		"-proto tcp -src 10.0.0.1-10.0.0.3 -dst 10.0.255.0/30 -src-port 5",
		"-vlan 9 -src-port 65535 -dst-port 1-3 -src 10.255.255.254-11.0.0.3",
		"-src 2001:db8::ffff:ffff -dst 2001:db8::/125 -size 100",
		"-src ::1 -dst ::2 -proto tcp -vlan 4094 -size 1000 -dst-port 80-81",
	} {
		t.Run(args, func(t *testing.T) {
			o, err := parse(strings.Fields(args), new(bytes.Buffer))
			if err != nil {
				t.Fatal(err)
			}
			w := new(wire)
			l, err := o.load(w)
			if err != nil {
				t.Fatal(err)
			}
			progs, err := loadPrograms(l, w)
			if err != nil {
				t.Fatal(err)
			}
			defer progs.close()
			flows := map[string]bool{}
			runtime.LockOSThread() // each CPU begins at a flow of its own
			defer runtime.UnlockOSThread()
			for range 200 {
				res, err := progrun.XDP{Packet: l.template.frame}.Run(progs.Generate)
				if err != nil || res.Action != progrun.XDPTX {
					t.Fatal(res.Action, err)
				}
				flows[checkFrame(t, res.Packet, o.packet.size)] = true
			}
			if want := min(int(l.flows()), 200); len(flows) < want*9/10 {
				t.Errorf("%d flows, want %d", len(flows), want)
			}
		})
	}
}

// checkFrame checks a frame's length and checksums, and returns its flow.
func checkFrame(t *testing.T, b []byte, size int) string {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
	if len(b) != size || p.ErrorLayer() != nil || p.NetworkLayer() == nil || p.TransportLayer() == nil {
		t.Fatalf("%d bytes: %v", len(b), p)
	}
	switch l4 := p.TransportLayer().(type) {
	case *layers.UDP:
		_ = l4.SetNetworkLayerForChecksum(p.NetworkLayer())
	case *layers.TCP:
		_ = l4.SetNetworkLayerForChecksum(p.NetworkLayer())
	}
	err, mismatches := p.VerifyChecksums()
	if err != nil || len(mismatches) > 0 {
		t.Fatalf("checksums: %v, %+v\n%v", err, mismatches, p)
	}
	return fmt.Sprint(p.NetworkLayer().NetworkFlow(), p.TransportLayer().TransportFlow())
}

// pair makes a veth pair in a namespace, and returns the namespace's name.
func pair(t *testing.T, prepare func(near, far netlink.Link) error) string {
	t.Helper()
	need(t)
	ns, err := newNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() }) // and everything in it
	err = (&end{ns: ns}).inside(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "near"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far"}); err != nil {
			return err
		}
		near, err := netlink.LinkByName("near")
		if err != nil {
			return err
		}
		far, err := netlink.LinkByName("far")
		if err != nil {
			return err
		}
		return prepare(near, far)
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
}

func up(links ...netlink.Link) error {
	for _, l := range links {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// receiver attaches an XDP program that drops and counts.
func receiver(t *testing.T, l netlink.Link) (*programs, error) {
	w := new(wire)
	progs, err := loadPrograms(&load{packets: [][]byte{make([]byte, 60)}}, w)
	if err != nil {
		return nil, err
	}
	t.Cleanup(progs.close)
	at, err := link.AttachXDP(link.XDPOptions{Program: progs.Receive, Interface: l.Attrs().Index, Flags: link.XDPDriverMode})
	if err == nil {
		progs.links = append(progs.links, at)
	}
	return progs, err
}

// Frames leave by an existing interface, by XDP_TX and by a redirect.
func TestInterface(t *testing.T) {
	var progs *programs
	ns := pair(t, func(near, far netlink.Link) (err error) {
		if err = up(near, far); err == nil {
			progs, err = receiver(t, far)
		}
		return err
	})
	for _, how := range []string{"-i", "-redirect"} {
		before := sum(progs.Received, 0)
		out := output(t, false, how, "near", "-netns", ns, "-dst-mac", "02:00:00:00:00:02", "-frames", "5000", "-duration", "0")
		rows := totals(out)
		if _, ok := rows["received"]; ok || number(rows["sent"]) != 5000 || rows["lost"] != "0" || !strings.Contains(out, "out of near") {
			t.Errorf("have %s", out)
		}
		if n := progs.settled(before+5000) - before; n < 5000 {
			t.Errorf("%s: %d of 5000 frames arrived", how, n)
		}
	}
}

// The command refuses a target that would lose every frame, and says why.
func TestLookAhead(t *testing.T) {
	for _, test := range []struct {
		name, want string
		args       []string
		prepare    func(near, far netlink.Link) error
	}{
		{"down", "near is down, so no frame could leave by it: ip link set near up", nil,
			func(near, far netlink.Link) error { return nil }},
		{"peer down", "near has no carrier, so no frame could arrive: is its other end up?", nil,
			func(near, far netlink.Link) error { return up(near) }},
		{"peer without XDP", "the peer of near takes no XDP frames, and all would be lost: ", nil,
			func(near, far netlink.Link) error { return up(near, far) }},
		{"MTU", "a frame of 1600 bytes does not fit the MTU of near, 1500: at most 1518 bytes", []string{"-size", "1600"},
			func(near, far netlink.Link) error { return up(near, far) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := pair(t, test.prepare)
			args := append([]string{"-i", "near", "-netns", ns, "-dst-mac", "02:00:00:00:00:02", "-frames", "10"}, test.args...)
			out, err := command(false, args...)
			if test.name == "peer without XDP" && err == nil && noXDPFeatures(ns) {
				t.Skip("this kernel does not tell what an interface can do for XDP (Linux 6.3)")
			}
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || out != "" {
				t.Errorf("have %v%s\nwant %s", err, out, test.want)
			}
		})
	}
}

// noXDPFeatures reports whether the kernel does not tell what interfaces can do for
// XDP.
func noXDPFeatures(string) bool {
	_, err := xdpFeatures(1)
	return err != nil
}

// Frames that the target refuses are counted by reason.
func TestLost(t *testing.T) {
	var progs *programs
	var near netlink.Link
	ns := pair(t, func(n, far netlink.Link) (err error) {
		near = n
		if err = up(n, far); err == nil {
			progs, err = receiver(t, far)
		}
		return err
	})
	o, err := parse([]string{"-redirect", "near", "-netns", ns, "-dst-mac", "02:00:00:00:00:02", "-frames", "1000", "-size", "1500"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.path()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	// The target's MTU becomes too small after the command has looked at it.
	if err := p.(*target).inside(func() error { return netlink.LinkSetMTU(near, 1000) }); err != nil {
		t.Fatal(err)
	}
	l, err := o.load(p)
	if err != nil {
		t.Fatal(err)
	}
	sending, err := loadPrograms(l, p)
	if err == nil {
		defer sending.close()
		err = sending.watchLoss()
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := sender{options: o, load: l, path: p, programs: sending}
	if err := s.send(context.Background(), newReport(&out, false, &s)); err != nil {
		t.Fatal(err)
	}
	rows := totals(out.String())
	if rows["lost"] != "1000" || !strings.Contains(out.String(), "1000: larger than the target's MTU") || sum(progs.Received, 0) > 100 {
		t.Errorf("have %s", &out)
	}
}

func TestTotals(t *testing.T) {
	var out bytes.Buffer
	received := int64(1010)
	r := &report{out: &out, sender: &sender{options: options{frames: 2000}, load: &load{packets: [][]byte{make([]byte, 125)}}}}
	l := line{Received: &received, Lost: map[string]int64{"no route": 3}, Verdicts: map[string]int64{"XDP_TX": 990, "XDP_DROP": 10}, FPS: 2000, BPS: 2e6}
	r.rows(l, progrun.LiveStats{
		Frames: 1000, Uncertain: 64, Missed: 3, Batches: 17, Calls: 2, Wall: 500 * time.Millisecond,
		HoldErr: errors.New("full"), LimitedBy: progrun.LimitDispatcher,
	})
	want := `sent       1000 frames of 2000 in 500ms, and up to 64 more
received   1010
lost       0, and up to 54 more
           3: no route
verdicts   10 XDP_DROP, 990 XDP_TX
rate       2000 frames/s, 2 Mbit/s
calls      2, of 17 batches
held       no: full
limited by XDP dispatcher
missed     3
`
	if out.String() != want {
		t.Errorf("have %s\nwant %s", &out, want)
	}
}

func TestValues(t *testing.T) {
	if cpus, err := parseCPUs("0-3, 6,5"); err != nil || !slices.Equal(cpus, []int{0, 1, 2, 3, 6, 5}) {
		t.Errorf("have %v, %v", cpus, err)
	}
	for _, list := range []string{"", "0,", "-1", "3-", "x", "0-1,1"} {
		if cpus, err := parseCPUs(list); err == nil {
			t.Errorf("%q gave %v", list, cpus)
		}
	}
	for s, want := range map[string]int{"1M": 1e6, "1e6": 1e6, "1.5k": 1500, "2,000": 2000, "0": 0, "10Gbit": 10_000_000, "1kbit": 1, "8Mbps": 8000} {
		if r, err := parseRate(s); err != nil || r.of(125) != want {
			t.Errorf("%s: have %d, %v, want %d", s, r.of(125), err, want)
		}
	}
	for s, want := range map[string]time.Duration{"5": 5 * time.Second, "0.5": time.Second / 2, "1m": time.Minute, "3ms": 3 * time.Millisecond} {
		if d, err := parseDuration(s); err != nil || d != want {
			t.Errorf("%s: have %v, %v", s, d, err)
		}
	}
}
