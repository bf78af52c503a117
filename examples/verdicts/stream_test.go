package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// unprivileged runs the command as nobody.
func unprivileged(t *testing.T, dir string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(built)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// -write writes the packets as the program left them, with their times.
func TestWrite(t *testing.T) {
	needXDP(t)
	dir := files(t)
	f := fixtures{t, dir}
	in := f.packets("traffic.pcap")
	r := command(t, dir, "", "-pcap", "traffic.pcap", "-write", "out.pcap", "-only", "tx,drop")
	if r.status != 0 {
		t.Fatalf("%s", r)
	}
	out := f.packets("out.pcap")
	if len(out) != 9 || !bytes.Equal(out[0], in[15]) || bytes.Equal(out[1], in[16]) {
		t.Errorf("%d packets: want the 16th as it was, the 17th changed, of 9", len(out))
	}
	if piped := command(t, dir, "", "-pcap", "traffic.pcap", "-write", "-", "-only", "tx,drop"); piped.stdout != string(f.read(filepath.Join(dir, "out.pcap"))) {
		t.Errorf("-write - differs from -write out.pcap")
	}
	times := func(name string) (all []time.Time) {
		r, err := pcapgo.NewReader(bytes.NewReader(f.read(filepath.Join(dir, name))))
		f.check(err)
		for {
			_, info, err := r.ReadPacketData()
			if err != nil {
				return all
			}
			all = append(all, info.Timestamp)
		}
	}
	if before, after := times("traffic.pcap"), times("out.pcap"); !after[0].Equal(before[15]) {
		t.Errorf("the first has the time %v, want that of the 16th, %v", after[0], before[15])
	}
	// The Ethernet header that comes back as zeros is not written as zeros.
	if r := command(t, dir, "", "-object", "socket_filter.o", "-pcap", "traffic.pcap", "-write", "out.pcap"); r.status != 0 {
		t.Fatalf("%s", r)
	}
	if out := f.packets("out.pcap"); !bytes.Equal(out[3], in[3]) {
		t.Errorf("a packet that was not changed:\n% x, want\n% x", out[3], in[3])
	}
}

// -time prints a line of JSON.
func TestTime(t *testing.T) {
	needXDP(t)
	r := command(t, "", "", "-time")
	var have struct {
		Program, Type, Capture string
		Packets, Runs          int
		Mean                   int `json:"mean_ns"`
		Median                 int `json:"median_ns"`
		P90                    int `json:"p90_ns"`
		P99                    int `json:"p99_ns"`
		Empty                  int `json:"empty_mean_ns"`
		Histogram              []struct {
			From int `json:"from_ns"`
			Runs int
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &have); err != nil || r.stderr != "" || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("%v, of %s", err, r)
	}
	runs := 0
	for _, bar := range have.Histogram {
		runs += bar.Runs
	}
	if have.Program != "xdp_filter" || have.Type != "XDP" || have.Capture != "traffic.pcap" || have.Packets != 46 || have.Runs < 46 ||
		have.Mean == 0 || have.Empty == 0 || have.Median > have.P90 || have.P90 > have.P99 || runs != have.Runs {
		t.Errorf("%+v", have)
	}
}

// A capture that is still being made is listed as it grows. A signal ends the list as
// the end of the capture would.
func TestInterrupt(t *testing.T) {
	needXDP(t)
	traffic, err := os.ReadFile(filepath.Join(shared, "traffic.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(built, "-pcap", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const packets = 24 + 16 + 60 + 16 + 60 // the header of the file, and two packets
	if _, err := in.Write(traffic[:packets]); err != nil {
		t.Fatal(err)
	}
	var have []byte
	for b := make([]byte, 4096); !bytes.Contains(have, []byte("ARP 192.0.2.1 is at")); {
		n, err := out.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, b[:n]...)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !bytes.Contains(rest, []byte("\n2 packets: 2 XDP_PASS\n")) {
		t.Errorf("%v, after:\n%s%s", err, have, rest)
	}
}

// A terminal shows how much of a large capture has been read.
func TestProgress(t *testing.T) {
	needXDP(t)
	f := fixtures{t, t.TempDir()}
	frame := make([]byte, 60)
	packets := make([][]byte, 400_000)
	for i := range packets {
		packets[i] = frame
	}
	f.pcap("large.pcap", layers.LinkTypeEthernet, packets...)
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	n, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	f.check(err)
	f.check(unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0))
	screen, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	f.check(err)

	cmd := exec.Command(built, "-pcap", "large.pcap")
	cmd.Dir, cmd.Stderr = f.dir, screen
	f.check(cmd.Run())
	screen.Close()
	shown, _ := io.ReadAll(terminal) // ends with EIO once nobody has it open
	if !bytes.Contains(shown, []byte("[=")) || !bytes.Contains(shown, []byte(" a second")) || !bytes.HasSuffix(shown, []byte("\r\x1b[K")) {
		t.Errorf("on the terminal: %q", shown)
	}
}
