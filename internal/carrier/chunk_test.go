package carrier_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun/internal/carrier"
)

// TestUnfit has packets that cannot be carried among others. They do not run, and the
// packets after them run only once they have been skipped.
func TestUnfit(t *testing.T) {
	target := program(t, "xdp", "xdp_count")
	set(t, "verdict", uint32(3), target)
	c := carry(t, target.Programs["xdp_count"], carrier.Options{Chunks: 2, Packets: 100, Output: true})
	b := c.Chunk(1)
	bad := map[int]input{
		0:  {packet: make([]byte, linear+1)},
		7:  {packet: make([]byte, 60), metadata: make([]byte, 13)},
		8:  {packet: make([]byte, 60), metadata: make([]byte, 256)},
		50: {packet: make([]byte, 13)},
		51: {packet: make([]byte, 2)},
		52: {packet: nil},
		99: {packet: make([]byte, linear+480)},
	}
	for i := range 100 {
		in, ok := bad[i]
		if !ok {
			in = input{packet: udp(60+i, 9)}
		}
		if !b.Add(in.all(), len(in.metadata)) {
			t.Fatalf("packet %d has no room", i)
		}
	}
	if b.Add(udp(64, 9), 0) {
		t.Error("there was room for packet 101")
	}
	ran := 0
	var results carrier.Results
	for results.Len() < b.Len() {
		at := results.Len()
		n, err := b.Run(call, &results)
		if err != nil {
			t.Fatal(err)
		}
		for i := at; i < at+n; i++ {
			if _, ok := bad[i]; ok {
				t.Errorf("packet %d ran", i)
			}
			if r := result(&results, i); r.Verdict != 3 || len(r.Packet) != 60+i {
				t.Errorf("packet %d: verdict %d, %d bytes", i, r.Verdict, len(r.Packet))
			}
			ran++
		}
		if n == 0 {
			if _, ok := bad[at]; !ok {
				t.Fatalf("packet %d was not carried", at)
			}
			b.Skip()
			results.Skip()
		}
	}
	if got := total(t, target.Maps["frames"], 0); ran != 93 || got != 93 {
		t.Errorf("%d results of %d runs, want 93", ran, got)
	}
}

// TestRoom has more output than fits at a time.
func TestRoom(t *testing.T) {
	single, target := program(t, "xdp", "xdp_grow_tail"), program(t, "xdp", "xdp_grow_tail")
	set(t, "delta", int32(3400), single, target)
	c := carry(t, target.Programs["xdp_grow_tail"], carrier.Options{Chunks: 1, Packets: 1000, Output: true})
	inputs := make([]input, 1000)
	for i := range inputs {
		inputs[i] = input{packet: udp(64+i%50, 9)}
	}
	compare(t, single.Programs["xdp_grow_tail"], c, inputs)
}

// TestCut ends calls early, as signals do, and makes calls fail.
func TestCut(t *testing.T) {
	target := program(t, "xdp", "xdp_count")
	c := carry(t, target.Programs["xdp_count"], carrier.Options{Chunks: 1, Packets: 100})
	b := c.Chunk(0)
	for i := range 100 {
		b.Add(udp(60+i, 9), 0)
	}
	calls := 0
	cut := func(prog *ebpf.Program, data []byte, repeat int) (time.Duration, syscall.Errno) {
		if calls++; calls > 5 {
			return 0, syscall.ENOMEM
		}
		took, errno := call(prog, data, min(repeat, 7))
		if errno == 0 {
			errno = syscall.EINTR
		}
		return took, errno
	}
	var results carrier.Results
	if ran, err := b.Run(cut, &results); ran != 35 || results.Len() != 35 || err != syscall.ENOMEM {
		t.Errorf("%d ran, %d results, %v, want 35, %v", ran, results.Len(), err, syscall.ENOMEM)
	}
	if ran, err := b.Run(call, &results); ran != 65 || results.Len() != 100 || err != nil {
		t.Errorf("%d ran, %d results, %v, want 65, 100", ran, results.Len(), err)
	}
	if got := total(t, target.Maps["frames"], 0); got != 100 {
		t.Errorf("the program ran %d times, want 100", got)
	}
}

// TestExchange replaces the target while two chunks use it.
func TestExchange(t *testing.T) {
	one, two := program(t, "xdp", "xdp_count"), program(t, "xdp", "xdp_count")
	set(t, "verdict", uint32(1), one)
	set(t, "verdict", uint32(2), two)
	c := carry(t, one.Programs["xdp_count"], carrier.Options{Chunks: 1, Packets: 10})
	b := c.Chunk(0)
	for _, want := range []*ebpf.Collection{one, two, one} {
		if err := c.Exchange(want.Programs["xdp_count"]); err != nil {
			t.Fatal(err)
		}
		before := total(t, want.Maps["frames"], 0)
		b.Reset()
		for b.Add(udp(64, 9), 0) {
		}
		if ran, err := b.Run(call, new(carrier.Results)); ran != 10 || err != nil {
			t.Fatal(ran, err)
		}
		if got := total(t, want.Maps["frames"], 0) - before; got != 10 {
			t.Errorf("the program ran %d times, want 10", got)
		}
	}
}

// TestMisfit makes carriers of programs that fit in no array of programs, which fails.
func TestMisfit(t *testing.T) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "MIT", Instructions: script{}.instructions(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := carrier.New(p, carrier.Options{Chunks: 1, Packets: 10}); err == nil {
		t.Error("a socket filter was carried")
	}
}
