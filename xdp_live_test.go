package progrun

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// emulated is whether the tests run in a virtual machine of the kernel matrix,
// where nothing is asserted about speed.
var emulated = os.Getenv("PROGRUN_KERNEL_MATRIX") == "1"

// wire is a veth pair between two network namespaces of its own.
type wire struct {
	a, b       int // the namespaces
	ifA, ifB   int // the interfaces, each in its namespace
	macA, macB net.HardwareAddr
}

// newWire makes a veth pair, both ends up. It is gone with the test.
func newWire(t testing.TB, queues int) *wire {
	t.Helper()
	needPrivilege(t)
	w := new(wire)
	inNetNS(t, func() { w.b = openCurrent(t) })
	inNetNS(t, func() {
		w.a = openCurrent(t)
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "a", queues, queues
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "b", PeerNamespace: netlink.NsFd(w.b),
			PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues)}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Errorf("add a veth pair: %v", err)
		}
		w.ifA, w.macA = up(t, "a")
		up(t, "lo")
	})
	inNS(t, w.b, func() { w.ifB, w.macB = up(t, "b") })
	if t.Failed() {
		t.FailNow()
	}
	return w
}

func openCurrent(t testing.TB) int {
	ns, err := currentNetNS()
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(ns.close)
	return ns.fd
}

func up(t testing.TB, name string) (int, net.HardwareAddr) {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Errorf("set %s up: %v", name, err)
		return 0, nil
	}
	return l.Attrs().Index, l.Attrs().HardwareAddr
}

// inNS runs f on a thread in a network namespace.
func inNS(t testing.TB, fd int, f func()) {
	t.Helper()
	inNetNS(t, func() {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			t.Errorf("join a network namespace: %v", err)
			return
		}
		f()
	})
}

// count attaches xdp_count to the far end of the wire, which makes the veth
// take XDP frames, and counts them.
func (w *wire) count(t testing.TB) *object {
	t.Helper()
	o := load(t, "xdp", "xdp_count")
	set(t, o, "verdict", 0, uint32(XDPDrop))
	inNS(t, w.b, func() { attachXDP(t, o.Program, w.ifB, link.XDPDriverMode) })
	return o
}

func attachXDP(t testing.TB, prog *ebpf.Program, ifindex int, mode link.XDPAttachFlags) {
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: mode})
	if err != nil {
		t.Errorf("attach: %v", err)
		return
	}
	t.Cleanup(func() { l.Close() })
}

// loadLive loads a program that counts its frames, if this kernel has live frames.
func loadLive(t testing.TB, program string) *object {
	t.Helper()
	need(t, HaveXDPLiveFrames())
	return load(t, "xdp", program)
}

// soon ends a test's runs should they hang.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestLiveCounts(t *testing.T) {
	for _, c := range []struct {
		name string
		live Live
		held bool
	}{
		{"one frame", Live{Frames: 1}, false},
		{"less than a batch", Live{Frames: 63}, true},
		{"a batch and one", Live{Frames: 65}, true},
		{"many", Live{Frames: 100_003}, true},
		{"batch of one", Live{Frames: 1000, BatchSize: 1}, true},
		{"largest batch", Live{Frames: 1000, BatchSize: 256}, true},
		{"one a call", Live{Frames: 1000, PerCall: 1}, false},
		{"65 a call", Live{Frames: 1000, PerCall: 65}, true},
		{"two workers", Live{Frames: 50_001, CPUs: []int{0, 1}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := loadLive(t, "xdp_drop")
			c.live.Packet = frame(64)
			stats, err := c.live.Run(soon(t), o.Program)
			if err != nil {
				t.Fatal(err)
			}
			if n := sum(t, o, "frames", 0); int64(n) != c.live.Frames || stats.Frames != c.live.Frames || stats.Uncertain != 0 {
				t.Errorf("asked for %d frames, the program saw %d, the stats say %d and %d more", c.live.Frames, n, stats.Frames, stats.Uncertain)
			}
			if stats.Held != c.held || stats.NotHeld != nil {
				t.Errorf("held %v (%v), want %v", stats.Held, stats.NotHeld, c.held)
			}
			var frames, calls int64
			for _, w := range stats.Workers {
				frames, calls = frames+w.Frames, calls+w.Calls
			}
			if frames != stats.Frames || calls != stats.Calls || stats.Batches < stats.Frames/256 || stats.Calls < 1 {
				t.Errorf("does not add up: %+v", stats)
			}
			if stats.Wall <= 0 || stats.PerFrame <= 0 || stats.FramesPerSecond() <= 0 {
				t.Errorf("no times: %+v", stats)
			}
		})
	}
}
var _ = []any{errors.New, signal.Notify, runtime.GC, pprof.StartCPUProfile, io.Discard, strings.Cut, sync.OnceFunc, syscall.Kill}
