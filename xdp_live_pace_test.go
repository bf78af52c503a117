package progrun

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLivePace runs at rates that the machine can reach.
func TestLivePace(t *testing.T) {
	for _, c := range []struct {
		rate    int
		workers []int
	}{
		{10, nil}, {1000, nil}, {100_000, nil}, {100_000, []int{0, 1}}, {1_000_000, nil},
	} {
		t.Run(fmt.Sprint(c.rate, c.workers), func(t *testing.T) {
			atBest(t, "the rate is kept within 2 %", func() bool {
				stats := livePaced(t, c.rate, c.workers)
				// The time before the first frame is not the run's.
				want := float64(c.rate) * stats.Wall.Seconds()
				t.Logf("%.4f of the rate; %d missed, %d calls, %v", float64(stats.Frames)/want, stats.Missed, stats.Calls, stats.LimitedBy)
				if float64(stats.Frames+stats.Missed) > want*1.01+2 {
					t.Errorf("ran %d and missed %d frames in %v, want %.0f", stats.Frames, stats.Missed, stats.Wall, want)
				}
				adds := isClose(stats.Frames+stats.Missed, want)
				return adds && isClose(stats.Frames, want) && stats.LimitedBy == LimitRate
			})
		})
	}
}

// isClose reports whether the number of frames is what was wanted by 2 %, and those
// at the two ends. A worker that is behind at the end is so by 20 ms at most.
func isClose(frames int64, want float64) bool {
	return float64(frames) >= want*0.98-1 && float64(frames) <= want*1.01+2
}

func livePaced(t *testing.T, rate int, workers []int) LiveStats {
	o := loadLive(t, "xdp_drop")
	duration := time.Second
	if emulated {
		duration = 300 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	stats, err := Live{Packet: frame(64), Rate: rate, CPUs: workers}.Run(ctx, o.Program)
	wantExact(t, o, stats, err, stats.Frames)
	return stats
}

// TestLivePaceWithoutMakingUp asks for a rate that the machine cannot reach.
func TestLivePaceWithoutMakingUp(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	ctx, cancel := context.WithTimeout(context.Background(), 5*makeUp)
	defer cancel()
	stats, err := Live{Packet: frame(64), Rate: 1e9}.Run(ctx, o.Program)
	wantExact(t, o, stats, err, stats.Frames)
	if stats.Missed == 0 || stats.LimitedBy == LimitRate {
		t.Errorf("1,000,000,000 frames a second and none missed: %+v", stats)
	}
}

// TestLivePaceBursts holds a worker up repeatedly, by another thread on its CPU. The
// program looks at the time of each frame.
func TestLivePaceBursts(t *testing.T) {
	for batch, rate := range map[int]int{1: 10_000, 16: 100_000, 64: 100_000} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			// Where the rate is out of reach, as under emulation, calls run all that is
			// due: then bursts say nothing.
			atBest(t, "no burst is longer than a batch", func() bool { return longestBurst(t, batch, rate) == batch })
		})
	}
}

func longestBurst(t *testing.T, batch, rate int) int {
	o := loadLive(t, "xdp_burst")
	stop := occupy(t, 0)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	stats, err := Live{Packet: frame(64), Rate: rate, BatchSize: batch, CPUs: []int{0}}.Run(ctx, o.Program)
	cancel()
	stop()
	wantExact(t, o, stats, err, stats.Frames)
	// For the program, frames that are 25 µs apart are not in one burst.
	apart := time.Duration(float64(batch) * 1e9 / float64(rate) / catchUp)
	if took := time.Duration(batch) * stats.PerFrame; emulated && took+25*time.Microsecond > apart {
		t.Skipf("%d frames take %v on this machine, too long to tell batches apart that come every %v", batch, took, apart)
	}
	var bursts []struct{ Last, Frames, Longest uint64 }
	if err := o.maps["burst"].Lookup(uint32(0), &bursts); err != nil {
		t.Fatal(err)
	}
	t.Logf("a burst of %d; %d frames, %d missed, %d calls", bursts[0].Longest, stats.Frames, stats.Missed, stats.Calls)
	return int(bursts[0].Longest)
}

// TestLivePaceAfterHoldUp holds up the first call of a run. The next batch still keeps
// its distance.
func TestLivePaceAfterHoldUp(t *testing.T) {
	p := newPace(newLiveRun(&Live{Rate: 100_000}, context.Background(), nil).workers[0])
	const end = 10 * time.Millisecond
	p.ran(timedCall{frames: 16, took: end}, end)
	if gap := time.Duration(p.next) - end; gap < 120*time.Microsecond || gap > 128*time.Microsecond {
		t.Errorf("the next batch comes %v after 16 frames, want 128 µs, less what a call takes", gap)
	}
}

// occupy has another process keep a CPU busy until stop is called. A goroutine would
// also keep the workers from going on after each call, where Go has few threads.
func occupy(t *testing.T, cpu int) (stop func()) {
	t.Helper()
	spinner := exec.Command("sh", "-c", "ulimit -t 60; while :; do :; done")
	if err := spinner.Start(); err != nil {
		t.Fatal(err)
	}
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(spinner.Process.Pid, &one); err != nil {
		t.Error(err)
	}
	return func() {
		_ = spinner.Process.Kill()
		_ = spinner.Wait()
	}
}

// TestLivePaceSleeps measures how much of a CPU a rate takes, also after a time in
// which sleeps ended late.
func TestLivePaceSleeps(t *testing.T) {
	for _, c := range []struct {
		rate int
		most float64
	}{{1000, 0.3}, {3000, 0.5}} { // a worker that spins takes all
		atBest(t, fmt.Sprintf("%d frames/s take little of a CPU", c.rate), func() bool {
			stop := occupy(t, 0)
			go func() {
				time.Sleep(300 * time.Millisecond)
				stop()
			}()
			share := cpuOfLastSecond(t, Live{Packet: frame(64), Rate: c.rate, CPUs: []int{0}})
			t.Logf("%d frames/s: %.1f %% of a CPU", c.rate, 100*share)
			return share < c.most
		})
	}
}

// cpuOfLastSecond runs for 1.5 s, and returns the share of a CPU that this
// process used in the last second, or 1 if it did not see most of that.
func cpuOfLastSecond(t *testing.T, live Live) float64 {
	o := loadLive(t, "xdp_drop")
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	begin, used := time.Now().Add(time.Hour), time.Duration(0)
	live.ProgressInterval = 500 * time.Millisecond
	live.Progress = func(LiveStats) {
		if begin.After(time.Now()) {
			begin, used = time.Now(), cpuTime(t, unix.RUSAGE_SELF)
		}
	}
	stats, err := live.Run(ctx, o.Program)
	wantExact(t, o, stats, err, stats.Frames)
	seen := time.Since(begin)
	if seen < 800*time.Millisecond {
		return 1
	}
	return float64(cpuTime(t, unix.RUSAGE_SELF)-used) / float64(seen)
}

// TestLivePaceIsNoBrake asks for a rate above the possible one, which costs nothing.
func TestLivePaceIsNoBrake(t *testing.T) {
	speed := func(rate int) float64 {
		o := loadLive(t, "xdp_drop")
		stats, err := Live{Packet: frame(64), Rate: rate, Frames: many()}.Run(soon(t), o.Program)
		wantExact(t, o, stats, err, many())
		return stats.FramesPerSecond()
	}
	atBest(t, "a rate is no brake", func() bool {
		var ratios []float64
		for range 3 {
			ratios = append(ratios, speed(1e9)/speed(0))
		}
		slices.Sort(ratios)
		t.Logf("%.2f of the speed without a rate", ratios)
		return ratios[len(ratios)/2] > 0.8
	})
}
