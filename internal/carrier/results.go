package carrier

import "time"

// Results are the results of packets, in the order in which they were added to a chunk.
// Their memory is not the carrier's.
type Results struct {
	packets []packet
	out     []byte
	calls   []ran
	at      int // index of the call of the result that was read last
}

// ran is a range of packets that ran together.
type ran struct {
	from, end int
	out       int // where their outputs begin
	perRun    time.Duration
	lost      bool // whether the output of the last one could not be read
}

// Result is the result of a packet's run.
type Result struct {
	Verdict uint32
	// Packet and Metadata are valid until Reset. Without output, they are left alone.
	Packet, Metadata []byte
	// Linear is how much of Packet was in the first buffer.
	Linear int
	// Lost reports whether the packet ran, but its output could not be read.
	Lost bool
	// PerRun is the mean time of a run in the call that ran the packet.
	PerRun time.Duration
}

// add adds the results of packets that ran together, and their outputs.
func (r *Results) add(packets []packet, out []byte, perRun time.Duration, lost bool) {
	from, begin := len(r.packets), len(r.out)
	r.packets = append(r.packets, packets...)
	r.out = append(r.out, out...)
	r.calls = append(r.calls, ran{from, len(r.packets), begin, perRun, lost})
}

// Skip adds a blank result, in the place of a packet that could not be carried.
func (r *Results) Skip() { r.add(blank[:], nil, 0, false) }

var blank [1]packet

// Len returns the number of results.
func (r *Results) Len() int { return len(r.packets) }

// Reset removes all results, and clears their memory. Another processor may have read
// it: stores in a row take it back at once, but those of one result after another would
// each have to wait.
func (r *Results) Reset() {
	clear(r.packets)
	r.packets, r.out, r.calls, r.at = r.packets[:0], r.out[:0], r.calls[:0], 0
}

// Read sets to to a result. Results are read in order, from 0.
func (r *Results) Read(i int, to *Result) {
	for i >= r.calls[r.at].end {
		r.at++
	}
	c, p := &r.calls[r.at], &r.packets[i]
	to.Verdict, to.Linear, to.PerRun, to.Lost = p.verdict, int(p.outLinear), c.perRun, c.lost && i == c.end-1
	if out := r.out[c.out:]; len(out) > 0 && !to.Lost {
		all := out[p.outPos:][:p.outSize:p.outSize]
		to.Metadata, to.Packet = all[:p.outMeta:p.outMeta], all[p.outMeta:]
	}
}
