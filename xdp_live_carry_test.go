package progrun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// lengths loads a program that records the length of each frame, and when it ran. Its
// verdicts are XDP_ABORTED, XDP_DROP and 77, by the length.
func lengths(t testing.TB, frames int) (*ebpf.Program, func() []sighting, func(length int) int) {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1 << 16})
	need(t, err)
	log, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: uint32(frames + 1)})
	need(t, err)
	lookup := asm.Instructions{
		asm.LoadMapPtr(asm.R1, log.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"),
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual MIT/GPL",
		Instructions: slices.Concat(
			asm.Instructions{
				asm.LoadMem(asm.R7, asm.R1, 4, asm.Word), asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.Sub.Reg(asm.R7, asm.R2),
				asm.FnKtimeGetNs.Call(), asm.Mov.Reg(asm.R9, asm.R0),
				asm.Mov.Imm(asm.R8, 0), asm.StoreMem(asm.RFP, -4, asm.R8, asm.Word),
			}, lookup, asm.Instructions{
				// With two workers, frames are counted by length; their order is known
				// for one.
				asm.LoadMem(asm.R8, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R8, 1), asm.StoreMem(asm.R0, 0, asm.R8, asm.DWord),
				asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
				asm.LoadMapPtr(asm.R1, counts.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
				asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"),
				asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
				asm.StoreMem(asm.RFP, -4, asm.R8, asm.Word),
			}, lookup, asm.Instructions{
				asm.StoreMem(asm.R0, 0, asm.R9, asm.DWord), asm.StoreMem(asm.R0, 8, asm.R7, asm.DWord),
				asm.Mov.Reg(asm.R0, asm.R7).WithSymbol("out"), asm.Mod.Imm(asm.R0, 3), asm.JNE.Imm(asm.R0, 2, "known"), asm.Mov.Imm(asm.R0, 77),
				asm.Return().WithSymbol("known"),
			}),
	})
	need(t, err)
	t.Cleanup(func() {
		prog.Close()
		log.Close()
		counts.Close()
	})
	return prog, func() []sighting {
			t.Helper()
			seen := make([]sighting, 0, frames+1)
			value := make([]byte, 16)
			for i := range frames + 1 {
				need(t, log.Lookup(uint32(i), &value))
				seen = append(seen, sighting{time.Duration(binary.NativeEndian.Uint64(value)), int(binary.NativeEndian.Uint64(value[8:]))})
			}
			return seen[1 : 1+min(uint64(seen[0].at), uint64(frames))]
		}, func(length int) int {
			var n uint64
			need(t, counts.Lookup(uint32(length), &n))
			return int(n)
		}
}

type sighting struct {
	at     time.Duration
	length int
}

// needLiveCarrier skips a test if err says that live frames cannot have a carrier.
func needLiveCarrier(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// capture returns packets of many sizes, no two alike.
func capture(n int) (packets [][]byte) {
	for i := range n {
		packets = append(packets, frame(14+i*29%3300))
	}
	return packets
}

// TestLivePackets runs a capture in order, round after round, in calls of various
// sizes.
func TestLivePackets(t *testing.T) {
	packets := capture(100)
	for _, live := range []Live{{}, {PerCall: 7}, {BatchSize: 1}, {Metadata: []byte{1, 2, 3, 4}}, {Rate: 100000}, {CPUs: []int{0}}} {
		const frames = 1030
		prog, seen, _ := lengths(t, 2*frames)
		live.Packets, live.Frames = packets, frames
		stats, err := live.Run(soon(t), prog)
		needLiveCarrier(t, err)
		var want LiveStats
		for i := range frames {
			n := len(packets[i%len(packets)])
			want.Bytes += int64(n)
			switch n % 3 {
			case 0:
				want.Verdicts.Aborted++
			case 1:
				want.Verdicts.Drop++
			case 2:
				want.Verdicts.Other++
			}
		}
		if stats.Frames != frames || stats.Bytes != want.Bytes || stats.Verdicts != want.Verdicts || stats.Uncertain != 0 || stats.Workers[0].Verdicts != want.Verdicts {
			t.Errorf("%+v, want %d bytes and %+v", stats, want.Bytes, want.Verdicts)
		}
		got := seen()
		if len(got) != frames {
			t.Fatalf("%d frames ran, want %d", len(got), frames)
		}
		for i, s := range got {
			if want := len(packets[i%len(packets)]); s.length != want {
				t.Fatalf("frame %d has %d bytes, want %d", i, s.length, want)
			}
		}
	}
}

// TestLivePacketsWorkers checks that two workers run each packet as often as one would.
func TestLivePacketsWorkers(t *testing.T) {
	packets := capture(50)
	const frames = 50*200 + 13
	prog, _, count := lengths(t, 1)
	stats, err := Live{Packets: packets, Frames: frames, CPUs: []int{0, 1}, PerCall: 130}.Run(soon(t), prog)
	needLiveCarrier(t, err)
	if stats.Frames != frames || stats.Workers[0].Frames+stats.Workers[1].Frames != frames || stats.Verdicts.Total() != frames {
		t.Errorf("%+v", stats)
	}
	for i, p := range packets {
		want := frames / len(packets)
		if i < frames%len(packets) {
			want++
		}
		if count(len(p)) != want {
			t.Errorf("packet %d ran %d times, want %d", i, count(len(p)), want)
		}
	}
}

// orderly is a program that finds out whether the frames that it sees are those of a
// capture in order. Each packet has its number, from 0, at offset 20. Then it does
// something to the frame, whose context is in R9.
func orderly(t testing.TB, packets int, then ...asm.Instruction) (prog *ebpf.Program, seen func() (frames, wrong int64)) {
	t.Helper()
	state, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1})
	need(t, err)
	t.Cleanup(func() { state.Close() })
	prog = assemble(t, ebpf.AttachXDP, asm.Instructions{
		asm.Mov.Reg(asm.R9, asm.R1),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
		asm.LoadMapValue(asm.R4, state.FD(), 0),
		asm.LoadMem(asm.R5, asm.R4, 0, asm.DWord), asm.Add.Imm(asm.R5, 1), asm.StoreMem(asm.R4, 0, asm.R5, asm.DWord), // frames
		asm.Mov.Reg(asm.R5, asm.R2), asm.Add.Imm(asm.R5, 24), asm.JGT.Reg(asm.R5, asm.R3, "out"),
		asm.LoadMem(asm.R6, asm.R2, 20, asm.Word), asm.LoadMem(asm.R7, asm.R4, 8, asm.DWord), // its number and the next one
		asm.JEq.Reg(asm.R6, asm.R7, "right"),
		asm.LoadMem(asm.R8, asm.R4, 16, asm.DWord), asm.Add.Imm(asm.R8, 1), asm.StoreMem(asm.R4, 16, asm.R8, asm.DWord), // wrong
		asm.Add.Imm(asm.R6, 1).WithSymbol("right"), asm.Mod.Imm(asm.R6, int32(packets)), asm.StoreMem(asm.R4, 8, asm.R6, asm.DWord),
	}, then, asm.Instructions{
		asm.Mov.Imm(asm.R0, int32(XDPDrop)).WithSymbol("out"), asm.Return(),
	})
	return prog, func() (frames, wrong int64) {
		t.Helper()
		var value struct{ Frames, Next, Wrong int64 }
		need(t, state.Lookup(uint32(0), &value))
		return value.Frames, value.Wrong
	}
}

// numberedCapture is a capture for orderly.
func numberedCapture(n int) [][]byte {
	packets := capture(n)
	for i := range packets {
		packets[i] = append(packets[i], make([]byte, max(0, 24-len(packets[i])))...)
		binary.NativeEndian.PutUint32(packets[i][20:], uint32(i))
	}
	return packets
}

// TestLiveCarrierCut interrupts calls with what cannot be blocked: no frame is in
// doubt, left out or run twice, and the order stays.
func TestLiveCarrierCut(t *testing.T) {
	const packets = 101
	for name, live := range map[string]Live{
		"packets":     {Packets: numberedCapture(packets)},
		"verdicts":    {Packet: numberedCapture(1)[0], CountVerdicts: true},
		"two workers": {Packets: numberedCapture(packets), CPUs: []int{0, 1}},
	} {
		for how, cut := range cuts {
			t.Run(name+" "+how, func(t *testing.T) {
				if cgo && how == "all threads" {
					t.Skip("syscall.AllThreadsSyscall is not there with cgo")
				}
				live.PerCall = 1 << 20
				if emulated {
					live.PerCall = 1 << 12
				}
				atBest(t, "calls are cut", func() bool { return cutCarrier(t, live, cut) })
			})
		}
	}
}

// cutCarrier runs frames while calls are cut, and reports whether any was.
func cutCarrier(t *testing.T, live Live, cut func(*testing.T)) bool {
	o := loadLive(t, "xdp_drop") // which counts for each CPU
	prog, seen := o.Program, func() (int64, int64) { return liveCount(t, o), 0 }
	if len(live.CPUs) < 2 {
		prog, seen = orderly(t, max(1, len(live.Packets)))
	}
	ctx, cancel := context.WithCancel(soon(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		for n, _ := seen(); n == 0; n, _ = seen() {
			if ctx.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		cut(t)
	}()
	stats, err := live.Run(ctx, prog)
	cancel()
	<-done
	needLiveCarrier(t, err)
	frames, wrong := seen()
	if stats.Frames != frames || wrong != 0 || stats.Verdicts != (LiveVerdicts{Drop: frames}) || stats.Uncertain != 0 {
		t.Errorf("%d frames, %d of them not in order; %+v", frames, wrong, stats)
	}
	short := stats.Calls*int64(live.PerCall) - stats.Frames
	t.Logf("%d frames in %d calls, %d less than were asked for", stats.Frames, stats.Calls, short)
	return short > 0
}

// TestLiveCarrierGoesOn has a run whose calls are cut short make up for all that they
// left out.
func TestLiveCarrierGoesOn(t *testing.T) {
	if cgo {
		t.Skip("syscall.AllThreadsSyscall is not there with cgo")
	}
	disturb(t, 2*time.Millisecond, func() {
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
			t.Error(errno)
		}
	})
	const packets = 101
	prog, seen := orderly(t, packets)
	frames := many()/5 + 7
	stats, err := Live{Packets: numberedCapture(packets), Frames: frames}.Run(soon(t), prog)
	needLiveCarrier(t, err)
	if ran, wrong := seen(); stats.Frames != frames || ran != frames || wrong != 0 || stats.Uncertain != 0 {
		t.Errorf("%d frames, %d of them not in order; %+v", ran, wrong, stats)
	}
}

// cuts are ways to end calls that block all signals.
var cuts = map[string]func(t *testing.T){
	"stopped": func(t *testing.T) {
		disturbedBy(t, exec.Command("sh", "-c", stopAndContinue, "sh", strconv.Itoa(os.Getpid())))
	},
	"frozen": func(t *testing.T) {
		disturbedBy(t, exec.Command("sh", "-c", freezeAndThaw, "sh", strconv.Itoa(os.Getpid())))
	},
	"traced": func(t *testing.T) {
		exe, err := os.Executable()
		need(t, err)
		disturbedBy(t, exec.Command(exe, tracer, strconv.Itoa(os.Getpid())))
	},
	"all threads": func(t *testing.T) {
		for range 20 {
			if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
				t.Error(errno)
			}
			time.Sleep(5 * time.Millisecond)
		}
	},
}

// disturbedBy waits for another process that does something to this one.
func disturbedBy(t *testing.T, other *exec.Cmd) {
	if out, err := other.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %v: %s", other, err, out)
	}
}

// tracer is the argument that makes the test binary stop the threads of a process, as a
// debugger does.
const tracer = "tracer"

func runTracer() {
	runtime.LockOSThread() // which traces
	pid := os.Args[2]
	for range 10 {
		threads, err := os.ReadDir("/proc/" + pid + "/task")
		if err != nil {
			fmt.Println(err)
		}
		for _, thread := range threads {
			tid, _ := strconv.Atoi(thread.Name())
			if err := interruptThread(tid); err != nil && err != unix.ESRCH { // it may be gone
				fmt.Println(tid, err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func interruptThread(tid int) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		return err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err != nil {
		return err
	}
	return unix.PtraceDetach(tid)
}

// TestLiveCountVerdicts counts the verdicts on one packet, under signals.
func TestLiveCountVerdicts(t *testing.T) {
	o := loadLive(t, "xdp_count")
	for verdict, want := range []LiveVerdicts{{Aborted: 1}, {Drop: 1}, {Pass: 1}} {
		set(t, o, "verdict", 0, uint32(verdict))
		before := liveCount(t, o)
		var progress LiveVerdicts
		live := Live{Packet: frame(64), Frames: 200000, CountVerdicts: true, CPUs: []int{1, 0}, ProgressInterval: time.Millisecond,
			Progress: func(s LiveStats) { progress = s.Verdicts }}
		stats, err := live.Run(soon(t), o.Program)
		needLiveCarrier(t, err)
		if want.Total() != 1 || stats.Verdicts.Total() != live.Frames || stats.Frames != live.Frames || liveCount(t, o)-before != live.Frames {
			t.Errorf("verdict %d: %+v, the program ran %d times", verdict, stats, liveCount(t, o)-before)
		}
		for _, v := range []LiveVerdicts{stats.Verdicts, progress} {
			if v.Total() > 0 && (v.Aborted > 0) != (want.Aborted > 0) || v.Total() > 0 && (v.Drop > 0) != (want.Drop > 0) {
				t.Errorf("verdict %d: %+v", verdict, v)
			}
		}
	}
}

// TestLiveExchange replaces the program of a run.
func TestLiveExchange(t *testing.T) {
	first, second := loadLive(t, "xdp_drop"), loadLive(t, "xdp_drop")
	var x Exchange
	wantError(t, x.Put(second.Program), "progrun: Exchange: no run is under way: invalid argument", unix.EINVAL, RanNo)
	ctx, cancel := context.WithCancel(soon(t))
	var once sync.Once
	var at int64
	stats, err := Live{Packet: frame(64), Exchange: &x, ProgressInterval: 20 * time.Millisecond, Progress: func(s LiveStats) {
		if s.Frames == 0 {
			return
		}
		once.Do(func() {
			need(t, x.Put(second.Program))
			at = liveCount(t, first)
		})
		if liveCount(t, second) > 0 {
			cancel()
		}
	}}.Run(ctx, first.Program)
	if err != nil {
		needLiveCarrier(t, err)
	}
	// One frame may have been in the first program as Put returned.
	if all := liveCount(t, first); at == 0 || all > at+1 || stats.Frames != all+liveCount(t, second) || stats.Uncertain != 0 {
		t.Errorf("%d frames before, %d in all; then %d; %+v", at, all, liveCount(t, second), stats)
	}
	wantError(t, x.Put(second.Program), "progrun: Exchange: no run is under way: invalid argument", unix.EINVAL, RanNo)
}

// TestExchangeRefusals has a run go on with its program if another one does not fit.
func TestExchangeRefusals(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	closed := assemble(t, ebpf.AttachXDP, nothingInsns())
	closed.Close()
	tc, frags := load(t, "tc", "tc_mark"), load(t, "xdp_frags", "xdp_frags_pass")
	devmap, cpumap := assemble(t, ebpf.AttachXDPDevMap, nothingInsns()), assemble(t, ebpf.AttachXDPCPUMap, nothingInsns())
	var x Exchange
	ctx, cancel := context.WithCancel(soon(t))
	stats, err := Live{Packets: capture(3), Exchange: &x, Rate: 1000, ProgressInterval: time.Millisecond, Progress: func(s LiveStats) {
		if s.Frames == 0 || ctx.Err() != nil {
			return
		}
		for _, c := range []struct {
			prog *ebpf.Program
			text string
			is   error
		}{
			{nil, "progrun: Exchange: the program is nil", unix.EINVAL},
			{closed, "progrun: Exchange: the program is closed", unix.EBADF},
			{tc.Program, "progrun: Exchange: runs XDP programs, not SchedCLS", unix.EINVAL},
			{frags.Program, "progrun: Exchange: the program does not fit the first program of the run", unix.EINVAL},
			{devmap, "progrun: Exchange: " + neverRunsText, unix.EINVAL},
			{cpumap, "progrun: Exchange: " + neverRunsText, unix.EINVAL},
		} {
			wantError(t, x.Put(c.prog), c.text, c.is, RanNo)
		}
		cancel()
	}}.Run(ctx, o.Program)
	needLiveCarrier(t, err)
	if n := liveCount(t, o); n == 0 || stats.Frames != n || stats.Verdicts.Drop != n {
		t.Errorf("the program ran %d times; %+v", n, stats)
	}
}

// TestLiveTimes runs packets at their times.
func TestLiveTimes(t *testing.T) {
	packets := capture(40)
	times := make([]time.Duration, len(packets))
	for i := range times {
		times[i] = 5*time.Millisecond + time.Duration(i)*time.Duration(i)*20*time.Microsecond
	}
	times[7] = times[8] // at once
	for _, speed := range []float64{0, 2} {
		atBest(t, fmt.Sprintf("speed %g: frames are at their times", speed), func() bool {
			prog, seen, _ := lengths(t, 1000)
			stats, err := Live{Packets: packets, Times: times, Speed: speed, Frames: 3 * int64(len(packets))}.Run(soon(t), prog)
			needLiveCarrier(t, err)
			if stats.Frames != 3*int64(len(packets)) || stats.Missed != 0 {
				t.Errorf("%+v", stats)
			}
			got := seen()
			if len(got) != 3*len(packets) {
				t.Fatalf("%d frames ran", len(got))
			}
			var off []time.Duration
			for i, s := range got {
				if s.length != len(packets[i%len(packets)]) {
					t.Fatalf("frame %d has %d bytes", i, s.length)
				}
				at := time.Duration(i/len(packets))*times[len(times)-1] + times[i%len(packets)]
				at = time.Duration(float64(at-times[0]) / max(speed, 1))
				off = append(off, s.at-got[0].at-at)
			}
			// The first call finds cold caches, which makes its frame late. The other
			// frames are measured against each other.
			slices.Sort(off)
			shift := off[len(off)/2]
			for i := range off {
				off[i] = (off[i] - shift).Abs()
			}
			slices.Sort(off)
			median := off[len(off)/2]
			t.Logf("speed %g: off by %v in the median, %v at most", speed, median, off[len(off)-1])
			// Most frames are farther apart than this.
			return median < 200*time.Microsecond && stats.LimitedBy == LimitRate
		})
	}
}

// TestLiveTimesLate has times that no machine can keep, and times that are all the
// same: every packet runs, in order, and none is missed.
func TestLiveTimesLate(t *testing.T) {
	const packets = 100
	for _, c := range []struct {
		apart  time.Duration
		speed  float64
		frames int64
		kept   bool
	}{{time.Second, 1e9, many() / 2, false}, {0, 0, 2*packets + 7, true}} {
		frames := c.frames
		times := make([]time.Duration, packets)
		for i := range times {
			times[i] = time.Duration(i) * c.apart
		}
		prog, seen := orderly(t, packets)
		stats, err := Live{Packets: numberedCapture(packets), Times: times, Speed: c.speed, Frames: frames}.Run(soon(t), prog)
		needLiveCarrier(t, err)
		if ran, wrong := seen(); ran != frames || wrong != 0 || stats.Frames != frames || stats.Missed != 0 {
			t.Errorf("%v apart: %d frames, %d of them not in order; %+v", c.apart, ran, wrong, stats)
		}
		if !c.kept && stats.Wall > 2*makeUp && stats.LimitedBy == LimitRate {
			t.Errorf("%v apart: %d frames in %v, limited by %v", c.apart, frames, stats.Wall, stats.LimitedBy)
		}
		if batch := int64(defaultBatchSize); stats.Calls < frames/batch {
			t.Errorf("%v apart: %d calls, some of more than a batch", c.apart, stats.Calls)
		}
	}
}

// TestLiveTimesAfterHoldUp has a worker begin 100 minutes late: what is due runs
// at once, and what comes later does not.
func TestLiveTimesAfterHoldUp(t *testing.T) {
	live := Live{Packets: capture(4), Times: []time.Duration{0, time.Hour, 2 * time.Hour, 3 * time.Hour}}
	for speed, want := range map[float64]int64{0: 2, 2: 5, 4: 9, 0.5: 1} {
		live.Speed = speed
		r := newLiveRun(&live, context.Background(), nil)
		r.start = time.Now().Add(-100 * time.Minute)
		s := newPacer(r.workers[0]).(*schedule)
		if n := s.wait(0); n != want {
			t.Errorf("speed %g: %d frames run at once, want %d", speed, n, want)
		}
		if stats := r.stats(0); stats.Missed != 0 || stats.LimitedBy == LimitRate {
			t.Errorf("speed %g: %+v", speed, stats)
		}
	}
}

// TestLivePacketsRefusals refuses what cannot run before the first frame.
func TestLivePacketsRefusals(t *testing.T) {
	two := [][]byte{frame(64), frame(65)}
	for _, c := range []struct {
		name string
		live Live
		text string
		is   error
	}{
		{"packet too", Live{Packet: frame(64), Packets: two}, "Live.Packet: 64 bytes: there are Packets too", unix.EINVAL},
		{"short", Live{Packets: [][]byte{frame(64), frame(13)}}, "Live.Packets[1]: 13 bytes: a packet begins with", unix.EINVAL},
		{"large", Live{Packets: [][]byte{frame(64), frame(pageSize - 100), frame(70)}}, "Live.Packets[1]: " + size(pageSize-100) + ": the packet is too large for a live frame: at most ", unix.EINVAL},
		{"huge", Live{Packets: [][]byte{frame(pageSize + 1)}}, "Live.Packets[0]: " + size(pageSize+1) + ": a live frame fits in a page", unix.EINVAL},
		{"metadata", Live{Packets: two, Metadata: make([]byte, 5)}, "Live.Metadata: 5 bytes: metadata must be a multiple of 4", unix.EINVAL},
		{"few times", Live{Packets: two, Times: []time.Duration{1}}, "Live.Times: 1 times: there must be one for each of the 2 Packets", unix.EINVAL},
		{"times of none", Live{Packet: frame(64), Times: []time.Duration{1}}, "Live.Times: 1 times: there must be one for each of the 0 Packets", unix.EINVAL},
		{"time before", Live{Packets: two, Times: []time.Duration{2, 1}}, "Live.Times[1]: 1ns: it is before 2ns", unix.EINVAL},
		{"negative time", Live{Packets: two, Times: []time.Duration{-2, 1}}, "Live.Times[0]: -2ns: it is before 0s", unix.EINVAL},
		{"speed alone", Live{Packets: two, Speed: 1}, "Live.Speed: 1: there are no Times", unix.EINVAL},
		{"speed", Live{Packets: two, Times: []time.Duration{1, 2}, Speed: -1}, "Live.Speed: -1: it must be a number above 0", unix.EINVAL},
		{"no speed", Live{Packets: two, Times: []time.Duration{1, 2}, Speed: math.NaN()}, "Live.Speed: NaN: it must be a number above 0", unix.EINVAL},
		{"times and rate", Live{Packets: two, Times: []time.Duration{1, 2}, Rate: 5}, "Live.Rate: 5: there are Times too", unix.EINVAL},
		{"times of two", Live{Packets: two, Times: []time.Duration{1, 2}, CPUs: []int{0, 1}}, "Live.CPUs: 2 workers: Times need a single worker", unix.EINVAL},
		{"CPU beyond all", Live{Packets: two, CPUs: []int{math.MaxInt32}}, "Live.CPUs: 2147483647: no such CPU is online", unix.EINVAL},
		{"large capture", Live{Packets: slices.Repeat([][]byte{frame(3000)}, 1500000)}, "Live.Packets: 1500000 packets: take ", unix.E2BIG},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := loadLive(t, "xdp_drop")
			c.live.Frames = 1
			_, err := c.live.Run(context.Background(), o.Program)
			wantError(t, err, c.text, c.is, RanNo)
			if n := liveCount(t, o); n != 0 {
				t.Errorf("%d frames ran", n)
			}
		})
	}
}

// TestLiveCarrierEnds checks that nothing is left of a carrier.
func TestLiveCarrierEnds(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	before := carriers(t)
	stats, err := Live{Packets: capture(3), Frames: 1000}.Run(soon(t), o.Program)
	needLiveCarrier(t, err)
	func() {
		defer func() { _ = recover() }()
		_, _ = Live{Packets: capture(3), ProgressInterval: time.Millisecond, Progress: func(LiveStats) { panic("left") }}.Run(soon(t), o.Program)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := (Live{Packets: capture(3), CountVerdicts: true}).Run(ctx, o.Program); err != nil {
		t.Error(err)
	}
	if n := carriers(t); n != before || !stats.Held {
		t.Errorf("%d carriers are left, before %d; %+v", n, before, stats)
	}
}

// TestLivePacketsMissed has a rate that no machine can keep: what is missed leaves no gap
// in the capture.
func TestLivePacketsMissed(t *testing.T) {
	const packets = 100
	prog, seen := orderly(t, packets)
	frames := many() / 2
	stats, err := Live{Packets: numberedCapture(packets), Rate: 1e9, Frames: frames}.Run(soon(t), prog)
	needLiveCarrier(t, err)
	missed := stats.Missed > 0 && stats.LimitedBy != LimitRate || stats.Wall < 2*makeUp
	if ran, wrong := seen(); ran != frames || wrong != 0 || stats.Frames != frames || !missed {
		t.Errorf("%d frames, %d of them not in order; %+v", ran, wrong, stats)
	}
}

// TestLivePacketsMoved has programs move the ends of the frames: the next ones are those
// of the capture all the same.
func TestLivePacketsMoved(t *testing.T) {
	move := func(helper asm.BuiltinFunc, by int32) asm.Instructions {
		return asm.Instructions{asm.Mov.Reg(asm.R1, asm.R9), asm.Mov.Imm(asm.R2, by), helper.Call()}
	}
	const packets, frames = 50, 5000
	for name, then := range map[string]asm.Instructions{
		"head back":  move(asm.FnXdpAdjustHead, -100),
		"head forth": move(asm.FnXdpAdjustHead, 9),
		"tail back":  move(asm.FnXdpAdjustTail, -10),
		"tail forth": move(asm.FnXdpAdjustTail, 40),
		"metadata":   move(asm.FnXdpAdjustMeta, -16),
		"all": slices.Concat(move(asm.FnXdpAdjustMeta, -16), move(asm.FnXdpAdjustHead, -60), move(asm.FnXdpAdjustTail, -20),
			move(asm.FnXdpAdjustHead, 70), move(asm.FnXdpAdjustTail, 33), move(asm.FnXdpAdjustMeta, 8)),
	} {
		for _, metadata := range [][]byte{nil, {1, 2, 3, 4, 5, 6, 7, 8}} {
			prog, seen := orderly(t, packets, then...)
			stats, err := Live{Packets: numberedCapture(packets), Metadata: metadata, Frames: frames}.Run(soon(t), prog)
			needLiveCarrier(t, err)
			if ran, wrong := seen(); ran != frames || wrong != 0 || stats.Frames != frames || stats.Verdicts.Drop != frames {
				t.Errorf("%s, %d bytes of metadata: %d frames, %d of them not in order; %+v", name, len(metadata), ran, wrong, stats)
			}
		}
	}
}

// TestLivePacketsAtTheLimit runs captures with the smallest frames and the largest, with
// as much metadata as there can be, and refuses what is one byte larger.
func TestLivePacketsAtTheLimit(t *testing.T) {
	for _, metadata := range []int{0, 4, 32, 216} {
		prog, seen, _ := lengths(t, 300)
		fits := func(n int) bool {
			l := Live{Packet: frame(n), Metadata: make([]byte, metadata), Frames: 1}
			return l.askKernel(prog) == nil
		}
		if !fits(64) {
			t.Logf("this kernel does not take %d bytes of metadata", metadata)
			continue
		}
		most := sort.Search(pageSize, func(n int) bool { return n > 64 && !fits(n) }) - 1
		live := Live{Packets: [][]byte{frame(14), frame(most), frame(15), frame(most - 1), frame(14)}, Metadata: make([]byte, metadata), Frames: 300}
		stats, err := live.Run(soon(t), prog)
		needLiveCarrier(t, err)
		for i, s := range seen() {
			if want := len(live.Packets[i%len(live.Packets)]); s.length != want {
				t.Fatalf("%d bytes of metadata, frame %d: %d bytes, want %d", metadata, i, s.length, want)
			}
		}
		if stats.Frames != 300 || stats.Bytes != 60*int64(14+most+15+most-1+14) {
			t.Errorf("%d bytes of metadata: %+v", metadata, stats)
		}
		t.Logf("%d bytes of metadata: frames of up to %d bytes", metadata, most)
		live.Packets[3] = frame(most + 1)
		_, err = live.Run(soon(t), prog)
		wantError(t, err, "Live.Packets[3]: "+size(most+1)+": the packet is too large for a live frame: at most ", unix.EINVAL, RanNo)
	}
}
