package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	var have timingRecord
	var v any
	err := errors.Join(json.Unmarshal([]byte(r.stdout), &have), json.Unmarshal([]byte(r.stdout), &v))
	if err != nil || r.stderr != "" || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("%v, of %s", err, r)
	}
	if root := readSchema(t); root.check(root, v) != "" {
		t.Errorf("%s in %s", root.check(root.Defs["timing"], v), r)
	}
	runs := 0
	for _, bar := range have.Histogram {
		runs += bar.N
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

// A signal ends a run on a file. What was written until then is whole.
func TestInterruptFile(t *testing.T) {
	needXDP(t)
	f := fixtures{t, t.TempDir()}
	f.pcap("large.pcap", layers.LinkTypeEthernet, slices.Repeat([][]byte{make([]byte, 60)}, 20_000)...)
	var stderr bytes.Buffer
	cmd := exec.Command(built, "-pcap", "large.pcap", "-write", "out.pcap")
	cmd.Dir, cmd.Stderr = f.dir, &stderr
	list, err := cmd.StdoutPipe()
	f.check(err)
	f.check(cmd.Start())
	if _, err := io.ReadFull(list, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	f.check(cmd.Process.Signal(os.Interrupt))
	time.Sleep(200 * time.Millisecond) // the pipe is full long before the end of the list
	rest, err := io.ReadAll(list)
	f.check(err)
	_ = cmd.Wait()
	listed := bytes.Count(rest, []byte("XDP_PASS     60 bytes\n"))
	if written := len(f.packets("out.pcap")); written == 0 || written == 20_000 || written != listed {
		t.Errorf("%d packets were written, %d listed", written, listed)
	}
	if cmd.ProcessState.ExitCode() != 1 || stderr.String() != "verdicts: interrupted\n" {
		t.Errorf("exit status %d, %s", cmd.ProcessState.ExitCode(), &stderr)
	}
}

// Packets that run ahead, of both programs, stay in step with those that cannot be run.
func TestAgainstMany(t *testing.T) {
	needXDP(t)
	f := fixtures{t, files(t)}
	packet, none := f.packets("traffic.pcap")[2][14:], []byte{0x50}
	f.pcap("many.pcap", layers.LinkTypeRaw, slices.Repeat([][]byte{packet, none, packet, packet}, 20_000)...)
	r := command(t, f.dir, "", "-pcap", "many.pcap", "-program", "xdp_pass", "-against", "xdp.o:xdp_drop")
	want := "Was, 80000 packets: 60000 XDP_DROP, 20000 errors\nIs,  80000 packets: 60000 XDP_PASS, 20000 errors\nThe two programs differ on 60000 packets.\n"
	if !strings.Contains(r.stdout, want) || strings.Count(r.stdout, "XDP_PASS, was XDP_DROP\n") != 60_000 {
		t.Errorf("want %s, not %s", want, r.stdout[max(0, len(r.stdout)-500):])
	}
}

// A terminal shows how much of a capture has been read. A reader who is slow makes sure that it
// takes long enough.
func TestProgress(t *testing.T) {
	needXDP(t)
	f := fixtures{t, t.TempDir()}
	f.pcap("large.pcap", layers.LinkTypeEthernet, slices.Repeat([][]byte{make([]byte, 60)}, 20_000)...)
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	f.check(err)
	defer terminal.Close()
	n, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	f.check(err)
	f.check(unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0))
	screen, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	f.check(err)

	cmd := exec.Command(built, "-pcap", "large.pcap")
	cmd.Dir, cmd.Stderr = f.dir, screen
	list, err := cmd.StdoutPipe()
	f.check(err)
	f.check(cmd.Start())
	if _, err := io.ReadFull(list, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * progressAfter) // the pipe is full long before the end of the list
	_, err = io.Copy(io.Discard, list)
	f.check(err)
	f.check(cmd.Wait())
	screen.Close()
	shown, _ := io.ReadAll(terminal) // ends with EIO once nobody has it open
	if !bytes.Contains(shown, []byte("[=")) || !bytes.Contains(shown, []byte(" a second")) || !bytes.HasSuffix(shown, []byte("\r\x1b[K")) {
		t.Errorf("on the terminal: %q", shown)
	}
}
