package progrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/progrun/progrun/internal/carrier"
)

// bpfObject is a program, a map or a link of the kernel.
type bpfObject struct {
	kind string // as in /proc/PID/fdinfo: prog, map or link
	id   uint32
}

// exists reports whether the kernel still has the object. It opens no map, since a
// kernel leaks an array of programs that is opened by its ID while it is released.
func (o bpfObject) exists(t testing.TB) bool {
	t.Helper()
	var next uint32
	var err error
	switch o.kind {
	case "prog":
		var id ebpf.ProgramID
		id, err = ebpf.ProgramGetNextID(ebpf.ProgramID(o.id - 1))
		next = uint32(id)
	case "map":
		var id ebpf.MapID
		id, err = ebpf.MapGetNextID(ebpf.MapID(o.id - 1))
		next = uint32(id)
	default:
		var l link.Link
		if l, err = link.NewFromID(link.ID(o.id)); err == nil {
			next = o.id
			l.Close()
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil && next == o.id
}

var objectID = regexp.MustCompile(`(?m)^(prog|map|link)_id:\s+(\d+)$`)

// objectsOf returns the programs, maps and links that a process has open, other than
// those of before.
func objectsOf(t testing.TB, pid string, before map[bpfObject]bool) map[bpfObject]bool {
	t.Helper()
	all := make(map[bpfObject]bool)
	files, err := os.ReadDir("/proc/" + pid + "/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile("/proc/" + pid + "/fdinfo/" + file.Name()) // which may be closed by now
		for _, m := range objectID.FindAllSubmatch(text, -1) {
			id, _ := strconv.ParseUint(string(m[2]), 10, 32)
			if o := (bpfObject{string(m[1]), uint32(id)}); !before[o] {
				all[o] = true
			}
		}
	}
	return all
}

// wantGone waits for objects to be gone. There must have been some.
func wantGone(t testing.TB, objects map[bpfObject]bool) {
	t.Helper()
	kinds := make(map[string]int)
	for o := range objects {
		kinds[o.kind]++
	}
	if kinds["prog"] == 0 || kinds["map"] < 2 {
		t.Errorf("there was no carrier, but %v", kinds)
	}
	deadline := time.Now().Add(10 * time.Second)
	for o := range objects {
		for o.exists(t) {
			if time.Now().After(deadline) {
				t.Errorf("%s %d is left", o.kind, o.id)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// wantFree wants nothing but the test to keep a program. It closes the program.
func wantFree(t testing.TB, o *object) {
	t.Helper()
	id, err := programID(o.Program)
	if err != nil {
		return // it is closed
	}
	o.Program.Close()
	program := bpfObject{"prog", id}
	for deadline := time.Now().Add(10 * time.Second); program.exists(t); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("something keeps the program")
			return
		}
	}
}

// openFiles counts what this process has open, by kind: programs, maps, links,
// sockets and namespaces among them.
func openFiles(t testing.TB) map[string]int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, file := range files {
		if to, err := os.Readlink("/proc/self/fd/" + file.Name()); err == nil {
			kind, _, _ := strings.Cut(to, ":[")
			kinds[kind]++
		}
	}
	return kinds
}

// leavesNothing calls f, which calls note while there is a carrier. Afterwards nothing
// of it may be left, in this process or in the kernel.
func leavesNothing(t *testing.T, f func(note func())) {
	t.Helper()
	waitForCarriers(t) // of other tests
	open, before := openFiles(t), objectsOf(t, "self", nil)
	var noted map[bpfObject]bool
	f(func() { noted = objectsOf(t, "self", before) })
	wantGone(t, noted)
	var more []string
	for range 100 {
		more = nil
		for kind, n := range openFiles(t) {
			if n > open[kind] {
				more = append(more, fmt.Sprintf("%s: %d, before %d", kind, n, open[kind]))
			}
		}
		if more == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("open are %s", more)
}

// waitForCarriers waits until this process has no carriers.
func waitForCarriers(t *testing.T) {
	t.Helper()
	for range 100 {
		if carriers(t) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d carriers are left", carriers(t))
}

// TestBatchLeavesNothing ends batches that carry in every way there is.
func TestBatchLeavesNothing(t *testing.T) {
	for name, leave := range map[string]func(*object) bool{
		"break":          func(*object) bool { return true },
		"panic":          func(*object) bool { panic("left") },
		"Goexit":         func(*object) bool { runtime.Goexit(); return true },
		"closed program": func(o *object) bool { o.Program.Close(); return false },
		"end of inputs":  func(*object) bool { return false },
	} {
		for _, workers := range []int{1, 2} {
			if workers > 1 && emulated {
				continue // each takes seconds there
			}
			t.Run(fmt.Sprint(name, workers), func(t *testing.T) {
				o := load(t, "xdp", "xdp_filter")
				needCarrierOf(t, o)
				leavesNothing(t, func(note func()) {
					untilLeft(t, func() { leaveCarrying(t, o, workers, note, leave) })
				})
				wantFree(t, o)
			})
		}
	}
}

// leaveCarrying runs a batch, and leaves it in its middle once it carries.
func leaveCarrying(t *testing.T, o *object, workers int, note func(), leave func(*object) bool) {
	middle := carryFrom(workers) + 2000
	inputs := middle + 8000
	batch := Batch(o.Program, Packets(XDP{}, withPause(workers, again(udp4(somewhere, 7, 1, 2, 3), inputs))),
		&BatchOptions{Ahead: 600, Workers: workers, KeepGoing: true})
	n := 0
	for res, err := range batch {
		if n++; res.Input != n {
			t.Errorf("result %d is that of input %d", n, res.Input)
		}
		if err != nil && n <= middle {
			t.Error(err)
		}
		// A closed program runs what was pulled before, and then nothing.
		if err == nil && (res.Result.Action != XDPTX || len(res.Result.Packet) != 45) {
			t.Errorf("result %d: %+v", n, res.Result)
		}
		if n == middle {
			note()
			if leave(o) {
				return
			}
		}
	}
	if n != inputs {
		t.Errorf("%d results of %d inputs", n, inputs)
	}
	if o.FD() < 0 { // and says so
		for _, err := range Batch(o.Program, Packets(XDP{}, again(frame(64), 1)), nil) {
			wantError(t, err, "the program is closed", unix.EBADF, RanNo)
		}
	}
}

// needCarrierOf skips a test where a program cannot be carried.
func needCarrierOf(t *testing.T, o *object) {
	t.Helper()
	c, err := carrier.New(o.Program, carrier.Options{Chunks: 1, Packets: 1})
	needLiveCarrier(t, err)
	c.Close()
}

// TestLiveLeavesNothing ends runs with a carrier in every way there is.
func TestLiveLeavesNothing(t *testing.T) {
	for name, leave := range map[string]func(cancel func()){
		"cancel": func(cancel func()) { cancel() },
		"panic":  func(func()) { panic("left") },
		"Goexit": func(func()) { runtime.Goexit() },
	} {
		for kind, live := range map[string]Live{
			"packets":  {Packets: capture(3)},
			"times":    {Packets: capture(3), Times: []time.Duration{1e6, 2e6, 3e6}},
			"verdicts": {Packet: frame(64), CountVerdicts: true, CPUs: []int{0, 1}},
			"exchange": {Packet: frame(64), Exchange: new(Exchange)},
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				o := loadLive(t, "xdp_drop")
				needCarrierOf(t, o)
				leavesNothing(t, func(note func()) {
					untilLeft(t, func() {
						ctx, cancel := context.WithCancel(soon(t))
						live.ProgressInterval = time.Millisecond
						live.Progress = func(s LiveStats) {
							if s.Frames > 0 {
								note()
								leave(cancel)
							}
						}
						stats, err := live.Run(ctx, o.Program)
						wantLast(t, o, live, stats, err)
					})
				})
				ran := liveCount(t, o)
				time.Sleep(20 * time.Millisecond)
				if n := liveCount(t, o); n != ran {
					t.Errorf("%d frames after the end", n-ran)
				}
				if live.Exchange != nil {
					wantError(t, live.Exchange.Put(o.Program), "no run is under way", unix.EINVAL, RanNo)
				}
				wantFree(t, o)
			})
		}
	}
}

// untilLeft calls f, which may end by runtime.Goexit or by a panic of "left".
func untilLeft(t *testing.T, f func()) {
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		f()
	}()
	if v := <-done; v != nil && v != "left" {
		t.Errorf("panic: %v", v)
	}
}

// wantLast holds that a run that was canceled counted all its frames.
func wantLast(t *testing.T, o *object, live Live, stats LiveStats, err error) {
	t.Helper()
	if n := liveCount(t, o); err != nil || stats.Frames != n || stats.Verdicts != (LiveVerdicts{Drop: n}) || stats.Uncertain != 0 {
		t.Errorf("%+v: %+v, %v, want %d frames", live, stats, err, n)
	}
}

// TestCarrierKilled kills processes in the middle of what a carrier does.
func TestCarrierKilled(t *testing.T) {
	need(t, HaveXDPLiveFrames())
	kills := 10
	if emulated {
		kills = 2
	}
	for _, what := range []string{carryingBatch, carryingWorkers, carryingLive, carryingVerdicts} {
		t.Run(what, func(t *testing.T) {
			o := loadLive(t, "xdp_drop")
			needCarrierOf(t, o)
			for i := range kills {
				killCarrying(t, o, what, time.Duration(i)*time.Millisecond)
			}
			wantNothingHeld(t, o)
		})
	}
}

// killCarrying starts a process that carries, and kills it some time after it has
// begun to.
func killCarrying(t *testing.T, o *object, what string, after time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(exe, what)
	cmd.ExtraFiles = []*os.File{descriptor(t, o)}
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := programID(o.Program)
	if err != nil {
		t.Fatal(err)
	}
	inherited := map[bpfObject]bool{{"prog", id}: true}
	var objects map[bpfObject]bool
	for deadline := time.Now().Add(20 * time.Second); !carries(objects, o); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("the process carries nothing: %s", &output)
		}
		objects = objectsOf(t, strconv.Itoa(cmd.Process.Pid), inherited)
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if output.Len() > 0 {
		t.Error(output.String())
	}
	wantGone(t, objects)
}

// carries reports whether the objects of a process are those of a carrier that is
// held.
func carries(objects map[bpfObject]bool, o *object) bool {
	for object := range objects {
		if object.kind == "link" || object.kind == "prog" && !hasDispatcher(o.Program) {
			return true
		}
	}
	return false
}

// What a process with a carrier does until it is killed.
const (
	carryingBatch, carryingWorkers = "carrying-batch", "carrying-workers"
	carryingLive, carryingVerdicts = "carrying-live", "carrying-verdicts"
)

func runCarryingBatch()   { carryBatch(1) }
func runCarryingWorkers() { carryBatch(2) }

func carryBatch(workers int) {
	prog, err := ebpf.NewProgramFromFD(3)
	if err != nil {
		fmt.Println(err)
		return
	}
	begin := time.Now()
	for res, err := range Batch(prog, Packets(XDP{}, again(frame(64), math.MaxInt)), &BatchOptions{Ahead: 1024 * workers, Workers: workers}) {
		if err != nil || res.Result.Action != XDPDrop || time.Since(begin) > time.Minute {
			fmt.Println(res.Input, res.Result.Action, err)
			return
		}
	}
}

func runCarryingLive() { carryLive(Live{Packets: capture(100)}) }
func runCarryingVerdicts() {
	carryLive(Live{Packet: frame(64), CountVerdicts: true, CPUs: []int{0, 1}})
}

func carryLive(live Live) {
	prog, err := ebpf.NewProgramFromFD(3)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(live.Run(ctx, prog))
}
