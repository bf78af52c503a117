package carrier

import (
	"os"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Live is a carrier for live frames. It counts the target's verdicts. If there are
// packets, it writes one into each frame.
type Live struct {
	Carrier
	frame []byte
}

// LiveOptions configures a carrier for live frames.
type LiveOptions struct {
	// Packets are written into the frames, in turn. If there are none, frames stay
	// as they are.
	Packets [][]byte
	// Metadata lies in front of each packet.
	Metadata []byte
	// CPUs are the CPUs of the threads that will run the program. The threads must
	// not leave them. None means one thread, on any CPU.
	CPUs []int
}

// Bytes returns how much memory the packets take.
func (o *LiveOptions) Bytes() int64 {
	return o.layout(nil)*slabSize + int64(len(o.Packets))*packetSize
}

// layout calls place with a position for each packet, and returns how many slabs the
// packets take.
func (o *LiveOptions) layout(place func(i int, pos int64)) (slabs int64) {
	pos := int64(0)
	for i, p := range o.Packets {
		if pos&(slabSize-1) > int64(slabSize-os.Getpagesize()) {
			pos = (pos + slabSize) &^ (slabSize - 1)
		}
		if place != nil {
			place(i, pos)
		}
		pos += int64(len(o.Metadata)+len(p)+7) &^ 7
	}
	return (pos + slabSize - 1) / slabSize
}

// NewLive makes a carrier for live frames.
func NewLive(target *ebpf.Program, opts LiveOptions) (*Live, error) {
	l := &Live{}
	l.live, l.most = true, uint32(os.Getpagesize())
	l.cpus, l.packets = len(opts.CPUs) > 0, len(opts.Packets) > 0
	slots := 1
	if l.cpus {
		slots = slices.Max(opts.CPUs) + 1
	}
	if err := l.make(target, slots, len(opts.Packets), int(opts.layout(nil))); err != nil {
		l.Close()
		return nil, err
	}
	l.fill(&opts)
	return l, nil
}

// fill copies the packets into the maps.
func (l *Live) fill(opts *LiveOptions) {
	opts.layout(func(i int, pos int64) {
		p := opts.Packets[i]
		to := l.slabMem[pos:]
		copy(to[copy(to, opts.Metadata):], p)
		*(*packet)(unsafe.Pointer(&l.indexMem[i*packetSize])) = packet{
			pos: uint32(pos), size: uint32(len(opts.Metadata) + len(p)), meta: uint32(len(opts.Metadata)),
		}
	})
	l.frame = firstFrame(opts.Packets)
	for i := range l.slots {
		l.control(i).end = uint32(len(opts.Packets))
	}
}

// firstFrame returns the frame with which calls start. If more than half of the packets
// have the same length, it is one of these, so that most frames keep their length.
// Otherwise it is the largest, since the kernel clears what a frame grows by.
func firstFrame(packets [][]byte) (frame []byte) {
	lengths := make(map[int]int)
	for _, p := range packets {
		if lengths[len(p)]++; 2*lengths[len(p)] > len(packets) {
			return p
		}
		if len(p) > len(frame) {
			frame = p
		}
	}
	return frame
}

// Frame returns the frame with which to call the kernel if there are packets.
func (l *Live) Frame() []byte { return l.frame }

// Slot has the counters of one thread.
type Slot struct{ control *control }

// Slot returns the slot of a CPU, or that of the one thread.
func (l *Live) Slot(cpu int) Slot {
	if !l.cpus {
		cpu = 0
	}
	return Slot{l.control(cpu)}
}

// Seek makes packet n the next one. No call may be under way on the slot.
func (s Slot) Seek(n uint32) { s.control.next = n }

// Verdicts returns how many frames had each verdict, from XDP_ABORTED to XDP_REDIRECT,
// and then any other. A call may be under way.
func (s Slot) Verdicts() (counts [6]uint64) {
	for i := range counts {
		counts[i] = atomic.LoadUint64(&s.control.verdicts[i])
	}
	return counts
}

// Ran returns how many frames have run.
func (s Slot) Ran() (n uint64) {
	for _, v := range s.Verdicts() {
		n += v
	}
	return n
}
