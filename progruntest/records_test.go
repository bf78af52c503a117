package progruntest

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

// event is a record of the test programs.
type event struct {
	Number uint64
	Type   uint32
	_      uint32
}

// writers are the programs that write records. Syscall programs may sleep, and programs
// that sleep cannot use perf event arrays.
var writers = []struct {
	program, m string
	typ        ebpf.ProgramType
	run        func(testing.TB, *ebpf.Program)
}{
	{"xdp_ring", "ring", ebpf.XDP, runXDP},
	{"xdp_ring_quiet", "ring", ebpf.XDP, runXDP},
	{"xdp_perf", "perf", ebpf.XDP, runXDP},
	{"tc_ring", "ring", ebpf.SchedCLS, runTC},
	{"tc_perf", "perf", ebpf.SchedCLS, runTC},
	{"socket_ring", "ring", ebpf.SocketFilter, runSocketFilter},
	{"socket_perf", "perf", ebpf.SocketFilter, runSocketFilter},
	{"syscall_ring", "ring", ebpf.Syscall, runSyscall},
}

func runXDP(tb testing.TB, p *ebpf.Program) {
	tb.Helper()
	Run(tb, p, progrun.XDP{Packet: packet()})
}

func runTC(tb testing.TB, p *ebpf.Program) {
	tb.Helper()
	Run(tb, p, progrun.TC{Packet: packet()})
}

func runSocketFilter(tb testing.TB, p *ebpf.Program) {
	tb.Helper()
	Run(tb, p, progrun.SocketFilter{Packet: packet()})
}

func runSyscall(tb testing.TB, p *ebpf.Program) {
	tb.Helper()
	Run(tb, p, progrun.Syscall{})
}

// writer loads a program that writes n records in a run.
func writer(tb testing.TB, program string, n uint32) (*ebpf.Program, map[string]*ebpf.Map) {
	tb.Helper()
	prog, maps := load(tb, "events", program)
	write(tb, maps, n)
	return prog, maps
}

func write(tb testing.TB, maps map[string]*ebpf.Map, n uint32) {
	tb.Helper()
	if err := maps["how_many"].Put(uint32(0), n); err != nil {
		tb.Fatal(err)
	}
}

func TestRecords(t *testing.T) {
	for _, w := range writers {
		t.Run(w.program, func(t *testing.T) {
			runtime.LockOSThread() // on one thread the records of perf event arrays stay in order
			defer runtime.UnlockOSThread()
			Need(t, progrun.HaveProgramRun(w.typ))
			prog, maps := writer(t, w.program, 3)
			w.run(t, prog) // without a reader, perf event arrays take no records
			since := Records[event](t, maps[w.m])
			if got := since(); len(got) != 0 {
				t.Errorf("got %v before a run", got)
			}
			for n := range uint32(4) {
				write(t, maps, n)
				w.run(t, prog)
				got := since()
				if len(got) != int(n) {
					t.Fatalf("got %v, want %d", got, n)
				}
				for i, e := range got {
					if e.Number != uint64(i) || e.Type != uint32(w.typ) {
						t.Errorf("record %d: %+v", i, e)
					}
				}
			}
			w.run(t, prog)
			w.run(t, prog)
			if got := since(); len(got) != 6 {
				t.Errorf("got %v of two runs", got)
			}
		})
	}
}

// TestNoRecords checks that nothing waits if there are no records.
func TestNoRecords(t *testing.T) {
	for _, program := range []string{"xdp_ring_quiet", "xdp_perf"} {
		t.Run(program, func(t *testing.T) {
			prog, maps := writer(t, program, 0)
			since := Records[event](t, maps[strings.Split(program, "_")[1]])
			best := time.Hour
			for range 20 {
				Run(t, prog, progrun.XDP{Packet: packet()})
				begin := time.Now()
				if got := since(); len(got) != 0 {
					t.Errorf("got %v", got)
				}
				best = min(best, time.Since(begin))
			}
			t.Logf("no record takes %v", best)
			if best > time.Millisecond && !emulated() {
				t.Errorf("it waited %v for none", best)
			}
		})
	}
}

func TestRecordTypes(t *testing.T) {
	prog, maps := writer(t, "tc_ring", 2)
	since, perf := Records[[]byte](t, maps["ring"]), Records[struct{ number uint64 }](t, maps["perf"])
	Run(t, prog, progrun.TC{Packet: packet()})
	got := since()
	if len(got) != 2 || len(got[0]) != 16 || bytes.Equal(got[0], got[1]) || got[1][0]+got[1][7] != 1 {
		t.Errorf("got %v", got)
	}
	if got := perf(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	for want, f := range map[string]func(testing.TB){
		"a record cannot be of type int:": func(tb testing.TB) { Records[int](tb, maps["ring"]) },
		"a record cannot be of type struct { A uint64; B uint32 }:": func(tb testing.TB) {
			Records[struct {
				A uint64
				B uint32
			}](tb, maps["ring"])
		},
		"a record cannot be of type struct { S string }:": func(tb testing.TB) { Records[struct{ S string }](tb, maps["ring"]) },
		"the map is nil": func(tb testing.TB) { Records[event](tb, maps["typo"]) },
		"neither a ring buffer nor a perf event array": func(tb testing.TB) { Records[event](tb, maps["total"]) },
		"a record of 16 bytes, but [3]uint64 has 24": func(tb testing.TB) {
			since := Records[[3]uint64](tb, maps["ring"])
			Run(tb, prog, progrun.TC{Packet: packet()})
			since()
		},
	} {
		attempt(f).wantFailed(t, want)
	}
}

const (
	ringSize   = 1 << 16 // of the ring buffer of writers, in bytes
	recordSize = 24      // of a record in it, with its header; larger in a perf event array
	mostPerRun = 256     // the records that a run can write
)

// TestLostRecords checks that lost records fail a test, even if it does not read any.
func TestLostRecords(t *testing.T) {
	needPrivilege(t)
	runs := max(ringSize, perfPages*os.Getpagesize())/(recordSize*mostPerRun) + 1 // more than either buffer holds
	for _, program := range []string{"tc_ring", "tc_perf"} {
		t.Run(program, func(t *testing.T) {
			for _, looks := range []bool{true, false} {
				attempt(func(tb testing.TB) {
					stay(tb)
					prog, maps := writer(tb, program, mostPerRun)
					since := Records[event](tb, maps[strings.TrimPrefix(program, "tc_")])
					Run(tb, prog, progrun.TC{Packet: packet(), Repeat: runs})
					if looks {
						since()
					}
				}).wantFailed(t, "is full: records may be lost")
			}
		})
	}
	// The kernel reports the lost records of a perf event array when there is room
	// again.
	attempt(func(tb testing.TB) {
		stay(tb)
		prog, maps := writer(tb, "tc_perf", mostPerRun)
		since := Records[event](tb, maps["perf"])
		Run(tb, prog, progrun.TC{Packet: packet(), Repeat: runs})
		had := len(since())
		write(tb, maps, 1)
		Run(tb, prog, progrun.TC{Packet: packet()})
		if since(); had == 0 || had == runs*mostPerRun {
			tb.Errorf("%d records fit", had)
		}
	}).wantFailed(t, "records were lost: its buffer of")
}

// stay keeps a test on one CPU, since a perf event array has a buffer for each and a
// long run can move.
func stay(tb testing.TB) {
	tb.Helper()
	runtime.LockOSThread()
	tb.Cleanup(runtime.UnlockOSThread)
	var all, one unix.CPUSet
	Need(tb, unix.SchedGetaffinity(0, &all))
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	Need(tb, unix.SchedSetaffinity(0, &one))
	tb.Cleanup(func() { Need(tb, unix.SchedSetaffinity(0, &all)) })
}

// TestFullBuffer checks that a test passes if there is room for one more record.
func TestFullBuffer(t *testing.T) {
	needPrivilege(t)
	const most = ringSize/recordSize - 1
	attempt(func(tb testing.TB) {
		prog, maps := writer(tb, "tc_ring", 0)
		since := Records[event](tb, maps["ring"])
		for range 3 {
			write(tb, maps, mostPerRun)
			Run(tb, prog, progrun.TC{Packet: packet(), Repeat: most / mostPerRun})
			write(tb, maps, most%mostPerRun)
			Run(tb, prog, progrun.TC{Packet: packet()})
			if n := len(since()); n != most {
				tb.Errorf("%d records, want %d", n, most)
			}
		}
	}).wantPassed(t)
}
