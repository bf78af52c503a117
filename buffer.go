package progrun

import "sync"

// scratch is a pool of buffers that are large enough for any packet, before
// and after a run.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, maxPacket+xdpHeadroom+pageSize)
	return &b
}}

// buffer is the memory of a packet on its way to the kernel or back: the
// caller's, or scratch.
type buffer struct {
	buf     []byte
	scratch *[]byte
}

func fromScratch() buffer {
	s := scratch.Get().(*[]byte)
	return buffer{buf: *s, scratch: s}
}

// outputFor is where the kernel writes a packet of at most most bytes: the
// caller's buffer where that is surely large enough, else scratch, from which
// the caller gets a copy. The kernel is always told the size; a result cut
// short is then impossible, which matters since kernels before 7.2 cut those
// with fragments wrongly.
func outputFor(out []byte, most int) buffer {
	if cap(out) >= most {
		return buffer{buf: out[:cap(out)]}
	}
	return fromScratch()
}

// take returns the first n bytes of an output, in out's memory as far as that
// reaches, and gives scratch back.
func (b buffer) output(out []byte, n uint32) []byte {
	if uint64(n) > uint64(len(b.buf)) {
		n = uint32(len(b.buf)) // never beyond what was ours, whatever the kernel says
	}
	if b.scratch == nil {
		return b.buf[:n]
	}
	out = append(out[:0], b.buf[:n]...)
	b.release()
	return out
}

// release gives scratch back.
func (b buffer) release() {
	if b.scratch != nil {
		scratch.Put(b.scratch)
	}
}

// orNil is nil for an empty slice.
func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
