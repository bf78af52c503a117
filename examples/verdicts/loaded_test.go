package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// loadFilter loads the filter as another process would, and pins it in a file system of
// its own.
func loadFilter(t *testing.T, name string) (coll *ebpf.Collection, pin string) {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := ebpf.LoadCollectionSpec(objectFile("xdp"))
	if err != nil {
		t.Fatal(err)
	}
	prune(spec, name)
	coll, err = ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	pin = filepath.Join(dir, name)
	if err := coll.Programs[name].Pin(pin); err != nil {
		t.Fatal(err)
	}
	return coll, pin
}

// A loaded program runs with its own maps, if a flag allows that.
func TestLoaded(t *testing.T) {
	needXDP(t)
	coll, pin := loadFilter(t, "xdp_filter")
	frames := func() (n uint64) {
		var perCPU []uint64
		if err := coll.Maps["verdicts"].Lookup(uint32(2), &perCPU); err != nil {
			t.Fatal(err)
		}
		for _, count := range perCPU {
			n += count
		}
		return n
	}
	info, err := coll.Programs["xdp_filter"].Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	for _, flag := range []string{"-pinned=" + pin, fmt.Sprintf("-id=%d", id)} {
		before := frames()
		r := command(t, "", "", flag)
		want := "verdicts: xdp_filter runs with the maps that it has, and may change them (protocols, verdicts), as it does in use: give -yes to allow that\n"
		if r.stderr != want || r.stdout != "" || r.status != 1 || frames() != before {
			t.Errorf("%s: %s", flag, r)
		}
		same(t, command(t, "", "", flag, "-yes"), "loaded")
		if n := frames() - before; n != 33 { // each packet that passes, once
			t.Errorf("%s -yes passed %d packets, want 33", flag, n)
		}
	}
	same(t, command(t, files(t), "", "-pinned", pin, "-yes", "-against", "xdp.o"), "loaded-against")
}

// A program without maps needs no consent.
func TestLoadedWithoutMaps(t *testing.T) {
	needXDP(t)
	_, pin := loadFilter(t, "xdp_pass")
	if r := command(t, "", "", "-pinned", pin); r.status != 0 || !strings.Contains(r.stdout, "46 packets: 46 XDP_PASS\n") {
		t.Errorf("%s", r)
	}
}

// The command refuses programs that take no packets.
func TestLoadedOther(t *testing.T) {
	needXDP(t)
	spec, err := ebpf.LoadCollectionSpec(objectFile("syscall"))
	if err != nil {
		t.Fatal(err)
	}
	prune(spec, "syscall_add")
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	info, err := coll.Programs["syscall_add"].Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	r := command(t, "", "", fmt.Sprintf("-id=%d", id))
	if r.stderr != "verdicts: syscall_add is a Syscall program, which takes no packets\n" || r.status != 1 {
		t.Errorf("%s", r)
	}
}

// The error names the privilege that is missing.
func TestPrivilege(t *testing.T) {
	needXDP(t)
	dir := files(t)
	if err := os.Chmod(filepath.Dir(built), 0o755); err != nil {
		t.Fatal(err)
	}
	r := unprivileged(t, dir)
	if !strings.Contains(r.stderr, "takes root, or CAP_BPF") || r.status != 1 {
		t.Errorf("%s", r)
	}
}
