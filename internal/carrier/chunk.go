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

// Result is the result of a packet's run.
type Result struct {
	Verdict uint32
	// Packet and Metadata are nil without output. They are valid until the next
	// Run or Reset.
	Packet, Metadata []byte
	// Linear is how much of Packet was in the first buffer.
	Linear int
	// Lost reports whether the packet ran, but its output could not be read.
	Lost bool
}

// Chunk returns one of the carrier's chunks, from 0. Each may be used by one
// goroutine at a time.
func (c *Carrier) Chunk(i int) *Chunk {
	n, first := c.Capacity(), i*c.slabsOfChunk()
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

// Capacity returns how many packets a chunk takes at most.
func (c *Carrier) Capacity() int {
	return int(c.index.MaxEntries()) / c.slots
}

// Reset empties the chunk.
func (b *Chunk) Reset() {
	b.n, b.done, b.filled = 0, 0, 0
	b.control.next = b.first
}

// Add adds a packet and its metadata, and reports whether there was room.
func (b *Chunk) Add(p, metadata []byte) bool {
	size := len(metadata) + len(p)
	if b.Full() || size > b.most {
		return false
	}
	to := b.in[b.filled:]
	if len(metadata) > 0 {
		to = to[copy(to, metadata):]
	}
	copy(to, p)
	e := &b.packets[b.n]
	e.pos, e.size, e.meta = b.pos+uint32(b.filled), uint32(size), uint32(len(metadata))
	b.filled += (size + 7) &^ 7
	b.n++
	return true
}

// Full reports whether another packet might not fit.
func (b *Chunk) Full() bool {
	return b.n == len(b.packets) || b.filled > slabSize-b.most
}

// Len returns how many packets have been added.
func (b *Chunk) Len() int { return b.n }

// Input returns the metadata and the packet that were added, and the length of the
// metadata. They are valid until Reset.
func (b *Chunk) Input(i int) (all []byte, metadata int) {
	e := &b.packets[i]
	return b.in[e.pos&(slabSize-1):][:e.size], int(e.meta)
}

// Run runs as many as it can of the packets before end that have not run, and returns
// the range of those that ran. Their results are valid until the next Run. An empty
// range means that the next packet cannot be carried: the caller runs it in another
// way, and calls Skip. An error comes from a call that ran nothing.
func (b *Chunk) Run(end int, call Call) (from, to int, perRun time.Duration, err error) {
	from = b.done
	c := b.control
	c.out, c.why = 0, running
	for c.end = b.first + uint32(end); c.why == running && c.next < c.end; {
		before := c.next
		took, errno := call(b.carrier.prog, b.start, int(c.end-c.next))
		perRun = took
		if c.next == before && c.why == running {
			if errno == 0 {
				errno = syscall.EIO // the program did not run, or another one ran
			}
			err = errno
			break
		}
	}
	b.done = int(c.next - b.first)
	return from, b.done, perRun, err
}

// Skip passes over a packet that could not be carried.
func (b *Chunk) Skip() {
	b.control.next++
	b.done++
}

// Result sets r to the result of a packet of the last Run.
func (b *Chunk) Result(i int, r *Result) {
	e := &b.packets[i]
	r.Verdict, r.Linear = e.verdict, int(e.outLinear)
	if r.Lost = b.control.why == lost && i == b.done-1; r.Lost {
		*r = Result{Lost: true}
		return
	}
	if b.carrier.output {
		all := b.out[e.outPos:][:e.outSize:e.outSize]
		r.Metadata, r.Packet = all[:e.outMeta:e.outMeta], all[e.outMeta:]
	}
}
