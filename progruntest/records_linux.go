package progruntest

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"
)

// perfPages is the size in pages of a perf event array's buffer for each CPU.
const perfPages = 16

// Records reads what programs write to m, a ring buffer or a perf event array. It
// returns a function that returns the records since its last call, or since Records
// was called. Records drops what m held before.
//
// The function never waits. The records of a run are there when the run is over, so
// an empty result means that there were none. Attached programs write whenever
// something happens: read their records with ringbuf.Reader or perf.Reader.
//
// T is the type of a record: an integer, or an array or struct of fixed size with a
// field named _ wherever C pads. A record may be longer than T, since the kernel pads
// records of perf event arrays. If T is []byte, the function returns all bytes of a
// record.
//
// Records of a perf event array come CPU by CPU. They may be in any order if programs
// run on several CPUs, or in several calls without [runtime.LockOSThread].
//
// A lost record fails the test. Ring buffers do not count lost records, and perf
// event arrays count them late. So a buffer without room for another record also
// fails the test, when it is read or when the test ends.
func Records[T any](tb testing.TB, m *ebpf.Map) (since func() []T) {
	tb.Helper()
	checkMap(tb, m)
	var record T
	_, raw := any(record).([]byte)
	size := int(unsafe.Sizeof(record))
	if !raw && binary.Size(record) != size {
		tb.Fatalf("a record cannot be of type %T: it takes a fixed size, and a field named _ wherever C pads", record)
	}
	r := newReader(tb, m)
	r.drain()
	tb.Cleanup(func() {
		r.drain()
		r.close()
	})
	return func() []T {
		tb.Helper()
		var records []T
		for _, sample := range r.drain() {
			if raw {
				record = any(sample).(T)
			} else if n := copy(unsafe.Slice((*byte)(unsafe.Pointer(&record)), size), sample); n < size {
				tb.Fatalf("%v: a record of %d bytes, but %T has %d", m, n, record, size)
			}
			records = append(records, record)
		}
		return records
	}
}

// reader reads a ring buffer, or the buffers of a perf event array.
type reader struct {
	tb    testing.TB
	m     *ebpf.Map
	size  int // of a buffer, in bytes
	next  func() (perf.Record, error)
	close func() error
}

func newReader(tb testing.TB, m *ebpf.Map) *reader {
	tb.Helper()
	r := &reader{tb: tb, m: m}
	never := time.Unix(1, 0) // a deadline that has passed
	switch m.Type() {
	case ebpf.RingBuf:
		rd, err := ringbuf.NewReader(m)
		Need(tb, err)
		rd.SetDeadline(never)
		r.size, r.close = rd.BufferSize(), rd.Close
		r.next = func() (perf.Record, error) {
			rec, err := rd.Read()
			return perf.Record{RawSample: rec.RawSample, Remaining: rec.Remaining}, err
		}
	case ebpf.PerfEventArray:
		rd, err := perf.NewReader(m, perfPages*os.Getpagesize())
		Need(tb, err)
		rd.SetDeadline(never)
		r.size, r.close, r.next = rd.BufferSize(), rd.Close, rd.Read
	default:
		tb.Fatalf("%v has no records: it is neither a ring buffer nor a perf event array", m)
	}
	return r
}

// drain reads all records, and fails the test if any were lost.
func (r *reader) drain() (samples [][]byte) {
	r.tb.Helper()
	const header = 16         // size of a record's header, at most
	used := make(map[int]int) // bytes in use, by CPU
	largest := 0
	for {
		rec, err := r.next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			r.tb.Errorf("%v: %v", r.m, err)
			break
		}
		if rec.LostSamples > 0 {
			r.tb.Errorf("%v: %d records were lost: its buffer of %d bytes was full", r.m, rec.LostSamples, r.size)
			continue
		}
		n := len(rec.RawSample) + header
		largest = max(largest, n)
		if used[rec.CPU] == 0 && rec.Remaining > 0 {
			used[rec.CPU] = n + rec.Remaining
		}
		samples = append(samples, rec.RawSample)
	}
	for _, n := range used {
		if n+largest > r.size {
			r.tb.Errorf("%v: its buffer of %d bytes is full: records may be lost", r.m, r.size)
		}
	}
	return samples
}
