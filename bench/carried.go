package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// The ways to have many packets in one system call.
const (
	byCarried      = "progrun-ahead"
	byStaying      = "progrun-ahead-nocopy"
	byTwoCarried   = "progrun-ahead-2-workers"
	byTwoStaying   = "progrun-ahead-nocopy-2-workers"
	byCarriedTwice = "progrun-ahead-nocopy-2-batches"
	byCounted      = "progrun-verdicts"
	byCapture      = "progrun-capture"
	byTCPReplay    = "tcpreplay"
)

// reflected returns a batch that may run ahead, of packets that a program parses and
// sends back.
func reflected(name string, prog *ebpf.Program, size int, verdictOnly bool, opts progrun.BatchOptions) contender {
	return batchWith(name, prog, [][]byte{frame(size)}, verdictOnly, opts)
}

// The options of batches that may run ahead.
var (
	carried    = progrun.BatchOptions{Ahead: 1024}
	staying    = progrun.BatchOptions{Ahead: 1024, NoCopy: true}
	twoCarried = progrun.BatchOptions{Ahead: 16384, Workers: 2}
	twoStaying = progrun.BatchOptions{Ahead: 16384, Workers: 2, NoCopy: true}
)

// carriedBatches returns the points of batches that may run ahead.
func (b *bench) carriedBatches() ([]point, error) {
	prog, err := b.load(reflects())
	if err != nil {
		return nil, err
	}
	var points []point
	for _, c := range []struct {
		name        string
		verdictOnly bool
		size, n     int
		faster      float64
	}{
		{"64 bytes, verdict only", true, 64, 10 * inputs, 10},
		{"1,500 bytes, verdict only", true, 1500, 10 * inputs, 6},
		{"64 bytes, with output", false, 64, 10 * inputs, 8},
		{"1,500 bytes, with output", false, 1500, 10 * inputs, 4},
		{"64 bytes, 100,000 packets", true, 64, inputs, 2},
	} {
		points = append(points, point{
			name: c.name, n: c.n, share: 10,
			contenders: []contender{
				reflected(byProgrun, prog, c.size, c.verdictOnly, progrun.BatchOptions{}),
				reflected(byCarried, prog, c.size, c.verdictOnly, carried),
				reflected(byStaying, prog, c.size, c.verdictOnly, staying),
			},
			claims: []claim{
				{label: "times as fast", of: byProgrun, over: byCarried, sense: atLeast, target: c.faster},
				{label: "times as fast, not copied", of: byProgrun, over: byStaying, sense: atLeast, target: c.faster},
			},
		})
	}
	return points, nil
}

// carriedByWorkers returns the points of batches that may run ahead with two workers,
// and of two such batches at once, each of half the packets.
func (b *bench) carriedByWorkers() ([]point, error) {
	prog, err := b.load(reflects())
	if err != nil || len(b.cpus) < 2 {
		return nil, err
	}
	var points []point
	for _, c := range []struct {
		name        string
		verdictOnly bool
		size        int
	}{
		{"64 bytes, verdict only", true, 64},
		{"1,500 bytes, verdict only", true, 1500},
		{"64 bytes, with output", false, 64},
		{"1,500 bytes, with output", false, 1500},
	} {
		one := reflected(byStaying, prog, c.size, c.verdictOnly, staying)
		points = append(points, point{
			name: c.name, n: 100 * inputs, share: 10,
			contenders: []contender{
				reflected(byCarried, prog, c.size, c.verdictOnly, carried),
				reflected(byTwoCarried, prog, c.size, c.verdictOnly, twoCarried),
				one,
				reflected(byTwoStaying, prog, c.size, c.verdictOnly, twoStaying),
				timed(byCarriedTwice, func(n int) error {
					return inParallel(2, func() error { _, err := one.run(n / 2); return err })
				}),
			},
			claims: []claim{
				{label: "times one worker, by 2", of: byCarried, over: byTwoCarried},
				{label: "times one worker, by 2, not copied", of: byStaying, over: byTwoStaying, sense: atLeast, target: 1.7},
				{label: "times one worker, by 2 batches, not copied", of: byStaying, over: byCarriedTwice},
			},
		})
	}
	return points, nil
}

// carriedByInputs measures batches that may run ahead, few of which are long enough to
// carry. What the last one released is gone when the next one begins.
func (b *bench) carriedByInputs() ([]point, error) {
	prog, err := b.load(reflects())
	if err != nil {
		return nil, err
	}
	packets := [][]byte{frame(packetSize)}
	var points []point
	for _, n := range []int{1, 100, 1000, 2048, 3000, 5000, 10_000, 17_000, 20_000, 30_000, 100_000} {
		by := func(name string, ahead int) contender {
			of := batchWith(name, prog, packets, true, progrun.BatchOptions{Ahead: ahead})
			return contender{by: name, run: func(total int) (took time.Duration, err error) {
				defer time.Sleep(100 * time.Millisecond)
				for range total / n {
					one, err := of.run(n)
					if took += one; err != nil {
						return 0, err
					}
				}
				return took, nil
			}}
		}
		p := step("Batch", n, "%d inputs", by(byCarried, 1024), by(byProgrun, 0))
		p.n, p.share = max(n, 1000), 20
		p.claims = []claim{{label: "of none ahead", of: byCarried, over: byProgrun, sense: atMost, target: 1.05}}
		points = append(points, p)
	}
	return points, nil
}

// carriedLive returns the points of live frames with a carrier.
func (b *bench) carriedLive() ([]point, error) {
	packets := capture()
	var points []point
	for _, c := range b.liveCases()[:2] {
		prog, err := b.loadHeld(c.spec)
		if err != nil {
			return nil, err
		}
		by := func(name string, l progrun.Live) contender {
			l.Ifindex, l.CPUs, l.NetNS = c.ifindex, []int{b.cpu}, b.wire.near
			return timed(name, func(n int) error {
				l.Frames = int64(n)
				stats, err := l.Run(context.Background(), prog)
				if err == nil && stats.Frames != int64(n) {
					err = fmt.Errorf("%d of %d frames", stats.Frames, n)
				}
				return err
			})
		}
		counted, sent := 0.8, 0.45
		if c.sends {
			counted, sent = 0.9, 0.6
		}
		frames := b.liveFrames()
		if !c.sends {
			frames *= 4 // they are fast: making the holds would weigh too much
		}
		p := point{name: c.name, n: frames / len(packets) * len(packets), share: 10}
		p.contenders = []contender{
			by(byHeld, progrun.Live{Packet: frame(packetSize), Hold: b.held[prog]}),
			by(byCounted, progrun.Live{Packet: frame(packetSize), CountVerdicts: true}),
			by(byCapture, progrun.Live{Packets: packets}),
		}
		p.claims = []claim{
			{label: "verdicts, of the plain rate", of: byHeld, over: byCounted, sense: atLeast, target: counted},
			{label: "capture, of the plain rate", of: byHeld, over: byCapture, sense: atLeast, target: sent},
		}
		if c.sends {
			p.received = b.wire.received
			if replay, ok := b.tcpreplay(packets); ok {
				p.contenders = append(p.contenders, replay)
				p.claims = append(p.claims, claim{label: "capture, times tcpreplay", of: byTCPReplay, over: byCapture, sense: atLeast, target: 8})
			}
		}
		points = append(points, p)
	}
	return points, nil
}

// capture returns packets of 46 sizes.
func capture() (packets [][]byte) {
	for i := range 46 {
		packets = append(packets, frame(60+31*i))
	}
	return packets
}

// tcpreplay returns tcpreplay at its top speed, if it is installed. It runs in the
// near namespace, where this thread is.
func (b *bench) tcpreplay(packets [][]byte) (contender, bool) {
	path, err := exec.LookPath("tcpreplay")
	if err != nil {
		return contender{}, false
	}
	file, err := os.CreateTemp("", "*.pcap")
	if err != nil {
		return contender{}, false
	}
	b.atEnd = append(b.atEnd, func() error { return os.Remove(file.Name()) })
	defer file.Close()
	if _, err := file.Write(pcap(packets)); err != nil {
		return contender{}, false
	}
	return timed(byTCPReplay, func(n int) error {
		cmd := exec.Command(path, "-q", "-K", "-t", "-i", "near", "-l", strconv.Itoa(n/len(packets)), file.Name())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("tcpreplay: %w\n%s", err, out)
		}
		return nil
	}), true
}

// pcap returns a capture file of Ethernet frames.
func pcap(packets [][]byte) []byte {
	order := binary.LittleEndian
	file := order.AppendUint32(nil, 0xa1b2c3d4)
	file = order.AppendUint16(order.AppendUint16(file, 2), 4)
	for _, field := range []uint32{0, 0, 65535, 1} {
		file = order.AppendUint32(file, field)
	}
	for _, p := range packets {
		for _, field := range []uint32{0, 0, uint32(len(p)), uint32(len(p))} {
			file = order.AppendUint32(file, field)
		}
		file = append(file, p...)
	}
	return file
}
