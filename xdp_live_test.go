package progrun

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// emulated reports whether the tests run in a virtual machine of the kernel matrix,
// where they assert nothing about speed.
var emulated = os.Getenv("PROGRUN_KERNEL_MATRIX") == "1"

// atBest checks that a measurement of speed is good if the machine lets it. Under
// emulation it only makes the measurement.
func atBest(t *testing.T, what string, try func() (well bool)) {
	t.Helper()
	if emulated {
		try()
	} else {
		eventually(t, what, try)
	}
}

// eventually checks that a measurement is good if the machine lets it. Other processes,
// such as tests of other packages, can only make it worse. So one good try is enough,
// and there are pauses in which others can finish. If no try is good, the test fails
// unless others used much of the machine all the time.
func eventually(t *testing.T, what string, try func() (well bool)) {
	t.Helper()
	const tries = 12
	others := othersTime(t)
	begin := time.Now()
	for i := range tries {
		if try() {
			return
		}
		time.Sleep(time.Duration(i) * 100 * time.Millisecond)
	}
	all := time.Since(begin) * time.Duration(runtime.NumCPU())
	share := float64(othersTime(t)-others) / float64(all)
	text := fmt.Sprintf("%s: not in one of %d tries; others had %.0f %% of the machine", what, tries, 100*share)
	if share > 0.1 { // a fifth of one CPU of two
		t.Log(text)
	} else {
		t.Error(text)
	}
}

// othersTime returns how much CPU time all processes but this one and its children have
// used, including other virtual machines.
func othersTime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	var user, nice, system, idle, iowait, irq, softirq, steal time.Duration
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		t.Fatalf("/proc/stat: %v", err)
	}
	return (user+nice+system+irq+softirq+steal)*tick - cpuTime(t, unix.RUSAGE_SELF) - cpuTime(t, unix.RUSAGE_CHILDREN)
}

func cpuTime(t *testing.T, whose int) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(whose, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// wire is a veth pair between two network namespaces of its own.
type wire struct {
	a, b       int // the namespaces
	ifA, ifB   int // the interfaces, each in its namespace
	macA, macB net.HardwareAddr
}

// newWire makes a veth pair with both ends up, and removes it when the test ends.
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
	ns := currentNetNS()
	if ns.err != nil {
		t.Error(ns.err)
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

// count attaches xdp_count to the far end of the wire. It makes the veth accept XDP
// frames, and counts them.
func (w *wire) count(t testing.TB) *object {
	t.Helper()
	o := load(t, "xdp", "xdp_count_ours")
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

// loadLive loads a program that counts its frames. It skips the test if this kernel has
// no live frames.
func loadLive(t testing.TB, program string) *object {
	t.Helper()
	need(t, HaveXDPLiveFrames())
	return load(t, "xdp", program)
}

// soon returns a context that ends the runs of a test in case they hang.
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
			if stats.Held != c.held || stats.HoldErr != nil {
				t.Errorf("held %v (%v), want %v", stats.Held, stats.HoldErr, c.held)
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

// liveCount returns how many frames the program itself has counted.
func liveCount(t testing.TB, o *object) int64 { return int64(sum(t, o, "frames", 0)) }

// wantExact checks that the stats agree with the program's own count, and that it is at
// least as many frames as asked.
func wantExact(t *testing.T, o *object, stats LiveStats, err error, frames int64) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	if n := liveCount(t, o); n != stats.Frames || stats.Uncertain != 0 || n != frames {
		t.Errorf("asked for %d frames, the program saw %d, the stats say %d and up to %d more", frames, n, stats.Frames, stats.Uncertain)
	}
}

// many returns a number of frames that takes a while. It is smaller under emulation.
func many() int64 {
	if emulated {
		return 200_000
	}
	return 5_000_000
}

// disturb calls f at intervals until the test ends.
func disturb(t *testing.T, every time.Duration, f func()) {
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		for {
			select {
			case <-stop:
				return
			case <-time.After(every):
				f()
			}
		}
	}()
	t.Cleanup(func() { close(stop); done.Wait() })
}

// signalThreads sends a signal to every thread of this process.
func signalThreads(t *testing.T, sig syscall.Signal) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.Tgkill(unix.Getpid(), tid, sig) // the thread may be gone
		}
	}
}

func TestLiveExactUnderSignals(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, unix.SIGUSR1, unix.SIGCHLD, unix.SIGWINCH)
	t.Cleanup(func() { signal.Stop(ignored) })
	disturb(t, 500*time.Microsecond, func() {
		_ = unix.Kill(unix.Getpid(), unix.SIGUSR1)
		signalThreads(t, unix.SIGCHLD)
		signalThreads(t, unix.SIGURG)
		signalThreads(t, unix.SIGWINCH)
	})
	stats, err := Live{Packet: frame(64), Frames: many()}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, many())
}

func TestLiveExactUnderProfile(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	disturb(t, time.Microsecond, func() {
		for range 100_000 {
			runtime.Gosched()
		}
	})
	stats, err := Live{Packet: frame(64), Frames: many()}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, many())
}

func TestLiveExactUnderGC(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	disturb(t, time.Microsecond, runtime.GC)
	stats, err := Live{Packet: frame(64), Frames: many(), CPUs: []int{0, 1}}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, many())
}

// wantHonest checks that the true count is within the limits of the stats.
func wantHonest(t *testing.T, o *object, stats LiveStats, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	if n := liveCount(t, o); n < stats.Frames || n > stats.Frames+stats.Uncertain {
		t.Errorf("the program saw %d frames, the stats say %d and up to %d more", n, stats.Frames, stats.Uncertain)
	}
}

// TestLiveAllThreadsSyscall interrupts calls with the one signal that cannot be
// blocked.
func TestLiveAllThreadsSyscall(t *testing.T) {
	if cgo {
		t.Skip("syscall.AllThreadsSyscall is not there with cgo")
	}
	for _, perCall := range []int{0, 64} {
		o := loadLive(t, "xdp_drop")
		disturb(t, 2*time.Millisecond, func() {
			if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
				t.Error(errno)
			}
		})
		frames := many() / 5
		if emulated {
			frames /= 4 // calls that are cut are slow there
		}
		stats, err := Live{Packet: frame(64), Frames: frames, PerCall: perCall}.Run(soon(t), o.Program)
		wantHonest(t, o, stats, err)
		if perCall != 0 {
			wantExact(t, o, stats, err, frames)
		}
		if n := liveCount(t, o); n > frames {
			t.Errorf("%d frames of %d: some were sent twice", n, frames)
		}
	}
}

// TestLiveStopped has another process stop and continue this one.
func TestLiveStopped(t *testing.T) { liveInterruptedBy(t, stopAndContinue) }

const stopAndContinue = `for i in 1 2 3 4 5 6 7 8 9 10; do kill -STOP $1; sleep 0.005; kill -CONT $1; sleep 0.02; done`

// TestLiveFrozen has another process put this one into a cgroup, freeze and
// thaw it.
func TestLiveFrozen(t *testing.T) { liveInterruptedBy(t, freezeAndThaw) }

// What freezeAndThaw makes is gone again whatever becomes of the process.
const freezeAndThaw = `
	set -e
	root=$(mktemp -d)
	trap 'rmdir $root' EXIT
	mount -t cgroup2 none $root
	home=$root$(sed -n s/^0:://p /proc/$1/cgroup)
	group=$home/progrun-test-$1
	trap 'echo $1 >$home/cgroup.procs; rmdir $group; umount $root; rmdir $root' EXIT
	mkdir $group
	echo $1 >$group/cgroup.procs
	for i in 1 2 3 4 5 6 7 8 9 10; do
		echo 1 >$group/cgroup.freeze
		sleep 0.005
		echo 0 >$group/cgroup.freeze
		sleep 0.02
	done`

// liveInterruptedBy runs frames while a shell script disturbs this process, whose ID is
// the script's argument.
func liveInterruptedBy(t *testing.T, script string) {
	for _, perCall := range []int{0, 64} {
		o := loadLive(t, "xdp_drop")
		other := exec.Command("sh", "-c", script, "sh", strconv.Itoa(os.Getpid()))
		other.Stderr = os.Stderr
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		frames := many()
		stats, err := Live{Packet: frame(64), Frames: frames, PerCall: perCall}.Run(soon(t), o.Program)
		if err := other.Wait(); err != nil {
			t.Error(err)
		}
		wantHonest(t, o, stats, err)
		if perCall != 0 {
			wantExact(t, o, stats, err, frames)
		}
		t.Logf("%d frames, %d uncertain, %d calls", stats.Frames, stats.Uncertain, stats.Calls)
	}
}

// TestLiveCancel looks at the program's counter 10 ms after the context ends, and after
// the run. No frame may come after the second look. Between the two, there are at most
// as many as the run makes in 10 ms, even if others have the CPU.
func TestLiveCancel(t *testing.T) {
	for _, c := range []struct {
		name string
		live Live
	}{
		{"as fast as it goes", Live{}},
		{"two workers", Live{CPUs: []int{0, 1}}},
		{"paced", Live{Rate: 100_000}},
		{"one a second", Live{Rate: 1}},
		{"one a call", Live{PerCall: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 3 {
				atBest(t, "ends in time", func() bool {
					worth, late := liveAfterCancel(t, c.live)
					t.Logf("frames of %v left after the context ended, %d of them later than 10 ms after", worth, late)
					return worth < 10*time.Millisecond && late == 0
				})
			}
		})
	}
}

// liveAfterCancel cancels a run. It returns how long the run took, by its mean rate,
// for the frames that left after that, and how many of these left more than 10 ms
// later. Calls that wait for others in the dispatcher are long, and do not count.
func liveAfterCancel(t *testing.T, live Live) (worth time.Duration, late int64) {
	o := loadLive(t, "xdp_drop")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type result struct {
		stats LiveStats
		err   error
	}
	done := make(chan result)
	live.Packet = frame(64)
	go func() {
		stats, err := live.Run(ctx, o.Program)
		done <- result{stats, err}
	}()
	for liveCount(t, o) == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	before := liveCount(t, o)
	cancel()
	time.Sleep(10 * time.Millisecond)
	early := liveCount(t, o)
	r := <-done
	wantExact(t, o, r.stats, r.err, r.stats.Frames)
	if r.stats.LimitedBy == LimitDispatcher {
		t.Log("limited by the dispatcher")
		return 0, 0
	}
	after := liveCount(t, o)
	return time.Duration(float64(after-before) / r.stats.FramesPerSecond() * 1e9), after - early
}

func TestLiveDeadlineIsADuration(t *testing.T) {
	atBest(t, "runs for 300 ms", func() bool {
		o := loadLive(t, "xdp_drop")
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		stats, err := Live{Packet: frame(64)}.Run(ctx, o.Program)
		wantExact(t, o, stats, err, stats.Frames)
		t.Logf("ran for %v", stats.Wall)
		return stats.Wall > 200*time.Millisecond && stats.Wall < 310*time.Millisecond
	})
}

// TestLiveContextEndsFirst asks for more frames than there is time for. The stats are
// valid beside the error.
func TestLiveContextEndsFirst(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	h, err := NewHold(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	stats, err := Live{Packet: frame(64), Frames: 1 << 50, Hold: h}.Run(ctx, o.Program)
	wantError(t, err, "progrun: Live.Frames: 1125899906842624: the context ended after ", context.DeadlineExceeded, RanYes)
	wantExact(t, o, stats, nil, stats.Frames)

	cause := errors.New("enough")
	caused, end := context.WithCancelCause(context.Background())
	end(cause)
	_, err = Live{Packet: frame(64), Frames: 10}.Run(caused, o.Program)
	wantError(t, err, "the context ended after 0: context canceled: enough", context.Canceled, RanNo)
	wantError(t, err, "enough", cause, RanNo)

	before := liveCount(t, o)
	stats, err = Live{Packet: frame(64), Frames: 10}.Run(ctx, o.Program)
	wantError(t, err, "the context ended after 0: context deadline exceeded", context.DeadlineExceeded, RanNo)
	if n := liveCount(t, o); n != before || stats.Frames != 0 {
		t.Errorf("%d frames after the context had ended", n-before)
	}
}

func TestLiveRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		live Live
		text string
		is   error
	}{
		{"no packet", Live{Frames: 1}, "Live.Packet: 0 bytes: a packet begins with a 14-byte Ethernet header", unix.EINVAL},
		{"short packet", Live{Packet: frame(13), Frames: 1}, "Live.Packet: 13 bytes", unix.EINVAL},
		{"long packet", Live{Packet: frame(pageSize - 100), Frames: 1}, "Live.Packet: " + size(pageSize-100) + ": the packet is too large for a live frame: at most ", unix.EINVAL},
		{"huge packet", Live{Packet: frame(maxPacket + 1), Frames: 1}, "Live.Packet: " + size(maxPacket+1) + ": a live frame fits in a page", unix.EINVAL},
		{"metadata", Live{Packet: frame(64), Metadata: make([]byte, 5), Frames: 1}, "Live.Metadata: 5 bytes: metadata must be a multiple of 4 bytes, at most ", unix.EINVAL},
		{"very much metadata", Live{Packet: frame(64), Metadata: make([]byte, 200_000), Frames: 1}, "Live.Metadata: 200000 bytes: no kernel takes more than 252 bytes of metadata", unix.EINVAL},
		{"much metadata", Live{Packet: frame(64), Metadata: make([]byte, 300), Frames: 1}, "Live.Metadata: 300 bytes: metadata must be a multiple of 4 bytes, at most ", unix.EINVAL},
		{"batch", Live{Packet: frame(64), Frames: 1, BatchSize: 257}, "progrun: Live.BatchSize: 257: over the kernel's 256: argument list too long", unix.E2BIG},
		{"negative batch", Live{Packet: frame(64), Frames: 1, BatchSize: -1}, "Live.BatchSize: -1: it cannot be negative", unix.EINVAL},
		{"negative frames", Live{Packet: frame(64), Frames: -1}, "Live.Frames: -1: it cannot be negative", unix.EINVAL},
		{"endless", Live{Packet: frame(64)}, "Live.Frames: 0: the run would never end, since its context cannot end", unix.EINVAL},
		{"per call", Live{Packet: frame(64), Frames: 1, PerCall: -1}, "Live.PerCall: -1", unix.EINVAL},
		{"rate", Live{Packet: frame(64), Frames: 1, Rate: -1}, "Live.Rate: -1", unix.EINVAL},
		{"high rate", Live{Packet: frame(64), Frames: 1, Rate: 1e9 + 1}, "Live.Rate: 1000000001: it can be at most 1000000000", unix.EINVAL},
		{"interval", Live{Packet: frame(64), Frames: 1, ProgressInterval: -1}, "Live.ProgressInterval: -1ns", unix.EINVAL},
		{"interface", Live{Packet: frame(64), Frames: 10, Ifindex: 12345}, "Live.Ifindex: 12345: no such interface", unix.ENODEV},
		{"over-large interface of 32 bits", Live{Packet: frame(64), Frames: 1, Ifindex: overLarge(1 << 31)}, "Live.Ifindex: 2147483648: no such interface", unix.ENODEV},
		{"over-large interface", Live{Packet: frame(64), Frames: 1, Ifindex: overLarge(1 << 32)}, "Live.Ifindex: 4294967296: no such interface", unix.ENODEV},
		{"negative interface", Live{Packet: frame(64), Frames: 1, Ifindex: -1}, "Live.Ifindex: -1", unix.EINVAL},
		{"offline CPU", Live{Packet: frame(64), Frames: 1, CPUs: []int{0, 1000}}, "Live.CPUs: 1000: no such CPU is online, or this process may not use it", unix.EINVAL},
		{"CPU beyond all", Live{Packet: frame(64), Frames: 1, CPUs: []int{1 << 20}}, "Live.CPUs: 1048576: no such CPU is online", unix.EINVAL},
		{"negative CPU", Live{Packet: frame(64), Frames: 1, CPUs: []int{-1}}, "Live.CPUs: -1: it cannot be negative", unix.EINVAL},
		{"CPU twice", Live{Packet: frame(64), Frames: 1, CPUs: []int{0, 0}}, "Live.CPUs: 0: a CPU cannot have two workers", unix.EINVAL},
		{"no namespace", Live{Packet: frame(64), Frames: 1, NetNS: 12345}, "Live.NetNS: 12345: no such file is open", unix.EBADF},
		{"not a namespace", Live{Packet: frame(64), Frames: 1, NetNS: 2}, "Live.NetNS: 2: not a network namespace", unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.name, "over-large") && c.live.Ifindex == 0 {
				t.Skip("an int of 32 bits cannot be that large")
			}
			o := loadLive(t, "xdp_drop")
			_, err := c.live.Run(context.Background(), o.Program)
			wantError(t, err, c.text, c.is, RanNo)
			if n := liveCount(t, o); n != 0 {
				t.Errorf("%d frames ran", n)
			}
		})
	}
}

// TestLiveOfClosedProgram closes the program during the run, which has a descriptor of
// its own.
func TestLiveOfClosedProgram(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	closed := false
	stats, err := Live{Packet: frame(64), Frames: 20_000, Rate: 100_000, ProgressInterval: 10 * time.Millisecond, Progress: func(LiveStats) {
		if !closed {
			closed = true
			o.Program.Close()
		}
	}}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, 20_000)
	if !closed {
		t.Error("the program was not closed")
	}
	//lint:ignore SA1012 a mistake that must not panic
	_, err = Live{Packet: frame(64), Frames: 1}.Run(nil, loadLive(t, "xdp_drop").Program)
	wantError(t, err, "progrun: Live: the context is nil", unix.EINVAL, RanNo)
}

func TestLiveUnsupported(t *testing.T) {
	o := load(t, "xdp", "xdp_drop")
	if HaveXDPLiveFrames() == nil {
		t.Skip("this kernel has live frames")
	}
	_, err := Live{Packet: frame(64), Frames: 1}.Run(context.Background(), o.Program)
	wantError(t, err, "progrun: Live: this kernel has no live frames (Linux 5.18): not supported", ebpf.ErrNotSupported, RanNo)
	_, err = Raw{DataIn: frame(64), Flags: testXDPLiveFrames}.Run(o.Program)
	wantError(t, err, "progrun: Raw.Flags: 0x2: this kernel has no live frames (Linux 5.18): not supported", ebpf.ErrNotSupported, RanNo)
	if n := liveCount(t, o); n != 0 {
		t.Errorf("the program ran %d times", n)
	}
}

func TestLiveOfDevmapProgram(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDPDevMap,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, License: "MIT"})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	_, err = Live{Packet: frame(64), Frames: 1}.Run(context.Background(), prog)
	wantError(t, err, "Live: the program is for a devmap or a cpumap, or bound to a device", unix.EINVAL, RanNo)
}

func TestLiveProgress(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	var last LiveStats
	calls := 0
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stats, err := Live{Packet: frame(64), ProgressInterval: 20 * time.Millisecond, Progress: func(s LiveStats) {
		if calls > 10 && s.Frames > 0 {
			cancel()
		}
		calls++
		if s.Frames < last.Frames || s.Wall <= last.Wall || len(s.Workers) != 1 {
			t.Errorf("after %+v came %+v", last, s)
		}
		last = s
	}}.Run(ctx, o.Program)
	wantExact(t, o, stats, err, stats.Frames)
	if calls < 3 || last.Frames == 0 || last.Frames > stats.Frames {
		t.Errorf("%d calls, the last with %+v, and in the end %+v", calls, last, stats)
	}
}

// TestLiveProgressNeverReturns has a Progress that panics, and one that ends its
// goroutine. The run still ends properly.
func TestLiveProgressNeverReturns(t *testing.T) {
	for name, quit := range map[string]func(){
		"panic":  func() { panic("enough") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			o := loadLive(t, "xdp_drop")
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				_, _ = Live{Packet: frame(64), ProgressInterval: time.Millisecond,
					Progress: func(LiveStats) { quit() }}.Run(soon(t), o.Program)
			}()
			<-done
			before := liveCount(t, o)
			time.Sleep(20 * time.Millisecond)
			if after := liveCount(t, o); after != before {
				t.Errorf("%d frames after the end", after-before)
			}
			wantNothingHeld(t, o)
		})
	}
}

// TestLiveKilled kills a process during a run, many times.
func TestLiveKilled(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	prog := descriptor(t, o)
	kills := 30
	if emulated {
		kills = 5
	}
	for i := range kills {
		cmd := exec.Command(exe, endlessRun)
		cmd.ExtraFiles = []*os.File{prog}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := liveCount(t, o)
		for deadline := time.Now().Add(20 * time.Second); liveCount(t, o) == before; {
			if time.Now().After(deadline) {
				t.Fatal("the process runs nothing")
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(i%10) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	// The kernel removes a link when its file is released, which may be a moment later.
	for range 100 {
		if linksOn(t, o) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	wantNothingHeld(t, o)
}

// endlessRun is the argument with which the test binary runs live frames with the
// program that it inherited, until it is killed.
const endlessRun = "endless-run"

func runEndless() {
	prog, err := ebpf.NewProgramFromFD(3)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = Live{Packet: frame(64)}.Run(ctx, prog)
	panic(err)
}

// TestLiveThreads looks at the threads of the process after runs. Namespace, CPUs and
// signal mask of old threads are as before, and new threads are like old ones.
func TestLiveThreads(t *testing.T) {
	w := newWire(t, 1)
	o := loadLive(t, "xdp_drop")
	before := threads(t)
	for range 5 {
		stats, err := Live{Packet: frame(64), Frames: 1000, NetNS: w.a, Ifindex: w.ifA, CPUs: []int{1}}.Run(soon(t), o.Program)
		if err != nil || stats.Frames != 1000 {
			t.Fatalf("%+v, %v", stats, err)
		}
	}
	wantThreadsRestored(t, before)
}

// wantThreadsRestored checks that the threads of the process are as they were before,
// and that new ones are like those.
func wantThreadsRestored(t *testing.T, before map[string]threadState) {
	t.Helper()
	first := before[strconv.Itoa(os.Getpid())]
	var changed string
	for range 100 { // a thread that begins or ends looks odd for a moment
		changed = ""
		for tid, now := range threads(t) {
			// The runtime has a thread for signals, with a mask of its own.
			was, old := before[tid]
			odd := old && was.blocked != 0
			if now.ns != first.ns || now.cpus != first.cpus || now.blocked != 0 && !odd {
				changed = fmt.Sprintf("thread %s is %+v, and the first was %+v", tid, now, first)
			}
		}
		if changed == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(changed)
}

// threadState is the state of a thread that a run changes.
type threadState struct {
	ns, cpus string
	blocked  uint64
}

// threads returns the state of every thread.
func threads(t *testing.T) map[string]threadState {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	states := make(map[string]threadState)
	for _, task := range tasks {
		dir := "/proc/self/task/" + task.Name()
		ns, err1 := os.Readlink(dir + "/ns/net")
		status, err2 := os.ReadFile(dir + "/status")
		if err1 != nil || err2 != nil {
			continue // the thread has ended
		}
		state := threadState{ns: ns}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			switch value = strings.TrimSpace(value); name {
			case "SigBlk":
				state.blocked, _ = strconv.ParseUint(value, 16, 64)
			case "Cpus_allowed_list":
				state.cpus = value
			}
		}
		states[task.Name()] = state
	}
	return states
}

// TestNetNSIn enters a namespace and comes back, and checks the error if that is
// impossible.
func TestNetNSIn(t *testing.T) {
	w := newWire(t, 1)
	before := threads(t)
	there, err := netNSOf(w.a)
	if err != nil {
		t.Fatal(err)
	}
	there.run(func(err error) {
		if err != nil || !there.isCurrent() {
			t.Errorf("there: %v, %v", there.isCurrent(), err)
		}
	})
	netNS{fd: -1}.run(func(err error) {
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("got %v, want %v", err, unix.EBADF)
		}
	})
	wantThreadsRestored(t, before)
}

// TestOnThread checks that onThread never uses the process's first thread, even if its
// caller is on it.
func TestOnThread(t *testing.T) {
	for range 100 {
		onThread(func() bool {
			if unix.Gettid() == unix.Getpid() {
				t.Error("on the first thread")
			}
			return true
		})
	}
	if errFirstThread != nil {
		t.Error(errFirstThread)
	}
}

// errFirstThread is the error of fromFirstThread, which TestMain calls on the first
// thread.
var errFirstThread = errors.New("TestMain did not look")

// init keeps the first thread for TestMain.
func init() { runtime.LockOSThread() }

// fromFirstThread calls onThread while the only goroutine is on the process's first
// thread, which it then gives up.
func fromFirstThread() error {
	defer runtime.UnlockOSThread()
	if unix.Gettid() != unix.Getpid() {
		return errors.New("TestMain is not on the first thread")
	}
	var err error
	onThread(func() bool {
		if unix.Gettid() == unix.Getpid() {
			err = errors.New("a thread asked for on the first thread is the first thread")
		}
		return true
	})
	return err
}

// TestLiveNamespaceOfCaller checks that workers join the calling thread's namespace.
func TestLiveNamespaceOfCaller(t *testing.T) {
	w := newWire(t, 1)
	o := loadLive(t, "xdp_drop")
	inNS(t, w.a, func() {
		stats, err := Live{Packet: frame(64), Frames: 1000, Ifindex: w.ifA}.Run(soon(t), o.Program)
		if err != nil || stats.Frames != 1000 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
	stats, err := Live{Packet: frame(64), Frames: 1000, Ifindex: w.ifA, NetNS: w.b}.Run(soon(t), o.Program)
	if w.ifA != w.ifB && err == nil {
		t.Errorf("interface %d of one namespace was found in another: %+v", w.ifA, stats)
	}
}

func TestLiveTX(t *testing.T) {
	w := newWire(t, 1)
	far, o := w.count(t), loadLive(t, "xdp_tx")
	stats, err := unhurried(Live{Packet: frame(64), Frames: 10_000, Ifindex: w.ifA, NetNS: w.a}).Run(soon(t), o.Program)
	wantExact(t, o, stats, err, 10_000)
	wantSoon(t, far, 10_000)
}

// unhurried lowers the rate of a run under emulation, where the far end of a veth is
// slow. It loses frames for which its ring of 256 has no room.
func unhurried(l Live) Live {
	if emulated {
		l.Rate, l.BatchSize = 20_000, 16
	}
	return l
}

// wantSoon waits until frames have arrived at the far end, which takes them from its
// ring after the run.
func wantSoon(t *testing.T, far *object, frames int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); liveCount(t, far) < frames && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := liveCount(t, far); n != frames {
		t.Errorf("%d of %d frames arrived", n, frames)
	}
}

func TestLiveRedirect(t *testing.T) {
	for _, program := range []string{"xdp_redirect", "xdp_redirect_map"} {
		t.Run(program, func(t *testing.T) {
			w := newWire(t, 1)
			far, o := w.count(t), loadLive(t, program)
			if program == "xdp_redirect" {
				set(t, o, "target", 0, uint32(w.ifA))
			} else {
				inNS(t, w.a, func() { set(t, o, "devmap", 0, uint32(w.ifA)) }) // looked up as it is put
			}
			stats, err := unhurried(Live{Packet: frame(64), Frames: 10_000, NetNS: w.a}).Run(soon(t), o.Program)
			wantExact(t, o, stats, err, 10_000)
			wantSoon(t, far, 10_000)
		})
	}
}

// TestLiveSilentLoss sends to a veth whose peer accepts no XDP frames. There is no
// error, and nothing arrives until the peer has a program.
func TestLiveSilentLoss(t *testing.T) {
	w := newWire(t, 1)
	o := loadLive(t, "xdp_tx")
	run := func() {
		stats, err := Live{Packet: frame(64), Frames: 1000, Ifindex: w.ifA, NetNS: w.a}.Run(soon(t), o.Program)
		if err != nil || stats.Frames != 1000 {
			t.Errorf("%+v, %v", stats, err)
		}
	}
	run()
	inNS(t, w.b, func() {
		l, err := netlink.LinkByIndex(w.ifB)
		if err != nil {
			t.Error(err)
		} else if n := l.Attrs().Statistics.RxPackets; n > 100 {
			t.Errorf("%d frames arrived at a peer without XDP", n)
		}
	})
	far := w.count(t)
	run()
	wantSoon(t, far, 1000)
}

// TestLiveGRO sends to a veth whose peer has GRO instead of a program. The peer's stack
// receives the frames.
func TestLiveGRO(t *testing.T) {
	w := newWire(t, 1)
	o := loadLive(t, "xdp_tx")
	inNS(t, w.b, func() { switchOnGRO(t, "b") })
	stats, err := unhurried(Live{Packet: frame(64), Frames: 1000, Ifindex: w.ifA, NetNS: w.a}).Run(soon(t), o.Program)
	wantExact(t, o, stats, err, 1000)
	var received uint64
	for deadline := time.Now().Add(5 * time.Second); received < 1000 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		inNS(t, w.b, func() {
			l, err := netlink.LinkByIndex(w.ifB)
			if err != nil {
				t.Error(err)
				return
			}
			received = l.Attrs().Statistics.RxPackets
		})
	}
	if received < 1000 || received > 1100 { // the stack sends some of its own
		t.Errorf("%d of 1000 frames arrived", received)
	}
}

// switchOnGRO switches GRO on as ethtool -K does, for an interface of this thread's
// namespace.
func switchOnGRO(t *testing.T, name string) {
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_SGRO, 1}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], name)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(socket)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Errorf("switch GRO on: %v", errno)
	}
}

// inRawConn calls f with the socket of a connection.
func inRawConn(conn net.PacketConn, f func(fd int) error) error {
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// TestLivePass passes frames that are delivered to a UDP socket.
func TestLivePass(t *testing.T) {
	w := newWire(t, 1)
	o := loadLive(t, "xdp_pass")
	packet := udp4([4]byte{198, 51, 100, 1}, 4242, []byte("live")...)
	copy(packet, w.macA)
	inNS(t, w.a, func() {
		l, err := netlink.LinkByIndex(w.ifA)
		if err == nil {
			err = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)}})
		}
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: w.ifA, Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}})
		}
		if err != nil {
			t.Error(err)
			return
		}
		conn, err := net.ListenPacket("udp4", "198.51.100.1:4242")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		const frames = 40
		// A small datagram counts as the whole page that it is in.
		err = inRawConn(conn, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 2*frames*pageSize)
		})
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := (Live{Packet: packet, Frames: frames, Ifindex: w.ifA}).Run(soon(t), o.Program); err != nil {
			t.Error(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 100)
		for i := range frames {
			n, from, err := conn.ReadFrom(buf)
			if err != nil || string(buf[:n]) != "live" || from.String() != "192.0.2.1:1234" {
				t.Errorf("datagram %d: %q from %v, %v", i, buf[:n], from, err)
				return
			}
		}
	})
}

// TestLiveBatchIsDeliveredWhole checks that every frame of a large batch arrives. A
// veth's ring has room for 256, of which the stack may take a few.
func TestLiveBatchIsDeliveredWhole(t *testing.T) {
	w := newWire(t, 1)
	far, o := w.count(t), loadLive(t, "xdp_tx")
	stats, err := Live{Packet: frame(64), Frames: 240, BatchSize: 240, PerCall: 240, Ifindex: w.ifA, NetNS: w.a}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, 240)
	if stats.Batches != 1 || stats.Calls != 1 {
		t.Errorf("%d batches in %d calls", stats.Batches, stats.Calls)
	}
	wantSoon(t, far, 240)
}

// TestLivePagesAreNotRewritten edits a byte. Within one call the program meets its own
// edits.
func TestLivePagesAreNotRewritten(t *testing.T) {
	o := loadLive(t, "xdp_increment")
	set(t, o, "verdict", 0, uint32(XDPDrop))
	packet := frame(64)
	packet[14] = 0
	const frames = 160
	if _, err := (Live{Packet: packet, Frames: frames, BatchSize: 4, PerCall: frames}).Run(soon(t), o.Program); err != nil {
		t.Fatal(err)
	}
	// A page that the kernel allocates anew, as it does now and then, starts again.
	if n := get[uint32](t, o, "maximum", 0); n < 2 || n > frames {
		t.Errorf("the byte was incremented up to %d, want it more than once", n)
	}
	if packet[14] != 0 {
		t.Error("the caller's packet was written to")
	}
}

func TestLiveMetadata(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	w := newWire(t, 1)
	far := w.count(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 8, asm.Word), // data_meta
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), // data
		asm.Mov.Imm(asm.R0, int32(XDPDrop)),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 4),
		asm.JGT.Reg(asm.R4, asm.R3, "exit"),
		asm.LoadMem(asm.R5, asm.R2, 0, asm.Word),
		asm.JNE.Imm(asm.R5, int32(binary.NativeEndian.Uint32([]byte{1, 2, 3, 4})), "exit"),
		asm.Mov.Imm(asm.R0, int32(XDPTX)),
		asm.Return().WithSymbol("exit"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	stats, err := Live{Packet: frame(64), Metadata: []byte{1, 2, 3, 4}, Frames: 100, Ifindex: w.ifA, NetNS: w.a}.Run(soon(t), prog)
	if err != nil || stats.Frames != 100 {
		t.Errorf("%+v, %v", stats, err)
	}
	wantSoon(t, far, 100)
}

// TestLiveManyCPUs runs two workers on a wire with two queues.
func TestLiveManyCPUs(t *testing.T) {
	w := newWire(t, 2)
	o := loadLive(t, "xdp_tx")
	w.count(t)
	stats, err := Live{Packet: frame(64), Frames: 100_000, Ifindex: w.ifA, NetNS: w.a, CPUs: []int{0, 1}}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, 100_000)
	if len(stats.Workers) != 2 || stats.Workers[0].CPU != 0 || stats.Workers[1].CPU != 1 {
		t.Fatalf("workers %+v", stats.Workers)
	}
	var perCPU []uint64
	if err := o.maps["frames"].Lookup(uint32(0), &perCPU); err != nil {
		t.Fatal(err)
	}
	for i, w := range stats.Workers {
		if int64(perCPU[i]) != w.Frames {
			t.Errorf("CPU %d saw %d frames, its worker says %d", i, perCPU[i], w.Frames)
		}
	}
}

// TestLiveErrorsInFlight counts lost frames by the tracepoints. The run does not fail.
func TestLiveErrorsInFlight(t *testing.T) {
	o := loadLive(t, "xdp_tx")
	w := newWire(t, 1)
	lost := countTracepoint(t, "xdp_redirect_err") // since Linux 6.3, as the veth says that it cannot send
	bulks := countTracepoint(t, "xdp_devmap_xmit") // before, a bulk of up to 16 fails
	const frames = 1600
	stats, err := Live{Packet: frame(64), Frames: frames, Ifindex: w.ifA, NetNS: w.a}.Run(soon(t), o.Program)
	wantExact(t, o, stats, err, frames)
	if lost() < frames && bulks() < frames/16 {
		t.Errorf("of %d frames that were lost, tracepoints told of %d, and of %d bulks", frames, lost(), bulks())
	}
}

// countTracepoint returns a function that returns how often a tracepoint has fired.
func countTracepoint(t *testing.T, name string) func() uint64 {
	t.Helper()
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { count.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMapValue(asm.R1, count.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: prog})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return func() uint64 {
		var n uint64
		if err := count.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// TestLiveReplacedResult has a program on the tracepoint bpf_test_finish replace the
// results of this process's calls. All frames of such a call have run, and count.
func TestLiveReplacedResult(t *testing.T) {
	for _, result := range []int32{-int32(unix.EINVAL), -int32(unix.ENOMEM), 42} {
		t.Run(fmt.Sprint(result), func(t *testing.T) {
			o := loadLive(t, "xdp_drop")
			var stats LiveStats
			var err error
			replaceResults(t, result, func() {
				stats, err = Live{Packet: frame(64), Frames: 100_000}.Run(soon(t), o.Program)
			})
			wantError(t, err, "a program on the writable tracepoint bpf_test_finish replaced the result", err, RanYes)
			if n := liveCount(t, o); n == 0 || n != stats.Frames || stats.Uncertain != 0 || stats.Calls != 1 {
				t.Errorf("the program saw %d frames, the stats say %d and up to %d more in %d calls", n, stats.Frames, stats.Uncertain, stats.Calls)
			}
		})
	}
}

// TestLiveReplacedByInterrupt makes calls fail as if a signal had cut them short.
func TestLiveReplacedByInterrupt(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	var stats LiveStats
	var err error
	replaceResults(t, -int32(unix.EINTR), func() {
		stats, err = Live{Packet: frame(64), Frames: 100_000}.Run(soon(t), o.Program)
	})
	wantExact(t, o, stats, err, 100_000)
}

// TestLiveStatsAdd adds up runs, and marshals the sum.
func TestLiveStatsAdd(t *testing.T) {
	worker := func(cpu int, frames int64) LiveWorkerStats {
		return LiveWorkerStats{CPU: cpu, Frames: frames, Batches: 1, Calls: 1, Wall: time.Second, PerFrame: time.Duration(frames)}
	}
	a := LiveStats{Frames: 30, Batches: 2, Calls: 2, Missed: 1, Wall: time.Second, PerFrame: 10, Held: true,
		LimitedBy: LimitCPU, Workers: []LiveWorkerStats{worker(0, 10), worker(1, 20)}}
	b := LiveStats{Frames: 10, Uncertain: 5, Batches: 1, Calls: 1, Wall: 2 * time.Second, PerFrame: 50,
		LimitedBy: LimitDispatcher, HoldErr: unix.EPERM, Workers: []LiveWorkerStats{worker(1, 10), worker(2, 20)}}
	var sum LiveStats
	sum.Add(a)
	sum.Add(b)
	want := LiveStats{Frames: 40, Uncertain: 5, Batches: 3, Calls: 3, Missed: 1, Wall: 3 * time.Second, PerFrame: 20,
		LimitedBy: LimitDispatcher, HoldErr: unix.EPERM, Workers: []LiveWorkerStats{worker(0, 10),
			{CPU: 1, Frames: 30, Batches: 2, Calls: 2, Wall: 2 * time.Second, PerFrame: 17}, worker(2, 20)}}
	if !reflect.DeepEqual(sum, want) {
		t.Errorf("got  %+v\nwant %+v", sum, want)
	}
	if a.Workers[1] != worker(1, 20) {
		t.Errorf("Add changed its argument: %+v", a.Workers)
	}
	text, err := json.Marshal(LiveStats{Frames: 2, Wall: time.Second, LimitedBy: LimitDispatcher, Workers: []LiveWorkerStats{{CPU: -1}}})
	const words = `{"frames":2,"uncertain":0,"missed":0,"bytes":0,"batches":0,"calls":0,"wall_ns":1000000000,"per_frame_ns":0,` +
		`"held":false,"limited_by":"XDP dispatcher","workers":[{"cpu":-1,"frames":0,"uncertain":0,"missed":0,"bytes":0,"batches":0,"calls":0,"wall_ns":0,"per_frame_ns":0}]}`
	if err != nil || string(text) != words {
		t.Errorf("got  %s, %v\nwant %s", text, err, words)
	}
	var back LiveStats
	if err := json.Unmarshal(text, &back); err != nil || back.LimitedBy != LimitDispatcher {
		t.Errorf("%+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"limited_by":"luck"}`), &back); err == nil {
		t.Error("a limit that there is not was taken")
	}
}
