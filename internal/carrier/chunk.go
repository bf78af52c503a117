package carrier

import (
	"encoding/binary"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// A Chunk holds packets that run in one system call. Its memory is part of the
// carrier's, and is reused after Reset.
type Chunk struct {
	carrier *Carrier
	control *control
	packets []packet
	first   uint32 // the number of packets[0] among those of all chunks
	in, out []byte
	pos     uint32 // position of in among all slabs
	start   []byte // initial contents of the kernel's buffer
	most    int    // bytes of a packet and its metadata
	n, done int    // packets that were added, and that have run
	filled  int    // bytes used of in
}

// A Call runs prog repeat times on data, and returns the mean time of a run. It may
// return an errno even after some of the runs.
type Call func(prog *ebpf.Program, data []byte, repeat int) (time.Duration, syscall.Errno)

// Chunk returns one of the carrier's chunks, from 0. Each may be used by one
// goroutine at a time.
func (c *Carrier) Chunk(i int) *Chunk {
	n, first := c.capacity(), i*c.slabsOfChunk()
	b := &Chunk{
		carrier: c,
		control: c.control(i),
		packets: unsafe.Slice((*packet)(unsafe.Pointer(&c.indexMem[i*n*packetSize])), n),
		first:   uint32(i * n),
		in:      c.slab(first),
		pos:     uint32(first) << slabBits,
		start:   make([]byte, 64), most: int(c.most),
	}
	if c.output {
		b.out = c.slab(first + 1)
	}
	binary.NativeEndian.PutUint32(b.start, uint32(i))
	if c.clear {
		b.control.clear()
	}
	b.Reset()
	return b
}

func (c *Carrier) slab(i int) []byte { return c.slabMem[i*slabSize:][:slabSize:slabSize] }

// Slab returns one of the slabs that belong to no chunk, from 0.
func (c *Carrier) Slab(i int) []byte { return c.slab(c.slots*c.slabsOfChunk() + i) }

// position returns the position of packet among all slabs, if it lies in one.
func (c *Carrier) position(packet []byte) (pos uint32, ok bool) {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(packet))) - uintptr(unsafe.Pointer(unsafe.SliceData(c.slabMem)))
	return uint32(at), at < uintptr(len(c.slabMem))
}

// capacity returns how many packets a chunk takes at most.
func (c *Carrier) capacity() int {
	return int(c.index.MaxEntries()) / c.slots
}

// Reset empties the chunk.
func (b *Chunk) Reset() {
	b.n, b.done, b.filled = 0, 0, 0
	b.control.next = b.first
}

// Add adds a packet with metadata in front, and reports whether there was room. A packet
// that lies in a slab stays there.
func (b *Chunk) Add(all []byte, metadata int) bool {
	if b.n == len(b.packets) || b.filled > slabSize-b.most || len(all) > b.most {
		return false
	}
	pos, ok := b.carrier.position(all)
	if !ok {
		pos = b.pos + uint32(b.filled)
		copy(b.in[b.filled:], all)
		b.filled += (len(all) + 7) &^ 7
	}
	e := &b.packets[b.n]
	e.pos, e.size, e.meta = pos, uint32(len(all)), uint32(metadata)
	b.n++
	return true
}

// Len returns how many packets have been added.
func (b *Chunk) Len() int { return b.n }

// Run runs as many as it can of the packets that have not run, and adds their results to
// others. If none ran, the next packet cannot be carried: the caller runs it in another
// way, and calls Skip. An error comes from a call that ran nothing.
func (b *Chunk) Run(call Call, to *Results) (ran int, err error) {
	c := b.control
	c.out, c.why, c.end = 0, running, b.first+uint32(b.n)
	var perRun time.Duration
	for c.why == running && c.next < c.end {
		before := c.next
		var errno syscall.Errno
		perRun, errno = call(b.carrier.prog, b.start, int(c.end-before))
		if c.next == before && c.why == running {
			if errno == 0 {
				errno = syscall.EIO // the program did not run, or another one ran
			}
			err = errno
			break
		}
	}
	from := b.done
	b.done = int(c.next - b.first)
	if b.done > from {
		to.add(b.packets[from:b.done], b.out[:c.out], perRun, c.why == lost)
	}
	return b.done - from, err
}

// Skip passes over a packet that could not be carried.
func (b *Chunk) Skip() {
	b.control.next++
	b.done++
}
