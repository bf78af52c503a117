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
	// mostCarried and leastCarried are how many packets one call carries.
	mostCarried, leastCarried = 1024, 16
	// chunksWaiting is how many chunks may wait for a worker, besides those that run.
	// Waking a worker takes as long as several. And the more there are, the less a chunk
	// is still in the cache of another processor when its memory is used again.
	// mostChunks is how many there are at most, since each takes half a megabyte.
	chunksWaiting, mostChunks = 18, 64
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
	// unload sets a request and its result.
	unload func(*Q, *R, *parcel)
}

// carriedKind returns how to carry requests of a type, if they can be carried.
func carriedKind[Q, R any]() (kind carried[Q, R], ok bool) {
	for _, k := range []any{
		carried[XDP, XDPResult]{(*XDP).output, (*XDP).load, unloadXDP},
		carried[Any, AnyResult]{(*Any).output, (*Any).load, unloadAny},
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

// unloadXDP sets field by field, as the processor has to wait for what it copies as a
// whole right after it was set in parts.
func unloadXDP(q *XDP, r *XDPResult, p *parcel) {
	q.Packet, q.Metadata, q.Out, q.Repeat, q.NoOutput = p.packet, p.metadata, p.out, p.repeat, p.noOutput
	r.Action, r.Sight, r.PerRun = XDPAction(p.res.Verdict), SightWhole, p.perRun
	r.Packet, r.Metadata, r.LinearSize = p.res.Packet, p.res.Metadata, p.res.Linear
}

func unloadAny(q *Any, r *AnyResult, p *parcel) {
	q.Packet, q.Out, q.Repeat, q.NoOutput = p.packet, p.out, p.repeat, p.noOutput
	r.Verdict.Type, r.Verdict.Value = ebpf.XDP, int64(p.res.Verdict)
	r.Packet, r.Metadata, r.Sight, r.PerRun = p.res.Packet, p.res.Metadata, SightWhole, p.perRun
}

// carriage carries the packets of a batch once it has a carrier. Making one takes
// tens of milliseconds, in which inputs run by themselves. Its methods run on the
// caller's goroutine.
type carriage[Q Request[Q, R], R any] struct {
	kind    carried[Q, R]
	prog    *ebpf.Program
	options carrier.Options
	settled [settledAtOnce]input[Q, R]

	making  chan *heldCarrier // receives the carrier; nil unless one is being made
	carrier *heldCarrier
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
	c := &carriage[Q, R]{kind: kind, prog: prog, after: carryFrom(opts.Workers), began: time.Now(), nextPause: firstPause}
	chunks := 1
	if opts.Workers > 1 {
		chunks = min(opts.Workers+chunksWaiting, mostChunks, max(1, opts.Ahead/leastCarried))
	}
	c.options = carrier.Options{Chunks: chunks, Packets: min(opts.Ahead/chunks, mostCarried)}
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

// carryFrom returns how many inputs run before a carrier is made. Making it takes some
// three milliseconds of a processor, and more for several workers. That must be little
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

// groups returns how many groups of inputs can be carried at a time.
func (c *carriage[Q, R]) groups() int {
	if c == nil {
		return 0
	}
	return c.options.Chunks
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
		g := newGroup[Q, R](c.options.Packets)
		g.kind = &c.kind
		g.cargo = &cargo{output: c.options.Output, chunk: made.Chunk(i), places: make([]place, 0, g.size)}
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

// giveBack frees a group that has been yielded, and decides whether to go on
// carrying.
func (c *carriage[Q, R]) giveBack(g *group[Q, R]) {
	l := g.cargo
	c.count += int64(l.chunk.Len()) - l.skipped
	c.took += l.took
	c.in += l.chunk.Len()
	if l.err != nil {
		c.err = &Error{Request: "Batch", Rule: "a call that carries packets failed", Err: l.err}
	}
	if c.took > judgeAfter {
		if c.took > c.alone*time.Duration(c.in) {
			c.pause, c.nextPause = c.nextPause, min(2*c.nextPause, longestPause)
		}
		c.took, c.in = 0, 0
	}
	l.reset()
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

// settle sets the carried ones of the inputs from i on, as many as c has memory for.
func (c *carriage[Q, R]) settle(l *cargo, i int) {
	for k := range min(settledAtOnce, len(l.places)-i) {
		if !l.places[i+k].alone {
			settle(&c.settled[k], &c.kind, l, i+k)
		}
	}
}

// settle sets an input to the i-th of the cargo, with its request and its result.
func settle[Q Request[Q, R], R any](in *input[Q, R], kind *carried[Q, R], l *cargo, i int) {
	p := &l.parcel
	l.readRequest(i, &in.data)
	l.readResult(i, &in.out)
	in.Input, in.err = l.first+i, nil
	kind.unload(&in.Request, &in.Result, p)
	if p.res.Lost {
		in.err = &Error{Request: "Batch", Rule: "the program ran, but its output could not be read", Ran: RanYes, Err: syscall.EFAULT}
		in.Result = *new(R)
	}
}

// cargo is the part of a group that is carried.
type cargo struct {
	output  bool // whether outputs are copied out
	chunk   *carrier.Chunk
	first   int      // number of the first input of the group
	places  []place  // of all inputs of the group
	outs    [][]byte // Out of each input, or nil if none has one
	parcel  parcel
	took    time.Duration // time of the calls
	skipped int64         // number of inputs that could not be carried after all
	err     error         // error of a call
}

// place says where an input is, and has what the chunk lacks of its request.
type place struct {
	at       int32 // index among the inputs that run by themselves, or in the chunk
	alone    bool  // whether the input runs by itself
	repeat   uint8
	noOutput bool
}

// parcel is a request and its result, on the way between the cargo and the caller.
type parcel struct {
	packet, metadata, out []byte
	repeat                int
	noOutput              bool
	res                   carrier.Result
	perRun                time.Duration // mean of the call whose results are in the chunk
}

// add adds a request, with a copy of its packet in the chunk. It reports whether the
// carrier can run it as a single run would: once, on a linear packet, without a context
// other than metadata.
func (l *cargo) add(packet, metadata, out []byte, repeat int, noOutput bool) bool {
	if len(packet) < ethHLen || len(packet) > xdpLinear || uint(repeat) > 1 || !noOutput && !l.output {
		return false
	}
	at := l.chunk.Len()
	if !l.chunk.Add(packet, metadata) {
		return false
	}
	i := len(l.places)
	l.places = l.places[:i+1]
	p := &l.places[i]
	p.at, p.alone, p.repeat, p.noOutput = int32(at), false, uint8(repeat), noOutput
	if out != nil {
		if l.outs == nil {
			l.outs = make([][]byte, cap(l.places))
		}
		l.outs[i] = out
	}
	return true
}

// reset empties the cargo.
func (l *cargo) reset() {
	l.err, l.took, l.skipped = nil, 0, 0
	l.places = l.places[:0]
	clear(l.outs)
	l.chunk.Reset()
}

// readRequest sets the request of the parcel to that of an input in the chunk. The
// packet is copied.
func (l *cargo) readRequest(i int, data *[]byte) {
	at, p := &l.places[i], &l.parcel
	all, m := l.chunk.Input(int(at.at))
	all = append((*data)[:0], all...)
	*data, p.packet, p.metadata = all, all[m:], all[:m:m]
	p.repeat, p.noOutput = int(at.repeat), at.noOutput
	if l.outs != nil {
		p.out = l.outs[i]
	}
}

// readResult sets the result of the parcel, whose request is set. The output is copied
// to the request's Out or, if that is nil, to out.
func (l *cargo) readResult(i int, out *[]byte) {
	p := &l.parcel
	l.chunk.Result(int(l.places[i].at), &p.res)
	if p.noOutput {
		p.res.Packet, p.res.Metadata, p.res.Linear = nil, nil, 0
		return
	}
	to := p.out
	if to == nil {
		to = *out
	}
	m := len(p.res.Metadata)
	to = append(append(to[:0], p.res.Metadata...), p.res.Packet...)
	p.res.Metadata, p.res.Packet = to[:m:m], to[m:]
	if p.out == nil {
		*out = to
	}
}

// carry runs the carried inputs from i on, up to the first one that is not carried,
// and returns the index of that one.
func (g *group[Q, R]) carry(i int, prog *ebpf.Program) int {
	l := g.cargo
	end := l.lastCarried(i)
	for i < end {
		begin := time.Now()
		from, to, perRun, err := l.chunk.Run(int(l.places[i].at)+end-i, runCarrier)
		l.took += time.Since(begin)
		l.parcel.perRun = perRun
		if to == from {
			if err != nil {
				l.err = err
			}
			g.alone(i, prog)
			to++
		} else if to < l.chunk.Len() { // later results will overwrite these
			for k := range to - from {
				settle(g.another(), g.kind, l, i+k)
				l.places[i+k] = g.last()
			}
		}
		i += to - from
	}
	return end
}

// lastCarried returns the end of the inputs from i on that are carried. Where all are,
// it need not look at them, whose memory another processor has.
func (l *cargo) lastCarried(i int) int {
	if len(l.places) == l.chunk.Len() {
		return len(l.places)
	}
	for i < len(l.places) && !l.places[i].alone {
		i++
	}
	return i
}

// alone runs a carried input by itself, which the carrier could not run.
func (g *group[Q, R]) alone(i int, prog *ebpf.Program) {
	l, in := g.cargo, g.another()
	l.readRequest(i, &in.data)
	in.Input = l.first + i
	g.kind.unload(&in.Request, &in.Result, &l.parcel)
	l.places[i] = g.last()
	l.chunk.Skip()
	l.skipped++
	g.runOne(in, prog)
}
