//go:build linux

package progrun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manyRuns is a Repeat that takes some tenths of a second. Emulated machines are slow.
func manyRuns() int {
	if os.Getenv("PROGRUN_KERNEL_MATRIX") != "" {
		return 200_000
	}
	return 5_000_000
}

// signalStorm sends signals to the process and to each of its threads until it is
// stopped, and returns how many it sent.
func signalStorm(t *testing.T) (stop func() int) {
	t.Helper()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGUSR1, unix.SIGCHLD)
	var quit atomic.Bool
	var wg sync.WaitGroup
	var sent atomic.Int64
	pid := os.Getpid()
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !quit.Load() {
			unix.Kill(pid, unix.SIGUSR1)
			unix.Kill(pid, unix.SIGCHLD)
			threads, err := os.ReadDir("/proc/self/task")
			if err != nil {
				continue
			}
			for _, thread := range threads {
				if tid, err := strconv.Atoi(thread.Name()); err == nil && unix.Tgkill(pid, tid, unix.SIGUSR1) == nil {
					sent.Add(1)
				}
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	return func() int {
		quit.Store(true)
		wg.Wait()
		// The signals stay caught, since one that is still on its way would otherwise
		// end the process.
		return int(sent.Load())
	}
}

// TestRepeatUnderSignals checks that a program runs exactly as often as asked, whatever
// signals come.
func TestRepeatUnderSignals(t *testing.T) {
	tc, xdp := load(t, "tc", "tc_mark"), load(t, "xdp", "xdp_ctx")
	stop := signalStorm(t)
	defer stop()
	n := manyRuns()
	for _, c := range []struct {
		o   *object
		run func() error
	}{
		{tc, func() error { _, err := TC{Packet: frame(64), Repeat: n, NoOutput: true}.Run(tc.Program); return err }},
		{xdp, func() error { _, err := XDP{Packet: frame(64), Repeat: n, NoOutput: true}.Run(xdp.Program); return err }},
	} {
		for i := range 2 {
			if err := c.run(); err != nil {
				t.Errorf("%s: %v", c.o.Type(), err)
			}
			if got, want := runs(t, c.o), uint64(n*(i+1)); got != want {
				t.Errorf("%s: ran %d times, want %d", c.o.Type(), got, want)
			}
		}
	}
	if sent := stop(); sent == 0 {
		t.Error("no signal was sent")
	}
}

// TestSingleRunUnderSignals checks that signals do not interrupt a single run. They are
// blocked only on kernels where they could.
func TestSingleRunUnderSignals(t *testing.T) {
	tc := load(t, "tc", "tc_mark")
	stop := signalStorm(t)
	defer stop()
	n := manyRuns() / 1000
	for range n {
		if _, err := (TC{Packet: frame(64)}).Run(tc.Program); err != nil {
			t.Fatal(err)
		}
	}
	if got := runs(t, tc); got != uint64(n) {
		t.Errorf("ran %d times, want %d", got, n)
	}
}

// TestRepeatUnderProfiler runs under the signals of the CPU profiler, which other
// goroutines keep busy.
func TestRepeatUnderProfiler(t *testing.T) {
	tc := load(t, "tc", "tc_mark")
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Skipf("the profiler is in use: %v", err)
	}
	defer pprof.StopCPUProfile()
	var quit atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !quit.Load() {
				runtime.Gosched()
			}
		}()
	}
	n := manyRuns()
	_, err := TC{Packet: frame(64), Repeat: n, NoOutput: true}.Run(tc.Program)
	quit.Store(true)
	wg.Wait()
	if err != nil {
		t.Error(err)
	}
	if got := runs(t, tc); got != uint64(n) {
		t.Errorf("ran %d times, want %d", got, n)
	}
}

// signalMask returns the signal mask of the calling thread.
func signalMask(t *testing.T) (mask unix.Sigset_t) {
	t.Helper()
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask); err != nil {
		t.Fatal(err)
	}
	return mask
}

// TestSignalMaskIsRestored checks the mask after runs that block signals, after runs
// that do not, and after runs that fail.
func TestSignalMaskIsRestored(t *testing.T) {
	tc := load(t, "tc", "tc_mark")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	original := signalMask(t)
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &original, nil)
	one := unix.Sigset_t{}
	one.Val[0] = 1 << (unix.SIGUSR2 - 1)
	// The caller has blocked no signal, one signal, or all.
	for _, block := range []*unix.Sigset_t{{}, &one, allSignals()} {
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, block, nil); err != nil {
			t.Fatal(err)
		}
		before := signalMask(t)
		for _, req := range []TC{
			{Packet: frame(64)}, {Packet: frame(64), Repeat: 100},
			{Packet: frame(64), Repeat: 100, Context: SKB{Ifindex: 4242}}, {Packet: frame(64), Context: SKB{Ifindex: 4242}},
		} {
			_, err := req.Run(tc.Program)
			if (err != nil) != (req.Context.Ifindex != 0) {
				t.Error(err)
			}
			if after := signalMask(t); after != before {
				t.Errorf("%+v: signals blocked before: %x, after: %x", req, before, after)
			}
		}
	}
}

// TestThreadIsReleased checks that a goroutine is not locked to its thread after a run.
// If it ended while it was locked, its thread would end too.
func TestThreadIsReleased(t *testing.T) {
	tc := load(t, "tc", "tc_mark")
	first := tcThread(t, tc)
	for range 200 {
		tcThread(t, tc)
	}
	if err := unix.Tgkill(os.Getpid(), first, 0); err != nil {
		t.Errorf("the thread of the first run is gone: %v", err)
	}
}

// tcThread makes a run on a new goroutine, and returns the thread that it ran on.
func tcThread(t *testing.T, o *object) int {
	done := make(chan int)
	go func() {
		if _, err := (TC{Packet: frame(64), Repeat: 2, NoOutput: true}).Run(o.Program); err != nil {
			t.Error(err)
		}
		done <- unix.Gettid()
	}()
	return <-done
}

// TestAllThreadsSyscall interrupts every thread, which no mask prevents. A run is then
// cut short and says so, and nothing hangs.
func TestAllThreadsSyscall(t *testing.T) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == syscall.ENOTSUP {
		t.Skip("built with cgo: the Go runtime cannot interrupt all threads")
	}
	o := load(t, "tc", "tc_mark")
	n := manyRuns()
	for i := range 5 {
		before := runs(t, o)
		result := make(chan error, 1)
		go func() {
			_, err := TC{Packet: frame(64), Repeat: n, NoOutput: true}.Run(o.Program)
			result <- err
		}()
		time.Sleep(time.Duration(i*2) * time.Millisecond)
		if pid, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 || int(pid) != os.Getpid() {
			t.Errorf("AllThreadsSyscall: %d, %v", pid, errno)
		}
		var err error
		select {
		case err = <-result:
		case <-time.After(time.Minute):
			t.Fatal("the run has not come back")
		}
		ran := runs(t, o) - before
		if err == nil {
			if ran != uint64(n) {
				t.Errorf("ran %d times, want %d", ran, n)
			}
			continue
		}
		wantError(t, err, "progrun: TC: interrupted after the program ran at least once; the kernel does not say how often: interrupted system call", unix.EINTR, RanYes)
		if ran == 0 || ran > uint64(n) {
			t.Errorf("interrupted, and ran %d times", ran)
		}
	}
}

// TestInterruptedSaysSo checks the text for an errno that a test cannot produce at
// will.
func TestInterruptedSaysSo(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	a := newAttr(uint32(o.FD()), frame(64), nil, nil, nil, 0, 0)
	err := explain(unix.EINTR, newCall("TC", skbNames, o.Program, &a))
	wantError(t, err, "interrupted after the program ran at least once", unix.EINTR, RanYes)
	if errors.Is(err, unix.EINVAL) || fmt.Sprint(err) == "" {
		t.Errorf("got %v", err)
	}
}
