package progrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestBatchOrder gives a result for each packet, in their order.
func TestBatchOrder(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	packets := traffic(t)
	i := 0
	for res, err := range Batch(o.Program, XDP{}, slices.Values(packets), BatchOptions{}) {
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		alone, err := XDP{Packet: packets[i]}.Run(o.Program)
		if err != nil {
			t.Fatal(err)
		}
		if res.Action != alone.Action || !bytes.Equal(res.Packet, alone.Packet) {
			t.Errorf("packet %d: %s, %x, alone %s, %x", i, res.Action, res.Packet, alone.Action, alone.Packet)
		}
		i++
	}
	if i != len(packets) {
		t.Errorf("%d results of %d packets", i, len(packets))
	}
}

// TestBatchRequest has each packet take the place of the request's own, and
// the rest of the request hold for all.
func TestBatchRequest(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	out := []byte{1, 2, 3, 4}
	req := TC{Packet: frame(20), Context: SKB{Mark: 7, Priority: 5}, Repeat: 2, Out: out[:0]}
	n := 0
	for res, err := range Batch(o.Program, req, slices.Values([][]byte{frame(64), frame(65), frame(66)}), BatchOptions{}) {
		if err != nil || res.Context.Mark != 8 || res.Context.Priority != 99 || len(res.Packet) != 64+n {
			t.Errorf("packet %d: %+v, %v", n, res, err)
		}
		n++
	}
	if got := runs(t, o); n != 3 || got != 6 {
		t.Errorf("%d results, ran %d times", n, got)
	}
	if !bytes.Equal(out, []byte{1, 2, 3, 4}) {
		t.Errorf("the request's Out was written to: %v", out)
	}
}

// TestBatchSharesOutput has results that are valid until the next.
func TestBatchSharesOutput(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	var first []byte
	for res, err := range Batch(o.Program, XDP{}, slices.Values([][]byte{frame(64), bytes.Repeat([]byte{7}, 64)}), BatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = res.Packet
			if !bytes.Equal(first, frame(64)) {
				t.Errorf("got %x", first)
			}
		} else if &first[0] != &res.Packet[0] {
			t.Error("each result has memory of its own")
		}
	}
}

// TestBatchError tells which input was wrong, stops there, and goes on if that
// is wanted.
func TestBatchError(t *testing.T) {
	const text = "progrun: input 3: XDP.Packet: 13 bytes: a packet begins with a 14-byte Ethernet header: invalid argument"
	packets := [][]byte{frame(64), frame(65), frame(13), frame(66), nil, frame(67)}
	for _, keepGoing := range []bool{false, true} {
		o := load(t, "xdp", "xdp_ctx")
		pulled := 0
		source := func(yield func([]byte) bool) {
			for _, p := range packets {
				pulled++
				if !yield(p) {
					return
				}
			}
		}
		var failed []int
		n := 0
		for res, err := range Batch(o.Program, XDP{}, source, BatchOptions{KeepGoing: keepGoing}) {
			n++
			var e *Error
			switch {
			case err == nil:
				if len(res.Packet) != len(packets[n-1]) {
					t.Errorf("input %d: %d bytes", n, len(res.Packet))
				}
			case !errors.As(err, &e):
				t.Errorf("input %d: %v", n, err)
			default:
				failed = append(failed, e.Input)
				if e.Input == 3 {
					wantError(t, err, text, unix.EINVAL, RanNo)
				}
				if res.Packet != nil || res.Action != 0 {
					t.Errorf("input %d: an error and a result: %+v", n, res)
				}
			}
		}
		wantRuns, wantFailed, wantPulled := uint64(2), []int{3}, 3
		if keepGoing {
			wantRuns, wantFailed, wantPulled = 4, []int{3, 5}, 6
		}
		if got := runs(t, o); got != wantRuns || !slices.Equal(failed, wantFailed) || n != wantPulled || pulled != wantPulled {
			t.Errorf("keep going %v: ran %d times, %v failed, %d results of %d inputs", keepGoing, got, failed, n, pulled)
		}
	}
}

// TestBatchErrorOfKernel numbers errors of the kernel too.
func TestBatchErrorOfKernel(t *testing.T) {
	o := load(t, "flow_dissector", "flow_dissect")
	for _, err := range Batch(o.Program, FlowDissector{}, slices.Values([][]byte{frame(64), make([]byte, pageSize+1)}), BatchOptions{}) {
		if err != nil {
			wantError(t, err, "progrun: input 2: FlowDissector.Packet: "+size(pageSize+1)+": the packet is too large", unix.EINVAL, RanNo)
			return
		}
	}
	t.Error("no error")
}

// TestBatchErrorOfProgram is the same for each input.
func TestBatchErrorOfProgram(t *testing.T) {
	n := 0
	for _, err := range Batch(nil, XDP{}, slices.Values([][]byte{frame(64), frame(64)}), BatchOptions{KeepGoing: true}) {
		n++
		wantError(t, err, []string{"", "input 1: XDP: the program is nil", "input 2: XDP: the program is nil"}[n], unix.EINVAL, RanNo)
	}
	if n != 2 {
		t.Errorf("%d errors", n)
	}
}

// TestBatchBreak runs nothing beyond the result that the loop was left at.
func TestBatchBreak(t *testing.T) {
	o := load(t, "xdp", "xdp_ctx")
	pulled, n := 0, 0
	endless := func(yield func([]byte) bool) {
		for pulled = 1; yield(frame(64)); pulled++ {
		}
	}
	for _, err := range Batch(o.Program, XDP{}, endless, BatchOptions{KeepGoing: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 {
			break
		}
	}
	if got := runs(t, o); got != 5 || pulled != 5 {
		t.Errorf("ran %d times, pulled %d inputs", got, pulled)
	}
}

// TestBatchOfNothing yields nothing, not even for a program that cannot run.
func TestBatchOfNothing(t *testing.T) {
	for res, err := range Batch(nil, XDP{}, slices.Values([][]byte(nil)), BatchOptions{}) {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestBatchAgain ranges over the same batch twice, and over one within another.
func TestBatchAgain(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	batch := Batch(o.Program, XDP{}, slices.Values([][]byte{frame(64), frame(65)}), BatchOptions{})
	n := 0
	for outer := range batch {
		for inner, err := range batch {
			if n++; err != nil || &inner.Packet[0] == &outer.Packet[0] {
				t.Errorf("the inner loop writes to the outer's packet, %v", err)
			}
		}
	}
	if n != 4 {
		t.Errorf("%d results", n)
	}
}

// repeated is a packet, many times.
func repeated(packet []byte, times int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for range times {
			if !yield(packet) {
				return
			}
		}
	}
}

// checkBatch runs one type of request over many inputs, whose number must not
// show in the memory it takes.
func checkBatch[Q PacketRequest[Q, R], R any](t *testing.T, name, file, program string, req Q, packet []byte) {
	t.Run(name, func(t *testing.T) {
		o := load(t, file, program)
		const inputs = 10_000
		run := func(times int) {
			for _, err := range Batch(o.Program, req, repeated(packet, times), BatchOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		run(10) // fills the pools
		n := mallocs(func() { run(inputs) })
		// Some for the loop itself, and for the collector to empty the pool once.
		if !raceEnabled && n > inputs/100 {
			t.Errorf("%d allocations for %d inputs", n, inputs)
		}
		if n := runs(t, o); n != inputs+10 {
			t.Errorf("ran %d times, want %d", n, inputs+10)
		}
	})
}

func TestBatchOfEveryRequest(t *testing.T) {
	ip := udp4(somewhere, 53)
	checkBatch(t, "XDP", "xdp", "xdp_ctx", XDP{}, ip)
	checkBatch(t, "TC", "tc", "tc_mark", TC{Context: SKB{Mark: 7}}, ip)
	checkBatch(t, "SocketFilter", "socket_filter", "socket_filter", SocketFilter{}, ip)
	checkBatch(t, "CGroupSKB", "cgroup_skb", "cgroup_ingress", CGroupSKB{}, ip)
	checkBatch(t, "LWT", "lwt", "lwt_in", LWT{}, ip)
	checkBatch(t, "FlowDissector", "flow_dissector", "flow_dissect", FlowDissector{Flags: FlowStopAtEncap}, ip)
	checkBatch(t, "Netfilter", "netfilter", "netfilter_hook", Netfilter{}, ip)
}

// otherRequest fails with an error that is none of the library's.
type otherRequest struct{}

var errOther = errors.New("other")

func (r otherRequest) WithPacket(packet, out []byte) otherRequest { return r }
func (r otherRequest) Run(*ebpf.Program) (int, error)             { return 0, errOther }

// TestBatchOfOtherRequests takes requests of other packages.
func TestBatchOfOtherRequests(t *testing.T) {
	for _, err := range Batch(nil, otherRequest{}, repeated(nil, 1), BatchOptions{}) {
		if !errors.Is(err, errOther) || err.Error() != "progrun: input 1: other" {
			t.Errorf("got %q", err)
		}
	}
}

// TestBatchWorkers holds that results come in the order of the inputs.
func TestBatchWorkers(t *testing.T) {
	o := load(t, "xdp", "xdp_count")
	set(t, o, "verdict", 0, uint32(XDPPass))
	for _, inputs := range []int{0, 1, 63, 64, 65, 1000, 10_007} {
		before := sum(t, o, "frames", 0)
		buf := make([]byte, 64) // the same one for every input
		packets := func(yield func([]byte) bool) {
			for i := range inputs {
				binary.BigEndian.PutUint32(buf[20:], uint32(i))
				if !yield(buf) {
					return
				}
			}
		}
		n := 0
		for res, err := range Batch(o.Program, XDP{}, packets, BatchOptions{Workers: 3}) {
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(res.Packet[20:]); got != uint32(n) || len(res.Packet) != 64 || res.Action != XDPPass {
				t.Fatalf("result %d is that of input %d: %v", n, got, res.Action)
			}
			n++
		}
		if ran := sum(t, o, "frames", 0) - before; n != inputs || ran != uint64(inputs) {
			t.Errorf("%d inputs: %d results, %d runs", inputs, n, ran)
		}
	}
}

// TestBatchWorkersStop breaks off, and fails: no more than the documented
// number of inputs may have run ahead, and nothing is left running.
func TestBatchWorkersStop(t *testing.T) {
	const workers, stopAt = 2, 100
	for _, fails := range []bool{false, true} {
		o := load(t, "xdp", "xdp_count")
		pulled := 0
		packets := func(yield func([]byte) bool) {
			for {
				pulled++
				n := 64
				if fails && pulled == stopAt {
					n = 13
				}
				if !yield(make([]byte, n)) {
					return
				}
			}
		}
		n := 0
		for _, err := range Batch(o.Program, XDP{}, packets, BatchOptions{Workers: workers}) {
			n++
			if err != nil {
				wantError(t, err, "progrun: input 100: XDP.Packet: 13 bytes", unix.EINVAL, RanNo)
			}
			if (err != nil) != (fails && n == stopAt) {
				t.Fatalf("result %d: %v", n, err)
			}
			if !fails && n == stopAt {
				break
			}
		}
		if n != stopAt {
			t.Errorf("%d results, want %d", n, stopAt)
		}
		if most := stopAt + 128*workers; pulled > most {
			t.Errorf("pulled %d inputs, want at most %d", pulled, most)
		}
		ran := sum(t, o, "frames", 0)
		time.Sleep(10 * time.Millisecond)
		if later := sum(t, o, "frames", 0); later != ran || ran > uint64(pulled) {
			t.Errorf("ran %d times, and later %d, of %d inputs", ran, later, pulled)
		}
	}
}

// TestBatchWorkersNetNS has workers look for interfaces where the caller does,
// and puts their threads back.
func TestBatchWorkersNetNS(t *testing.T) {
	need(t, HaveXDPContext())
	o := load(t, "xdp", "xdp_count")
	set(t, o, "verdict", 0, uint32(XDPPass))
	before := threads(t)
	const index, inputs = 4711, 1000
	batch := Batch(o.Program, XDP{IngressIfindex: index}, repeated(frame(64), inputs), BatchOptions{Workers: 2})
	for _, err := range batch {
		wantError(t, err, "progrun: input 1: XDP.IngressIfindex: 4711: no such interface", unix.ENODEV, RanNo)
	}
	n := 0
	inNetNS(t, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = "a", index
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "b"}); err != nil {
			t.Errorf("add a veth pair: %v", err)
			return
		}
		for _, err := range batch {
			if err != nil {
				t.Error(err)
			}
			n++
		}
	})
	if ran := sum(t, o, "frames", 0); n != inputs || ran != inputs {
		t.Errorf("%d results, %d runs", n, ran)
	}
	wantThreadsRestored(t, before)
}

// TestBatchWorkersKeepGoing has every third input fail.
func TestBatchWorkersKeepGoing(t *testing.T) {
	o := load(t, "xdp", "xdp_count")
	packets := func(yield func([]byte) bool) {
		for i := range 900 {
			if !yield(frame(64 - 51*(i%3/2))) {
				return
			}
		}
	}
	n, failed := 0, 0
	for _, err := range Batch(o.Program, XDP{}, packets, BatchOptions{Workers: 2, KeepGoing: true}) {
		n++
		var e *Error
		if errors.As(err, &e) {
			failed++
			if e.Input != n || n%3 != 0 {
				t.Fatalf("result %d: %v", n, err)
			}
		}
	}
	if ran := sum(t, o, "frames", 0); n != 900 || failed != 300 || ran != 600 {
		t.Errorf("%d results, %d failed, %d runs", n, failed, ran)
	}
}

// TestBatchWorkersMemory holds that memory does not grow with the inputs.
func TestBatchWorkersMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and empties pools on purpose")
	}
	o := load(t, "xdp", "xdp_pass")
	batchOf := func(n int) func() {
		return func() {
			for _, err := range Batch(o.Program, XDP{}, repeated(frame(64), n), BatchOptions{Workers: 2}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	batchOf(1000)()
	if few, many := mallocs(batchOf(1000)), mallocs(batchOf(50_000)); many > few+200 {
		t.Errorf("%d allocations for 1,000 inputs, %d for 50,000", few, many)
	}
}
