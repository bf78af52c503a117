package progrun

import "sync"

// scratch is a pool of buffers that are large enough for any packet, before and
// after a run.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, maxPacket+xdpHeadroom+pageSize)
	return &b
}}

// buffer is the memory of a packet that goes to the kernel or comes back. It is
// the caller's, or comes from the pool.
type buffer struct {
	buf     []byte
	scratch *[]byte
}

func fromScratch() buffer {
	s := scratch.Get().(*[]byte)
	return buffer{buf: *s, scratch: s}
}

// outputFor returns the memory to which the kernel writes a packet of at most
// most bytes: the caller's buffer if that is surely large enough, and otherwise
// one from the pool, from which the result is copied. So the kernel never cuts a
// result short. Kernels before 7.2 cut packets with fragments wrongly.
func outputFor(out []byte, most int) buffer {
	if cap(out) >= most {
		return buffer{buf: out[:cap(out)]}
	}
	return fromScratch()
}

// output returns the first n bytes of an output. It copies what came from the
// pool to out, which grows as with append, and returns the buffer to the pool.
func (b buffer) output(out []byte, n uint32) []byte {
	if uint64(n) > uint64(len(b.buf)) {
		n = uint32(len(b.buf)) // never return memory beyond the buffer, whatever the kernel says
	}
	if b.scratch == nil {
		return b.buf[:n]
	}
	out = append(out[:0], b.buf[:n]...)
	b.release()
	return out
}

// release returns a buffer to the pool if it came from there.
func (b buffer) release() {
	if b.scratch != nil {
		scratch.Put(b.scratch)
	}
}

// orNil returns b, or nil if b is empty.
func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
