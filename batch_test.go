package progrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestBatchOrder checks that there is a result for each packet, in order.
func TestBatchOrder(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	packets := traffic(t)
	i := 0
	for res, err := range Batch(o.Program, Packets(XDP{}, slices.Values(packets)), nil) {
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		alone, err := XDP{Packet: packets[i]}.Run(o.Program)
		if err != nil {
			t.Fatal(err)
		}
		if res.Result.Action != alone.Action || !bytes.Equal(res.Result.Packet, alone.Packet) {
			t.Errorf("packet %d: %s, %x, alone %s, %x", i, res.Result.Action, res.Result.Packet, alone.Action, alone.Packet)
		}
		i++
	}
	if i != len(packets) {
		t.Errorf("%d results of %d packets", i, len(packets))
	}
}

// TestBatchRequest checks that each packet takes the place of the request's own, and
// that the other fields hold for all packets.
func TestBatchRequest(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	out := []byte{1, 2, 3, 4}
	req := TC{Packet: frame(20), Context: SKB{Mark: 7, Priority: 5}, Repeat: 2, Out: out[:0]}
	n := 0
	for res, err := range Batch(o.Program, Packets(req, slices.Values([][]byte{frame(64), frame(65), frame(66)})), nil) {
		if err != nil || res.Result.Context.Mark != 8 || res.Result.Context.Priority != 99 || len(res.Result.Packet) != 64+n {
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

// TestBatchSharesOutput checks that results are valid until the next one.
func TestBatchSharesOutput(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	var first []byte
	for res, err := range Batch(o.Program, Packets(XDP{}, slices.Values([][]byte{frame(64), bytes.Repeat([]byte{7}, 64)})), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = res.Result.Packet
			if !bytes.Equal(first, frame(64)) {
				t.Errorf("got %x", first)
			}
		} else if &first[0] != &res.Result.Packet[0] {
			t.Error("each result has memory of its own")
		}
	}
}

// TestBatchError checks that an error has the number of its input, and that the batch
// then ends, or goes on with KeepGoing.
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
		for res, err := range Batch(o.Program, Packets(XDP{}, source), &BatchOptions{KeepGoing: keepGoing}) {
			n++
			var e *Error
			switch {
			case err == nil:
				if len(res.Result.Packet) != len(packets[n-1]) {
					t.Errorf("input %d: %d bytes", n, len(res.Result.Packet))
				}
			case !errors.As(err, &e):
				t.Errorf("input %d: %v", n, err)
			default:
				failed = append(failed, e.Input)
				if e.Input == 3 {
					wantError(t, err, text, unix.EINVAL, RanNo)
				}
				if res.Result.Packet != nil || res.Result.Action != 0 {
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

// TestBatchErrorOfKernel checks that errors of the kernel have the number of their
// input too.
func TestBatchErrorOfKernel(t *testing.T) {
	o := load(t, "flow_dissector", "flow_dissect")
	for _, err := range Batch(o.Program, Packets(FlowDissector{}, slices.Values([][]byte{frame(64), make([]byte, pageSize+1)})), nil) {
		if err != nil {
			wantError(t, err, "progrun: input 2: FlowDissector.Packet: "+size(pageSize+1)+": the packet is too large", unix.EINVAL, RanNo)
			return
		}
	}
	t.Error("no error")
}

// TestBatchErrorOfProgram checks that a nil program gives an error for each input.
func TestBatchErrorOfProgram(t *testing.T) {
	n := 0
	for _, err := range Batch(nil, Packets(XDP{}, slices.Values([][]byte{frame(64), frame(64)})), &BatchOptions{KeepGoing: true}) {
		n++
		wantError(t, err, []string{"", "input 1: XDP: the program is nil", "input 2: XDP: the program is nil"}[n], unix.EINVAL, RanNo)
	}
	if n != 2 {
		t.Errorf("%d errors", n)
	}
}

// TestBatchBreak checks that nothing runs after the result at which the loop ended.
func TestBatchBreak(t *testing.T) {
	o := load(t, "xdp", "xdp_ctx")
	pulled, n := 0, 0
	endless := func(yield func([]byte) bool) {
		for pulled = 1; yield(frame(64)); pulled++ {
		}
	}
	for _, err := range Batch(o.Program, Packets(XDP{}, endless), &BatchOptions{KeepGoing: true}) {
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

// TestBatchOfNothing checks that a batch without inputs yields nothing, even for a
// program that cannot run.
func TestBatchOfNothing(t *testing.T) {
	for res, err := range Batch(nil, Packets(XDP{}, slices.Values([][]byte(nil))), nil) {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestBatchAgain ranges over the same batch twice, and over one batch inside of
// another.
func TestBatchAgain(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	batch := Batch(o.Program, Packets(XDP{}, slices.Values([][]byte{frame(64), frame(65)})), nil)
	n := 0
	for outer := range batch {
		for inner, err := range batch {
			if n++; err != nil || &inner.Result.Packet[0] == &outer.Result.Packet[0] {
				t.Errorf("the inner loop writes to the outer's packet, %v", err)
			}
		}
	}
	if n != 4 {
		t.Errorf("%d results", n)
	}
}

// repeated returns an iterator over a packet, many times.
func repeated(packet []byte, times int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for range times {
			if !yield(packet) {
				return
			}
		}
	}
}

// checkBatch runs one type of request on many inputs. Their number must not affect how
// much memory the batch takes.
func checkBatch[Q PacketRequest[Q, R], R any](t *testing.T, name, file, program string, req Q, packet []byte) {
	t.Run(name, func(t *testing.T) {
		o := load(t, file, program)
		const inputs = 10_000
		run := func(times int) {
			for _, err := range Batch(o.Program, Packets(req, repeated(packet, times)), nil) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		run(10) // fills the pools
		n := mallocs(func() { run(inputs) })
		// The loop allocates a little, and the collector may empty the pool once.
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
	checkBatch(t, "Any", "tc", "tc_mark", Any{}, ip)
}

// TestBatchWorkers checks that results come in the order of the inputs.
func TestBatchWorkers(t *testing.T) {
	o := load(t, "xdp", "xdp_count")
	set(t, o, "verdict", 0, uint32(XDPPass))
	for _, inputs := range []int{
		0, 1, 1000, inputsAlone - 1, inputsAlone, inputsAlone + 1,
		inputsAlone + groupSize - 1, inputsAlone + groupSize, inputsAlone + groupSize + 1, 5003,
	} {
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
		for res, err := range Batch(o.Program, Packets(XDP{}, packets), &BatchOptions{Workers: 3}) {
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(res.Result.Packet[20:]); got != uint32(n) || len(res.Result.Packet) != 64 || res.Result.Action != XDPPass {
				t.Fatalf("result %d is that of input %d: %v", n, got, res.Result.Action)
			}
			n++
		}
		if ran := sum(t, o, "frames", 0) - before; n != inputs || ran != uint64(inputs) {
			t.Errorf("%d inputs: %d results, %d runs", inputs, n, ran)
		}
	}
}

// TestBatchWorkersStop leaves the loop early, and makes inputs fail. No more than the
// documented number of inputs may have run ahead, and nothing keeps running.
func TestBatchWorkersStop(t *testing.T) {
	const workers, stopAt = 2, inputsAlone + 200
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
		for _, err := range Batch(o.Program, Packets(XDP{}, packets), &BatchOptions{Workers: workers}) {
			n++
			if err != nil {
				wantError(t, err, fmt.Sprintf("progrun: input %d: XDP.Packet: 13 bytes", stopAt), unix.EINVAL, RanNo)
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

// TestBatchWorkersNetNS checks that workers look up interfaces in the caller's
// namespace, and that their threads are restored.
func TestBatchWorkersNetNS(t *testing.T) {
	need(t, HaveXDPContext())
	o := load(t, "xdp", "xdp_count")
	set(t, o, "verdict", 0, uint32(XDPPass))
	before := threads(t)
	const index, inputs = 4711, inputsAlone + 300
	batch := Batch(o.Program, Packets(XDP{IngressIfindex: index}, repeated(frame(64), inputs)), &BatchOptions{Workers: 2})
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

// TestBatchWorkersKeepGoing makes every third input fail.
func TestBatchWorkersKeepGoing(t *testing.T) {
	o := load(t, "xdp", "xdp_count")
	packets := func(yield func([]byte) bool) {
		for i := range 1800 {
			if !yield(frame(64 - 51*(i%3/2))) {
				return
			}
		}
	}
	n, failed := 0, 0
	for _, err := range Batch(o.Program, Packets(XDP{}, packets), &BatchOptions{Workers: 2, KeepGoing: true}) {
		n++
		var e *Error
		if errors.As(err, &e) {
			failed++
			if e.Input != n || n%3 != 0 {
				t.Fatalf("result %d: %v", n, err)
			}
		}
	}
	if ran := sum(t, o, "frames", 0); n != 1800 || failed != 600 || ran != 1200 {
		t.Errorf("%d results, %d failed, %d runs", n, failed, ran)
	}
}

// TestBatchWorkersMemory checks that memory does not grow with the inputs.
func TestBatchWorkersMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and empties pools on purpose")
	}
	o := load(t, "xdp", "xdp_pass")
	batchOf := func(n int) func() {
		return func() {
			for _, err := range Batch(o.Program, Packets(XDP{}, repeated(frame(64), n)), &BatchOptions{Workers: 2}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	batchOf(5000)()
	if few, many := mallocs(batchOf(5000)), mallocs(batchOf(50_000)); many > few+200 {
		t.Errorf("%d allocations for 5,000 inputs, %d for 50,000", few, many)
	}
}

// TestBatchLastResultStays checks that the result at which a loop ended stays valid,
// whatever runs afterwards.
func TestBatchLastResultStays(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	for _, inputs := range []int{3, 2000} {
		for _, stopAt := range []int{inputs / 2, inputs} { // in the middle, and after the last
			for _, workers := range []int{1, 2} {
				var found BatchResult[XDP, XDPResult]
				for res, err := range Batch(o.Program, Packets(XDP{}, numberedPackets(inputs)), &BatchOptions{Workers: workers}) {
					if err != nil {
						t.Fatal(err)
					}
					if found = res; res.Input == stopAt {
						break
					}
				}
				for range 3 {
					if _, err := (XDP{Packet: bytes.Repeat([]byte{7}, 100), Out: make([]byte, 0, 1)}).Run(o.Program); err != nil {
						t.Fatal(err)
					}
				}
				want := slices.Clone(frame(64))
				binary.BigEndian.PutUint32(want[20:], uint32(stopAt-1))
				if !bytes.Equal(found.Result.Packet, want) {
					t.Errorf("%d workers, %d of %d: found %x, want %x", workers, stopAt, inputs, found.Result.Packet, want)
				}
			}
		}
	}
}

// numberedPackets returns an iterator over packets that hold their number, from 0, in
// shared memory.
func numberedPackets(n int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		buf := frame(64)
		for i := range n {
			binary.BigEndian.PutUint32(buf[20:], uint32(i))
			if !yield(buf) {
				return
			}
		}
	}
}

// TestBatchOptions checks that impossible numbers of workers are rejected.
func TestBatchOptions(t *testing.T) {
	for _, c := range []struct {
		workers int
		text    string
	}{
		{-1, "progrun: Batch.Workers: -1: it cannot be negative: invalid argument"},
		{1025, "progrun: Batch.Workers: 1025: it can be at most 1024: invalid argument"},
		{math.MaxInt, "it can be at most 1024: invalid argument"},
	} {
		n := 0
		packets := func(func([]byte) bool) { t.Error("an input was pulled") }
		for res, err := range Batch(nil, Packets(XDP{}, packets), &BatchOptions{Workers: c.workers, KeepGoing: true}) {
			n++
			wantError(t, err, c.text, unix.EINVAL, RanNo)
			if res.Input != 0 {
				t.Errorf("the error is of input %d", res.Input)
			}
		}
		if n != 1 {
			t.Errorf("%d workers: %d errors", c.workers, n)
		}
	}
}

// TestBatchOfRequests runs requests that each have a context of their own.
func TestBatchOfRequests(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	for _, workers := range []int{1, 2} {
		const inputs = inputsAlone + 300
		requests := func(yield func(TC) bool) {
			packet := make([]byte, 64) // the same memory for every input
			for i := range inputs {
				packet[20] = byte(i)
				if !yield(TC{Packet: packet, Context: SKB{Mark: 7, Priority: uint32(i)}, NoOutput: i%2 == 0}) {
					return
				}
			}
		}
		n := 0
		for res, err := range Batch(o.Program, requests, &BatchOptions{Workers: workers}) {
			n++
			q := res.Request
			if err != nil || res.Input != n || q.Context.Priority != uint32(n-1) || q.Packet[20] != byte(n-1) || q.Out != nil {
				t.Fatalf("input %d: %+v, %v", n, res, err)
			}
			if res.Result.Verdict != TCActShot {
				t.Errorf("input %d: %s", n, res.Result.Verdict)
			}
			if hasOutput := n%2 == 0; hasOutput != (len(res.Result.Packet) == 64 && res.Result.Packet[20] == byte(n-1)) {
				t.Errorf("input %d: output %x", n, res.Result.Packet)
			}
		}
		if n != inputs {
			t.Errorf("%d results", n)
		}
	}
}

// TestBatchOfSkLookup runs requests without a packet.
func TestBatchOfSkLookup(t *testing.T) {
	o := load(t, "sk_lookup", "sk_lookup")
	requests := []SkLookup{
		{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:80")},
		{Protocol: -1, Local: addrPort("192.0.2.1:80")},
		{Protocol: unix.IPPROTO_TCP, Local: addrPort("[2001:db8::1]:80")},
	}
	n := 0
	for res, err := range Batch(o.Program, slices.Values(requests), &BatchOptions{KeepGoing: true}) {
		n++
		if res.Input != n || res.Request != requests[n-1] {
			t.Errorf("result %d: %+v", n, res)
		}
		if n == 2 {
			wantError(t, err, "progrun: input 2: SkLookup.Protocol: -1", unix.EINVAL, RanNo)
			continue
		}
		if alone, err2 := res.Request.Run(o.Program); err != nil || err2 != nil || alone.Verdict != res.Result.Verdict {
			t.Errorf("result %d: %+v, %v, alone %+v, %v", n, res, err, alone, err2)
		}
	}
	if n != 3 {
		t.Errorf("%d results", n)
	}
}

// TestBatchKeepsOutputs runs requests with an Out of their own.
func TestBatchKeepsOutputs(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	const inputs = inputsAlone + 300
	for _, workers := range []int{1, 2} {
		requests := func(yield func(XDP) bool) {
			for packet := range numberedPackets(inputs) {
				if !yield(XDP{Packet: packet, Out: make([]byte, 0, 64)}) {
					return
				}
			}
		}
		var kept [][]byte
		for res, err := range Batch(o.Program, requests, &BatchOptions{Workers: workers}) {
			if err != nil || &res.Result.Packet[0] != &res.Request.Out[:1][0] {
				t.Fatalf("input %d: not in Out, %v", res.Input, err)
			}
			kept = append(kept, res.Result.Packet)
		}
		for i, packet := range kept {
			if got := binary.BigEndian.Uint32(packet[20:]); got != uint32(i) {
				t.Fatalf("output %d is that of input %d", i, got)
			}
		}
	}
}

// TestBatchWorkersWithoutDescriptors runs workers while no file can be opened. They
// need none, since they are in the caller's namespace.
func TestBatchWorkersWithoutDescriptors(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	const inputs = inputsAlone + 300
	n := 0
	for res, err := range Batch(o.Program, Packets(XDP{}, numberedPackets(inputs)), &BatchOptions{Workers: 2, KeepGoing: true}) {
		if n++; err != nil || res.Input != n {
			t.Fatalf("input %d: %+v, %v", n, res, err)
		}
	}
	if n != inputs {
		t.Errorf("%d results", n)
	}
}

// TestBatchWorkersLost moves the caller's thread to a namespace that no worker can
// enter. The caller does all the work.
func TestBatchWorkersLost(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	n := 0
	inNetNS(t, func() {
		lost := make(chan error, 1)
		home := currentNetNS()
		home.close()
		home.err = unix.EPERM
		go home.run(func(err error) {
			if !errors.Is(err, unix.EPERM) {
				lost <- fmt.Errorf("a worker is where it cannot be: %v", err)
			}
			close(lost)
		})
		if err := <-lost; err != nil {
			t.Error(err)
		}
		a := runAhead(o.Program, BatchOptions{Workers: 3}, nil, func(res BatchResult[XDP, XDPResult], err error) bool {
			if n++; err != nil || res.Input != n {
				t.Errorf("input %d: %+v, %v", n, res, err)
			}
			return true
		})
		a.home.close()
		a.home.err = unix.EPERM
		defer a.stop()
		for i := range 1000 {
			if !a.add(i+1, &XDP{Packet: frame(64)}, false) {
				t.Error("stopped")
			}
		}
		a.finish()
	})
	if n != 1000 {
		t.Errorf("%d results", n)
	}
}

// TestBatchWorkersAreNoSlower compares two workers with one where there is too little
// work for two. It compares medians of paired ratios.
func TestBatchWorkersAreNoSlower(t *testing.T) {
	if emulated || raceEnabled {
		t.Skip("speed is asserted on the machine itself, without the race detector")
	}
	o := load(t, "xdp", "xdp_pass")
	for _, inputs := range []int{1, 10, 64, 100, 200, 300, 1000} {
		batch := func(workers int) time.Duration {
			begin := time.Now()
			for range max(1, 300/inputs) {
				for _, err := range Batch(o.Program, Packets(XDP{NoOutput: true}, repeated(frame(64), inputs)), &BatchOptions{Workers: workers}) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			return time.Since(begin)
		}
		atBest(t, fmt.Sprintf("%d inputs: two workers take at most 1.1 times as long as one", inputs), func() bool {
			ratios := make([]float64, 0, 51)
			for range cap(ratios) {
				one := batch(1)
				ratios = append(ratios, float64(batch(2))/float64(one))
			}
			slices.Sort(ratios)
			median := ratios[len(ratios)/2]
			t.Logf("%d inputs: two workers take %.2f times as long as one", inputs, median)
			return median <= 1.1
		})
	}
}

// TestBatchWorkersWithoutProc runs workers in a process without /proc. They still run
// if a cookie tells that they are in the caller's namespace. Otherwise the caller does
// their work.
func TestBatchWorkersWithoutProc(t *testing.T) {
	o := load(t, "xdp", "xdp_pass")
	want := fmt.Sprintf("2000 results, a worker ran: %v\n", haveNetNSCookie(t))
	if got := inherit(t, o, batchWithoutProc); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// haveNetNSCookie reports whether the kernel can tell network namespaces apart without
// /proc, as it can since Linux 5.14.
func haveNetNSCookie(t *testing.T) bool {
	t.Helper()
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	_, err = unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return err == nil
}

const batchWithoutProc = "batch-without-proc"

func runBatchWithoutProc() {
	prog, err := ebpf.NewProgramFromFD(3)
	if err == nil {
		err = unix.Chroot("testdata")
	}
	if err == nil {
		err = unix.Chdir("/")
	}
	if _, statErr := os.Stat("/proc"); err == nil && statErr == nil {
		err = errors.New("there is a /proc")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	n := 0
	for _, err := range Batch(prog, Packets(XDP{}, numberedPackets(2000)), &BatchOptions{Workers: 2}) {
		if n++; err != nil {
			fmt.Println(err)
			os.Exit(0)
		}
	}
	ran := make(chan bool)
	go currentNetNS().run(func(err error) { ran <- err == nil })
	fmt.Printf("%d results, a worker ran: %v\n", n, <-ran)
	os.Exit(0)
}
