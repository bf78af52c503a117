package progrun

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// wantNothingHeld checks that no link is left on a program.
func wantNothingHeld(t *testing.T, o *object) {
	t.Helper()
	if n := linksOn(t, o); n != 0 {
		t.Errorf("%d links on the program are left", n)
	}
}

func linksOn(t *testing.T, o *object) int {
	t.Helper()
	id, err := programID(o.Program)
	need(t, err)
	for {
		n, err := countLinks(ebpf.ProgramID(id))
		// A link that another process is attaching cannot be opened yet.
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		need(t, err)
		return n
	}
}

func countLinks(prog ebpf.ProgramID) (n int, err error) {
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		if info, err := it.Link.Info(); err == nil && info.Program == prog {
			n++
		}
	}
	return n, it.Err()
}

func TestHold(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	before := readlink(t, "/proc/self/ns/net")
	h, err := NewHold(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	want := 1
	if !hasDispatcher(o.Program) {
		want = 0
	}
	if n := linksOn(t, o); n != want {
		t.Errorf("%d links on a held program, want %d", n, want)
	}
	_, err = XDP{Packet: make([]byte, 18*pageSize), Repeat: 2}.Run(o.Program)
	wantError(t, err, "more fragments would end a hold on the program", unix.ENOMEM, RanNo)
	atBest(t, "a call of a held program is quick", func() bool {
		return repeatTime(t, o, 2) < 5*time.Millisecond
	})
	stats, err := Live{Packet: frame(64), Frames: 1000, PerCall: 100, Hold: h}.Run(soon(t), o.Program)
	if err != nil || !stats.Held || stats.Frames != 1000 || stats.Calls != 10 {
		t.Errorf("got %+v, %v", stats, err)
	}
	other := loadLive(t, "xdp_pass")
	_, err = Live{Packet: frame(64), Frames: 1, Hold: h}.Run(soon(t), other.Program)
	wantError(t, err, "Live.Hold: the hold is on another program", unix.EINVAL, RanNo)
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
	wantNothingHeld(t, o)
	if after := readlink(t, "/proc/self/ns/net"); after != before {
		t.Errorf("the process was in %s and is in %s", before, after)
	}
}

func readlink(t *testing.T, name string) string {
	t.Helper()
	s, err := os.Readlink(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHoldOfOddPrograms holds programs with fragments, and programs that are attached
// elsewhere.
func TestHoldOfOddPrograms(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	frags := load(t, "xdp_frags", "xdp_frags_pass")
	h, err := NewHold(frags.Program)
	if err != nil {
		t.Errorf("a program with fragments: %v", err)
	} else {
		h.Close()
	}

	attached := loadLive(t, "xdp_drop")
	inNetNS(t, func() { attachXDP(t, attached.Program, 1, link.XDPGenericMode) })
	h, err = NewHold(attached.Program)
	if err != nil {
		t.Errorf("a program that is attached elsewhere: %v", err)
	} else {
		h.Close()
	}

	tc := load(t, "tc", "tc_mark")
	_, err = NewHold(tc.Program)
	wantError(t, err, "progrun: Hold: runs XDP programs, not SchedCLS", unix.EINVAL, RanNo)
}

// TestHoldInFullDispatcher fills the dispatcher. Calls of another held program are
// still quick: a program that does not get in need not be taken out.
func TestHoldInFullDispatcher(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	fillDispatcher(t)
	h, err := NewHold(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	atBest(t, "a call is quick", func() bool {
		return repeatTime(t, o, 100) < 5*time.Millisecond
	})
}

// repeatTime returns the median time of a call with a Repeat.
func repeatTime(t *testing.T, o *object, repeat int) time.Duration {
	t.Helper()
	var calls []time.Duration
	for range 21 {
		begin := time.Now()
		if _, err := (XDP{Packet: frame(64), Repeat: repeat, NoOutput: true}).Run(o.Program); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, time.Since(begin))
	}
	slices.Sort(calls)
	t.Logf("a call takes %v", calls[len(calls)/2])
	return calls[len(calls)/2]
}

// TestHoldClosed closes holds that are closed, nil or zero, and runs with them, which
// fails.
func TestHoldClosed(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	closed, err := NewHold(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Hold{closed, closed, nil, {}} {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, h := range []*Hold{closed, {}} {
		_, err := Live{Packet: frame(64), Frames: 1, Hold: h}.Run(soon(t), o.Program)
		wantError(t, err, "progrun: Live.Hold: the hold is closed: bad file descriptor", unix.EBADF, RanNo)
	}
	if n := liveCount(t, o); n != 0 {
		t.Errorf("%d frames ran", n)
	}
}

// TestHoldOfDevmapProgram checks that NewHold returns the reason that a run would.
func TestHoldOfDevmapProgram(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDPDevMap,
		Instructions: nothingInsns(), License: "MIT"})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	_, err = NewHold(prog)
	wantError(t, err, "Hold: the program is for a devmap or a cpumap, or bound to a device", unix.EINVAL, RanNo)
}

// TestLiveHoldClosedMeanwhile closes the hold of a run during the run. The run goes on,
// and its stats say so.
func TestLiveHoldClosedMeanwhile(t *testing.T) {
	atBest(t, "calls are not of one batch", func() bool {
		o := loadLive(t, "xdp_drop")
		h, err := NewHold(o.Program)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		stats, err := Live{Packet: frame(64), Hold: h, ProgressInterval: 100 * time.Millisecond,
			Progress: func(LiveStats) { _ = h.Close() }}.Run(ctx, o.Program)
		wantExact(t, o, stats, err, stats.Frames)
		if stats.Held || !errors.Is(stats.HoldErr, unix.EBADF) {
			t.Errorf("held %v, %v", stats.Held, stats.HoldErr)
		}
		perCall, _ := framesPerCall(t, stats)
		return perCall > time.Millisecond
	})
}

// framesPerCall is how long the frames of a call took, in the mean, and what share of
// the time frames took. A batch takes about a microsecond.
func framesPerCall(t *testing.T, stats LiveStats) (perCall time.Duration, share float64) {
	frames := stats.PerFrame * time.Duration(stats.Frames)
	perCall, share = frames/time.Duration(stats.Calls), float64(frames)/float64(stats.Wall)
	t.Logf("%d calls, each with %v of frames, %.2f of the time, limited by %v", stats.Calls, perCall, share, stats.LimitedBy)
	return perCall, share
}

// TestLiveHoldWithoutRoom runs with a hold that found the dispatcher full, once there
// is room again.
func TestLiveHoldWithoutRoom(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	closeAll := fillDispatcher(t)
	h, err := NewHold(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	closeAll()
	atBest(t, "calls are not of one batch", func() bool {
		stats, err := Live{Packet: frame(64), Frames: many(), Hold: h}.Run(soon(t), o.Program)
		if err != nil {
			t.Fatal(err)
		}
		perCall, _ := framesPerCall(t, stats)
		return perCall > time.Millisecond
	})
}

// TestHoldsAtOnce makes two holds at the same time, with room for one: the other must
// not take the first one's entry for its own.
func TestHoldsAtOnce(t *testing.T) {
	first, second := loadLive(t, "xdp_drop"), loadLive(t, "xdp_pass")
	if entersAtOnce || !hasDispatcher(first.Program) {
		t.Skip("holds do not wait for room here")
	}
	holdMany(t, dispatcherRoom-1)
	bothEnter := func() bool {
		time.Sleep(100 * time.Millisecond) // the end of a namespace makes attaching wait too
		var holds [2]*Hold
		var made sync.WaitGroup
		for i, o := range []*object{first, second} {
			made.Go(func() {
				var err error
				if holds[i], err = NewHold(o.Program); err != nil {
					t.Error(err)
				}
			})
		}
		made.Wait()
		if t.Failed() {
			t.FailNow()
		}
		defer holds[0].Close()
		defer holds[1].Close()
		return holds[0].entered && holds[1].entered
	}
	atBest(t, "one hold finds no room, five times in a row", func() bool {
		for range 5 {
			if bothEnter() {
				return false
			}
		}
		return true
	})
}

const dispatcherRoom = 48 // BPF_DISPATCHER_MAX

// fillDispatcher holds as many programs as there is room for.
func fillDispatcher(t *testing.T) (closeAll func()) {
	t.Helper()
	return holdMany(t, dispatcherRoom)
}

// holdMany holds n programs.
func holdMany(t *testing.T, n int) (closeAll func()) {
	t.Helper()
	var holds []*Hold
	closeAll = func() {
		for _, h := range holds {
			h.Close()
		}
	}
	t.Cleanup(closeAll)
	for range n {
		prog, err := nothing(ebpf.XDP)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { prog.Close() })
		h, err := NewHold(prog)
		if err != nil {
			t.Fatal(err)
		}
		holds = append(holds, h)
	}
	return closeAll
}

// occupyDispatcher repeatedly runs a program that is not held, until the test ends.
func occupyDispatcher(t *testing.T) {
	t.Helper()
	prog, err := nothing(ebpf.XDP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	disturb(t, 0, func() {
		if _, err := (XDP{Packet: frame(64), Repeat: 2, NoOutput: true}).Run(prog); err != nil {
			t.Error(err)
		}
	})
}

// TestLiveBusyDispatcher runs while others keep the dispatcher busy. Calls grow, so
// that most of the time goes into frames, and the stats say where the rest went.
func TestLiveBusyDispatcher(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	occupyDispatcher(t)
	eventually(t, "calls are long, and the stats tell why", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		stats, err := Live{Packet: frame(64)}.Run(ctx, o.Program)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !stats.Held || stats.HoldErr != nil {
			t.Errorf("held %v, %v", stats.Held, stats.HoldErr)
		}
		// What others have of the machine counts neither as frames nor as waiting.
		perCall, share := framesPerCall(t, stats)
		long := perCall > 50*time.Millisecond || share > 0.5 || emulated
		told := stats.LimitedBy == LimitDispatcher || share > 0.95 || runtime.GOARCH != "amd64"
		return long && told
	})
}

// TestLivePaceOnBusyDispatcher checks that a rate is kept although each call waits.
func TestLivePaceOnBusyDispatcher(t *testing.T) {
	occupyDispatcher(t)
	atBest(t, "the rate is kept", func() bool {
		stats := livePaced(t, 100_000, nil)
		kept := stats.FramesPerSecond() / 100_000
		t.Logf("%.3f of the rate, %d missed, %d calls, %v", kept, stats.Missed, stats.Calls, stats.LimitedBy)
		return kept > 0.8
	})
}
