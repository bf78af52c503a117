package progrun

import (
	"github.com/progrun/progrun/internal/carrier"
)

// liveCarrier is the carrier of a run, with the sizes of the run's packets.
type liveCarrier struct {
	*carrier.Live
	exchange *Exchange
	bytes    []int64 // for each packet, the size of all before it; and the size of all
}

// carry puts a carrier in front of the program if the request needs one. It returns a
// function that removes the carrier.
func (r *liveRun) carry() (release func(), err error) {
	field := r.carriedBy()
	if field == "" {
		return func() {}, nil
	}
	for _, cpu := range r.CPUs {
		if cpu >= maxCPUs {
			return nil, offlineCPU(cpu)
		}
	}
	c, err := carrier.NewLive(r.prog, r.carrierOptions())
	if err != nil {
		return nil, carrierError("Live", field, err)
	}
	r.carrier = &liveCarrier{Live: c, exchange: r.Exchange, bytes: make([]int64, len(r.Packets)+1)}
	for i, p := range r.Packets {
		r.carrier.bytes[i+1] = r.carrier.bytes[i] + int64(len(p))
	}
	r.prog = c.Program()
	for _, w := range r.workers {
		w.slot = c.Slot(w.cpu)
	}
	r.Exchange.enter(c)
	return func() {
		r.Exchange.leave(c)
		c.Close()
	}, nil
}

// bytesBefore returns how many bytes the first n frames have.
func (c *liveCarrier) bytesBefore(n int64) int64 {
	packets := int64(len(c.bytes) - 1)
	return n/packets*c.bytes[packets] + c.bytes[n%packets]
}

// verdicts returns the verdicts on the frames of a worker.
func (w *liveWorker) verdicts() LiveVerdicts {
	if w.run.carrier == nil {
		return LiveVerdicts{}
	}
	v := w.slot.Verdicts()
	return LiveVerdicts{int64(v[0]), int64(v[1]), int64(v[2]), int64(v[3]), int64(v[4]), int64(v[5])}
}

// carried returns how many frames the last call, of n frames, ran. The others remain
// for the next call.
func (w *liveWorker) carried(n int64) (ran int64) {
	all := w.verdicts().Total()
	ran = all - w.ran
	w.ran = all
	w.cut += n - ran
	return ran
}
