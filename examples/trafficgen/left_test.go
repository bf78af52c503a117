//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// TestNothingIsLeft ends the command in every way, and checks that it leaves nothing.
func TestNothingIsLeft(t *testing.T) {
	need(t)
	n := newNetwork(t)
	for _, test := range []struct {
		args string
		// What it has while it runs: of its own wire, the two ends and the receiver's
		// link; those of the tracepoints; and a link of the Hold, whose namespace a
		// socket keeps.
		namespaces, links int
	}{
		{"-duration 0 -rate 200000", 2, 4},
		{"-duration 0 -rate 200000 -i near -dst-mac 02:00:00:00:00:02 -netns /proc/self/fd/3", 0, 3},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprint(test.args, " ", sig), func(t *testing.T) {
				r := start(t, n, test.args)
				have := thingsOf(t, r.Process.Pid, n)
				if len(have.namespaces) != test.namespaces || len(have.links) != test.links || len(have.programs) < 6 || len(have.maps) < 3 {
					t.Errorf("while it runs: %+v", have)
				}
				r.end(t, sig)
				have.mustGo(t)
			})
		}
	}
}

// running is a command that is sending.
type running struct {
	*exec.Cmd
	lines      *bufio.Scanner
	complaints bytes.Buffer
}

// start starts the command, and waits for its first progress.
func start(t *testing.T, n *network, args string) *running {
	t.Helper()
	r := &running{Cmd: command(t, "", args)}
	r.Stderr = &r.complaints
	r.ExtraFiles = []*os.File{n.ns}
	out, err := r.StdoutPipe()
	if err == nil {
		err = r.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Process.Kill() }) // in case the test fails before
	r.lines = bufio.NewScanner(out)
	for range 2 { // a headline, and the progress
		if !r.lines.Scan() {
			t.Fatalf("no progress: %s", &r.complaints)
		}
	}
	return r
}

// end ends the command with a signal. If the command can see the signal, it prints the
// totals.
func (r *running) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := r.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	var rest strings.Builder
	for r.lines.Scan() {
		fmt.Fprintln(&rest, r.lines.Text())
	}
	err := r.Wait()
	if sig == syscall.SIGKILL {
		return
	}
	rows := totals("\n" + rest.String())
	if err != nil || r.complaints.Len() > 0 || number(rows["sent"]) <= 0 {
		t.Errorf("ended with %v, %s%s", err, &rest, &r.complaints)
	}
}

// things are the kernel objects of a process that must not outlive it.
type things struct {
	namespaces            []string // as in net:[4026531840]
	links, programs, maps []uint32
}

// mustGo checks that nothing of it is left. The kernel releases some objects
// a moment later, and may give the number of a namespace to a new one.
func (have things) mustGo(t *testing.T) {
	t.Helper()
	left := have.left(t)
	for end := time.Now().Add(20 * time.Second); left != "" && time.Now().Before(end); left = have.left(t) {
		time.Sleep(10 * time.Millisecond)
	}
	if left != "" {
		t.Errorf("left: %s", left)
	}
}

// thingsOf lists what a process has that neither the test nor n has.
func thingsOf(t *testing.T, pid int, n *network) things {
	t.Helper()
	var have things
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	given, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if ns, err := os.Readlink(fd); err == nil && strings.HasPrefix(ns, "net:[") && ns != own && ns != given && !slices.Contains(have.namespaces, ns) {
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
			case name == "map_id" && !slices.Contains(have.maps, uint32(id)):
				have.maps = append(have.maps, uint32(id))
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
	// To open what is going away could keep it: a kernel that clears an array of
	// programs twice at a time never lets go of it.
	for _, id := range have.programs {
		if next, err := ebpf.ProgramGetNextID(ebpf.ProgramID(id - 1)); err == nil && next == ebpf.ProgramID(id) {
			left = append(left, fmt.Sprintf("program %d", id))
		}
	}
	for _, id := range have.maps {
		if next, err := ebpf.MapGetNextID(ebpf.MapID(id - 1)); err == nil && next == ebpf.MapID(id) {
			left = append(left, fmt.Sprintf("map %d", id))
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
