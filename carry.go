package progrun

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun/internal/carrier"
)

// BatchStats says how a [Batch] ran its inputs.
type BatchStats struct {
	// Inputs is how many inputs were pulled.
	Inputs int64 `json:"inputs"`
	// Carried is how many of the inputs ran together with others in one system
	// call.
	Carried int64 `json:"carried"`
	// CarryErr says why no more inputs were carried. It is nil if the batch was not
	// asked to run ahead, or too short for it to pay.
	CarryErr error `json:"carry_err,omitempty"`
}

const (
	// carryAfter is how many inputs run before a carrier is made, if there is a
	// processor to make it on.
	carryAfter = 16 * inputsAlone
	// mostCarried and leastCarried are how many packets one call carries. cargoBytes is how
	// many bytes of them are enough: these fit in a chunk, and stay in the processor's
	// cache with their copies.
	mostCarried, leastCarried, cargoBytes = 1024, 16, 240 << 10
	// cargosWaiting is how many groups that are carried may wait for a worker, besides
	// those that run. Waking a worker takes as long as several.
	cargosWaiting = 6
	// mostChunks is how many workers carry, at most. Each has half a megabyte.
	mostChunks = 64
	// settledAtOnce is how many results are set before the first of them is yielded:
	// the processor has to wait for what it copies as a whole right after it was set in
	// parts.
	settledAtOnce = 8
	// firstPause is how many inputs run without the carrier if that is not faster,
	// such as when others keep the XDP dispatcher busy. The pause doubles each time,
	// up to longestPause.
	firstPause, longestPause = 1 << 17, 1 << 20
	// judgeAfter is the total time of calls that carry after which their speed is
	// judged.
	judgeAfter = 50 * time.Millisecond
)

// carried has what a batch needs to carry requests of a type. Its functions take
// pointers, because copying requests and results is slow compared with carrying a
// packet.
type carried[Q, R any] struct {
	// output reports whether the request asks for output.
	output func(*Q) bool
	// load adds a request to the cargo. It reports whether the cargo can have it.
	load func(*Q, *cargo) bool
	// request sets a request to that of an input of the cargo. It copies a packet that
	// lies in the carrier's memory to data.
	request func(to *Q, l *cargo, i int, data *[]byte)
	// result sets the result of a request that was carried.
	result func(*R, *Q, *carrier.Result)
}

// carriedKind returns how to carry requests of a type, if they can be carried.
func carriedKind[Q, R any]() (kind carried[Q, R], ok bool) {
	for _, k := range []any{
		carried[XDP, XDPResult]{(*XDP).output, (*XDP).load, (*XDP).unload, unloadXDP},
		carried[Any, AnyResult]{(*Any).output, (*Any).load, (*Any).unload, unloadAny},
	} {
		if kind, ok = k.(carried[Q, R]); ok {
			break
		}
	}
	return kind, ok
}

func (r *XDP) output() bool { return !r.NoOutput }

func (r *Any) output() bool { return !r.NoOutput }

func (r *XDP) load(l *cargo) bool {
	return r.IngressIfindex == 0 && r.RxQueueIndex == 0 && r.LinearSize == 0 &&
		l.add(r.Packet, r.Metadata, r.Out, r.Repeat, r.NoOutput)
}

func (r *Any) load(l *cargo) bool { return l.add(r.Packet, nil, r.Out, r.Repeat, r.NoOutput) }

// unload sets field by field, as the processor has to wait for what it copies as a whole
// right after it was set in parts.
func (r *XDP) unload(l *cargo, i int, data *[]byte) {
	p := &l.places[i]
	r.Packet, r.Metadata = l.packet(p, data)
	r.Out, r.Repeat, r.NoOutput = l.outOf(i), int(p.repeat), p.noOutput
}

func (r *Any) unload(l *cargo, i int, data *[]byte) {
	p := &l.places[i]
	r.Packet, _ = l.packet(p, data)
	r.Out, r.Repeat, r.NoOutput = l.outOf(i), int(p.repeat), p.noOutput
}

func unloadXDP(to *XDPResult, req *XDP, r *carrier.Result) {
	to.Action, to.Sight, to.PerRun = XDPAction(r.Verdict), SightWhole, r.PerRun
	to.Packet, to.Metadata, to.LinearSize = nil, nil, 0
	if !req.NoOutput {
		to.Metadata, to.Packet = unloadOutput(req.Out, r)
		to.LinearSize = r.Linear
	}
}

func unloadAny(to *AnyResult, req *Any, r *carrier.Result) {
	to.Verdict.Type, to.Verdict.Value = ebpf.XDP, int64(r.Verdict)
	to.Sight, to.PerRun = SightWhole, r.PerRun
	to.Packet, to.Metadata = nil, nil
	if !req.NoOutput {
		to.Metadata, to.Packet = unloadOutput(req.Out, r)
	}
}

// unloadOutput returns metadata and packet, in out if that is not nil.
func unloadOutput(out []byte, r *carrier.Result) (metadata, packet []byte) {
	if out == nil {
		return r.Metadata, r.Packet
	}
	m := len(r.Metadata)
	out = append(append(out[:0], r.Metadata...), r.Packet...)
	return out[:m:m], out[m:]
}

// carriage carries the packets of a batch once it has a carrier. Making one takes
// tens of milliseconds, in which inputs run by themselves. Its methods run on the
// caller's goroutine.
type carriage[Q Request[Q, R], R any] struct {
	kind    carried[Q, R]
	prog    *ebpf.Program
	options carrier.Options
	groups  int // number of groups that are carried, at most
	noCopy  bool
	settled [settledAtOnce]input[Q, R]
	res     carrier.Result // the one that is being settled

	making  chan *heldCarrier // receives the carrier; nil unless one is being made
	carrier *heldCarrier
	chunks  []*carrier.Chunk // those of the workers
	free    []*group[Q, R]
	err     error

	after            int // number of inputs before a carrier is made
	began            time.Time
	alone            time.Duration // time of an input that runs by itself
	took             time.Duration // time of the calls since they were last judged
	in               int           // number of inputs of these calls
	pause, nextPause int           // numbers of inputs
	count            int64
}

func newCarriage[Q Request[Q, R], R any](prog *ebpf.Program, opts BatchOptions) *carriage[Q, R] {
	kind, ok := carriedKind[Q, R]()
	c := &carriage[Q, R]{
		kind: kind, prog: prog, groups: 1, noCopy: opts.NoCopy,
		after: carryFrom(opts.Workers), began: time.Now(), nextPause: firstPause,
	}
	workers := min(max(opts.Workers, 1), mostChunks)
	if workers > 1 {
		c.groups = min(workers+cargosWaiting, max(1, opts.Ahead/leastCarried))
	}
	c.options = carrier.Options{Chunks: workers, Packets: min(opts.Ahead/c.groups, mostCarried)}
	if !opts.NoCopy {
		c.options.Slabs = c.groups
	}
	switch {
	case !ok || prog == nil || !xdpTypes.has(prog.Type()):
		c.err = refuse("Batch", "", "", "only packets of XDP programs are carried", enotsupp)
		c.err.(*Error).Err = unsupported{enotsupp}
	case c.options.Packets < leastCarried:
		c.err = refuse("Batch", "Ahead", strconv.Itoa(opts.Ahead),
			fmt.Sprintf("less than the %d that it pays to carry", leastCarried), syscall.EINVAL)
	}
	return c
}

// carryFrom returns how many inputs run before a carrier is made. Making it takes two
// or three milliseconds of a processor, which a worker may need. That must be little
// compared with the time of the inputs before, since the next one may be the last.
func carryFrom(workers int) int {
	switch procs := runtime.GOMAXPROCS(0); {
	case procs == 1:
		return 4 * carryAfter
	case workers >= procs:
		return 2 * carryAfter
	}
	return carryAfter
}

// most returns how many groups of inputs are carried at a time, at most.
func (c *carriage[Q, R]) most() int {
	if c == nil {
		return 0
	}
	return c.groups
}

// ready reports whether input n is to be carried. It starts to make a carrier when
// that will pay. The carriage may be nil.
func (c *carriage[Q, R]) ready(n int, req *Q) bool {
	switch {
	case c == nil || c.err != nil:
		return false
	case c.carrier != nil && c.pause > 0:
		c.pause--
		return false
	case c.carrier != nil:
		return c.prog.FD() >= 0
	case n == c.after:
		c.alone = time.Since(c.began) / time.Duration(n-inputsAlone)
		c.options.Output = c.kind.output(req)
		c.make()
		return false
	case c.making == nil || n%64 != 0:
		return false
	}
	select {
	case made := <-c.making:
		c.use(made)
		return c.err == nil
	default:
		return false
	}
}

func (c *carriage[Q, R]) make() {
	making := make(chan *heldCarrier, 1)
	c.making = making
	prog, err := c.prog.Clone() // the caller may close it meanwhile
	if err != nil {
		making <- &heldCarrier{err: err}
		return
	}
	options := c.options
	go func() {
		defer prog.Close()
		making <- newHeldCarrier(prog, options)
	}()
}

func (c *carriage[Q, R]) use(made *heldCarrier) {
	c.making = nil
	if c.err = made.err; c.err != nil {
		return
	}
	c.carrier = made
	for i := range c.options.Chunks {
		c.chunks = append(c.chunks, made.Chunk(i))
	}
	for i := range c.groups {
		g := newGroup[Q, R](c.options.Packets)
		g.kind = &c.kind
		g.cargo = &cargo{output: c.options.Output, noCopy: c.noCopy, places: make([]place, 0, g.size)}
		if !c.noCopy {
			g.cargo.data = made.Slab(i)[:0]
		}
		c.free = append(c.free, g)
	}
}

func (c *carriage[Q, R]) hasFree() bool { return len(c.free) > 0 }

func (c *carriage[Q, R]) freeGroup() *group[Q, R] {
	n := len(c.free) - 1
	g := c.free[n]
	c.free = c.free[:n]
	return g
}

// settle sets those of the inputs from i on that were carried, as many as there is memory
// for.
func (c *carriage[Q, R]) settle(l *cargo, i int) {
	for k := range min(settledAtOnce, len(l.places)-i) {
		if !l.places[i+k].alone {
			c.settleOne(l, i+k, &c.settled[k])
		}
	}
}

// settleOne sets an input to the i-th of the cargo, with its request and its result.
func (c *carriage[Q, R]) settleOne(l *cargo, i int, in *input[Q, R]) {
	l.haul.results.Read(int(l.places[i].at), &c.res)
	in.Input, in.err = l.first+i, nil
	c.kind.request(&in.Request, l, i, &in.data)
	c.kind.result(&in.Result, &in.Request, &c.res)
	if c.res.Lost {
		in.err = &Error{Request: "Batch", Rule: "the program ran, but its output could not be read", Ran: RanYes, Err: syscall.EFAULT}
		in.Result = *new(R)
	}
}

// giveBack frees a group that has been yielded, and decides whether to go on
// carrying.
func (c *carriage[Q, R]) giveBack(g *group[Q, R]) {
	h := g.cargo.haul
	c.count += int64(h.count)
	c.took += h.took
	c.in += h.count
	if h.err != nil {
		c.err = &Error{Request: "Batch", Rule: "a call that carries packets failed", Err: h.err}
	}
	if c.took > judgeAfter {
		if c.took > c.alone*time.Duration(c.in) {
			c.pause, c.nextPause = c.nextPause, min(2*c.nextPause, longestPause)
		}
		c.took, c.in = 0, 0
	}
	g.cargo.reset()
	c.free = append(c.free, g)
}

// release releases the carrier. That takes tens of milliseconds, for which release
// does not wait.
func (c *carriage[Q, R]) release() {
	if c.making != nil {
		go func(making chan *heldCarrier) { (<-making).close() }(c.making)
	}
	if c.carrier != nil {
		go c.carrier.close()
	}
}

// why returns why the batch does not carry.
func (c *carriage[Q, R]) why() error {
	if c.err == nil && c.pause > 0 {
		return &Error{Request: "Batch", Rule: "calls that carry packets are slow: others may keep the XDP dispatcher busy", Err: syscall.EBUSY}
	}
	return c.err
}

// heldCarrier is a carrier and the hold on it, or the reason why there is none.
type heldCarrier struct {
	*carrier.Carrier
	hold *Hold
	err  error
}

func newHeldCarrier(prog *ebpf.Program, options carrier.Options) *heldCarrier {
	if err := carriable("Batch", prog); err != nil {
		return &heldCarrier{err: err}
	}
	c, err := carrier.New(prog, options)
	if err != nil {
		return &heldCarrier{err: carrierError("Batch", "", err)}
	}
	hold, err := NewHold(c.Program())
	if err != nil {
		c.Close()
		return &heldCarrier{err: err}
	}
	return &heldCarrier{Carrier: c, hold: hold}
}

func (c *heldCarrier) close() {
	if c.err == nil {
		c.hold.Close()
		c.Carrier.Close()
	}
}

// carrierError returns the error of a request whose field needs a carrier that could
// not be made.
func carrierError(request, field string, err error) error {
	e := &Error{Request: request, Field: field, Rule: "cannot make a carrier: " + err.Error(), Err: errnoOf(err)}
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		e.Err = unsupported{errnoOf(err)}
	case errors.Is(err, syscall.EPERM):
		e.Rule = "cannot make a carrier, which takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
	}
	return e
}

// runCarrier makes a system call that carries. It blocks no signals, since a call that
// a signal cuts short is continued where it stopped.
func runCarrier(prog *ebpf.Program, data []byte, repeat int) (time.Duration, syscall.Errno) {
	a := newAttr(uint32(prog.FD()), data, nil, nil, nil, uint32(repeat), 0)
	errno := progRun(&a, attrSize)
	return a.perRun(), errno
}
