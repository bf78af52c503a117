package progrun

import (
	"math"
	"time"

	"github.com/progrun/progrun/internal/carrier"
)

// cargo is the part of a group that is carried.
type cargo struct {
	output bool     // whether outputs are copied out
	noCopy bool     // whether packets stay where they are
	first  int      // number of the first input of the group
	places []place  // of all inputs of the group
	outs   [][]byte // Out of each input, or nil if none has one
	data   []byte   // copies of metadata and packets, in a slab of the carrier unless noCopy
	count  int      // number of inputs to carry
	bytes  int      // size of their packets that are copied, or will be with their outputs
	haul   *haul    // what became of them
}

// place says where an input is, and what its request has. It is small, since another
// processor will read it.
type place struct {
	all      []byte // metadata and packet, if the input is carried
	at       int32  // index among the inputs that run by themselves, or among the others
	alone    bool   // whether the input runs by itself
	metadata uint8  // size of the metadata
	repeat   uint8
	noOutput bool
}

// haul is what became of a cargo. Its memory belongs to the worker that carried it, in
// whose processor's cache it may still be.
type haul struct {
	results carrier.Results
	count   int           // number of inputs that were carried
	took    time.Duration // time of the calls
	err     error         // error of a call
	empty   chan<- *haul  // where it goes after it has been yielded
}

// add adds a request. It reports whether the carrier can run it as a single run would:
// once, on a linear packet, without a context other than metadata.
func (l *cargo) add(packet, metadata, out []byte, repeat int, noOutput bool) bool {
	if len(packet) < ethHLen || len(packet) > xdpLinear || len(metadata) > math.MaxUint8 || uint(repeat) > 1 || !noOutput && !l.output {
		return false
	}
	i := len(l.places)
	l.places = l.places[:i+1]
	p := &l.places[i]
	p.all = packet
	if !l.noCopy || len(metadata) > 0 {
		p.all = l.keep(metadata, packet)
	}
	p.at, p.alone, p.metadata, p.repeat, p.noOutput = int32(l.count), false, uint8(len(metadata)), uint8(repeat), noOutput
	l.count++
	if !l.noCopy || !noOutput {
		l.bytes += len(p.all)
	}
	if out != nil {
		if l.outs == nil {
			l.outs = make([][]byte, cap(l.places))
		}
		l.outs[i] = out
	}
	return true
}

// keep returns a copy of metadata and packet. If there is no room for it, the copies
// before stay where they are.
func (l *cargo) keep(metadata, packet []byte) []byte {
	from, n := (len(l.data)+7)&^7, len(metadata)+len(packet)
	if cap(l.data) < from+n {
		l.data, from = make([]byte, 0, max(2*cap(l.data), n)), 0
	}
	l.data = l.data[:from+n]
	all := l.data[from : from+n : from+n]
	to := all
	if len(metadata) > 0 {
		to = to[copy(to, metadata):]
	}
	copy(to, packet)
	return all
}

// reset empties the cargo.
func (l *cargo) reset() {
	l.haul.reset()
	l.count, l.bytes, l.haul = 0, 0, nil
	clear(l.places) // at once, as in [carrier.Results.Reset]
	l.places, l.data = l.places[:0], l.data[:0]
	clear(l.outs)
}

// reset empties the haul, and gives it back to its worker, if that has not enough.
func (h *haul) reset() {
	h.count, h.took, h.err = 0, 0, nil
	select {
	case h.empty <- h:
	default:
	}
}

// packet returns the packet and the metadata of an input. Those that lie in the carrier's
// memory are copied to data.
func (l *cargo) packet(p *place, data *[]byte) (packet, metadata []byte) {
	all, m := p.all, p.metadata
	if !l.noCopy {
		all = append((*data)[:0], all...)
		*data = all
	}
	if m == 0 {
		return all, nil
	}
	return all[m:], all[:m:m]
}

// outOf returns the Out of an input.
func (l *cargo) outOf(i int) []byte {
	if l.outs == nil {
		return nil
	}
	return l.outs[i]
}

// takeOn prepares the worker to carry a cargo.
func (w *worker[Q, R]) takeOn(l *cargo) {
	if w.chunk == nil && w.number < len(w.carriage.chunks) {
		w.chunk = w.carriage.chunks[w.number]
	}
	select {
	case l.haul = <-w.empty:
	default:
		l.haul = &haul{empty: w.empty}
	}
	l.haul.results.Reset()
}

// carry runs inputs of the cargo from i on, as many as fit in the chunk, and returns the
// index of the next one.
func (w *worker[Q, R]) carry(g *group[Q, R], i int) int {
	end := w.load(g.cargo, i)
	if end == i {
		w.runAlone(g, i)
		return i + 1
	}
	for h := g.cargo.haul; i < end; {
		begin := time.Now()
		ran, err := w.chunk.Run(runCarrier, &h.results)
		h.took += time.Since(begin)
		h.count += ran
		if ran == 0 {
			if err != nil {
				h.err = err
			}
			w.runAlone(g, i)
			w.chunk.Skip()
			ran = 1
		}
		i += ran
	}
	return end
}

// load puts packets of the cargo from i on into the chunk, up to the first one that runs
// by itself or does not fit, and returns the index of that one.
func (w *worker[Q, R]) load(l *cargo, i int) (end int) {
	if w.chunk == nil {
		return i
	}
	w.chunk.Reset()
	for n := 0; i < len(l.places) && n < cargoBytes; i++ {
		p := &l.places[i]
		if p.alone || !w.chunk.Add(p.all, int(p.metadata)) {
			break
		}
		n += len(p.all)
	}
	return i
}

// runAlone runs an input of the cargo by itself, since it cannot be carried after all.
func (w *worker[Q, R]) runAlone(g *group[Q, R], i int) {
	l, in := g.cargo, g.another()
	in.Input = l.first + i
	g.kind.request(&in.Request, l, i, &in.data)
	l.places[i] = g.last()
	l.haul.results.Skip()
	w.runOne(in)
}
