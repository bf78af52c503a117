package progruntest

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// counts is a value of the map of that name.
type counts struct {
	Records uint64
	ByType  [4]uint32
	Less    int64
}

func TestSum(t *testing.T) {
	prog, maps := load(t, "events", "tc_ring")
	if err := maps["how_many"].Put(uint32(0), uint32(5)); err != nil {
		t.Fatal(err)
	}
	if got := Sum[counts](t, maps["counts"], uint32(7)); got != (counts{}) {
		t.Errorf("%+v of a key that is not there", got)
	}
	var wg sync.WaitGroup
	const workers = 8
	for range workers {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if _, err := (progrun.TC{Packet: packet()}).Run(prog); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	const n = 5 * workers
	want := counts{Records: n, Less: -n}
	want.ByType[ebpf.SchedCLS&3] = n
	if got := Sum[counts](t, maps["counts"], uint32(7)); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Sum[uint64](t, maps["total"], uint32(0)); got != n {
		t.Errorf("%d, want %d", got, n)
	}
	if got := Sum[[2]uint32](t, maps["total"], uint32(0)); got[0]+got[1] != n {
		t.Errorf("%d, want %d", got, n)
	}
	if got := Sum[uint32](t, maps["total32"], uint32(0)); got != n {
		t.Errorf("%d, want %d", got, n)
	}
	firstHalf := binary.NativeEndian.Uint32(binary.NativeEndian.AppendUint64(nil, n))
	if got := Sum[struct {
		N uint32
		_ [4]byte
	}](t, maps["total"], uint32(0)); got.N != firstHalf {
		t.Errorf("%d, want %d", got.N, firstHalf)
	}
}

func TestSumMistakes(t *testing.T) {
	_, maps := load(t, "events", "tc_ring")
	for want, f := range map[string]func(testing.TB){
		"bool is no number": func(tb testing.TB) { Sum[bool](tb, maps["total"], uint32(0)) },
		"string is no number": func(tb testing.TB) {
			Sum[struct{ A [2]struct{ S string } }](tb, maps["total"], uint32(0))
		},
		"the field n is not exported": func(tb testing.TB) { Sum[struct{ n uint64 }](tb, maps["total"], uint32(0)) },
		"has one value for all CPUs":  func(tb testing.TB) { Sum[uint32](tb, maps["how_many"], uint32(0)) },
		"the map is nil":              func(tb testing.TB) { Sum[uint64](tb, maps["typo"], uint32(0)) },
		"look up 1: ":                 func(tb testing.TB) { Sum[uint64](tb, maps["total"], uint32(1)) },
		"values of 8 bytes":           func(tb testing.TB) { Sum[uint16](tb, maps["total"], uint32(0)) },
		"look up 7: ":                 func(tb testing.TB) { Sum[counts](tb, maps["counts"], uint64(7)) },
	} {
		attempt(f).wantFailed(t, want)
	}
}
