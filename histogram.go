package progrun

import (
	"fmt"
	"iter"
	"math"
	"math/bits"
	"time"
)

// histogram counts durations in buckets. Up to 31 ns each nanosecond has its own.
// Above, the width of a bucket is at most a sixteenth of the durations in it. The
// kernel's durations have 32 bits.
type histogram [(32-subBits)<<subBits + 1<<subBits]uint32

const subBits = 4

// TimingBucket counts the single runs of a [Timing] that took at least From and
// less than To.
// In JSON, durations are integers of nanoseconds.
type TimingBucket struct {
	From time.Duration `json:"from_ns"`
	To   time.Duration `json:"to_ns"`
	Runs int           `json:"runs"`
}

// String returns the bucket in words, such as "64ns to 68ns: 12 runs".
func (b TimingBucket) String() string { return fmt.Sprintf("%s to %s: %d runs", b.From, b.To, b.Runs) }

func (h *histogram) count(d time.Duration) { h[bucketOf(d)]++ }

func bucketOf(d time.Duration) int {
	ns := uint64(min(max(d, 0), math.MaxUint32))
	shift := max(0, bits.Len64(ns)-subBits-1)
	return shift<<subBits + int(ns>>shift)
}

// bucketFrom returns the least duration in a bucket.
func bucketFrom(i int) time.Duration {
	shift := max(0, i>>subBits-1)
	return time.Duration(i-shift<<subBits) << shift
}

func (h *histogram) add(o *histogram) {
	for i, n := range o {
		h[i] += n
	}
}

// buckets iterates over the buckets that are not empty, shortest first.
func (h *histogram) buckets() iter.Seq[TimingBucket] {
	return func(yield func(TimingBucket) bool) {
		for i, n := range h {
			if n > 0 && !yield(TimingBucket{bucketFrom(i), bucketFrom(i + 1), int(n)}) {
				return
			}
		}
	}
}

// percentile returns the duration that p percent of all durations do not exceed,
// to within half a bucket.
func (h *histogram) percentile(p float64) time.Duration {
	var total float64
	for _, n := range h {
		total += float64(n)
	}
	rest := math.Ceil(total * p / 100)
	for b := range h.buckets() {
		if rest -= float64(b.Runs); rest <= 0 {
			return b.From + (b.To-b.From-1)/2
		}
	}
	return 0
}
