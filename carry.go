package progrun

import (
	"errors"
	"fmt"
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
	// carryAfter is how many inputs run before a carrier is made. Making it takes
	// some two milliseconds of a CPU, and not always of another one.
	carryAfter = 10 * inputsAlone
	// mostCarried and leastCarried are how many packets one call carries.
	mostCarried, leastCarried = 512, 16
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
	// plain reports whether a carrier can run the request as a single run would.
	plain func(*Q) bool
	// fields returns pointers to the fields that such a request can have. metadata may
	// be nil.
	fields func(*Q) (packet, metadata, out *[]byte, repeat *int, noOutput *bool)
	// result sets the result.
	result func(to *R, from *carrier.Result, perRun time.Duration)
}

// carriedKind returns how to carry requests of a type, if they can be carried.
func carriedKind[Q, R any]() (kind carried[Q, R], ok bool) {
	for _, k := range []any{
		carried[XDP, XDPResult]{(*XDP).plain, (*XDP).fields, (*XDPResult).carried},
		carried[Any, AnyResult]{(*Any).plain, (*Any).fields, (*AnyResult).carried},
	} {
		if kind, ok = k.(carried[Q, R]); ok {
			break
		}
	}
	return kind, ok
}

// plain reports whether the request is for one run on a linear packet, without a
// context other than metadata.
func (r *XDP) plain() bool {
	return carriedPacket(r.Packet, r.Repeat) && r.IngressIfindex == 0 && r.RxQueueIndex == 0 && r.LinearSize == 0
}

func (r *Any) plain() bool { return carriedPacket(r.Packet, r.Repeat) }

func carriedPacket(packet []byte, repeat int) bool {
	return len(packet) >= ethHLen && len(packet) <= xdpLinear && uint(repeat) <= 1
}

func (r *XDP) fields() (packet, metadata, out *[]byte, repeat *int, noOutput *bool) {
	return &r.Packet, &r.Metadata, &r.Out, &r.Repeat, &r.NoOutput
}

func (r *Any) fields() (packet, metadata, out *[]byte, repeat *int, noOutput *bool) {
	return &r.Packet, nil, &r.Out, &r.Repeat, &r.NoOutput
}

// carried sets field by field, as the processor has to wait for what it copies as a
// whole right after it was set in parts.
func (to *XDPResult) carried(r *carrier.Result, perRun time.Duration) {
	to.Action = XDPAction(r.Verdict)
	to.Packet, to.Metadata = r.Packet, r.Metadata
	to.LinearSize, to.PerRun, to.Sight = r.Linear, perRun, SightWhole
}

func (to *AnyResult) carried(r *carrier.Result, perRun time.Duration) {
	to.Verdict.Type, to.Verdict.Value = ebpf.XDP, int64(r.Verdict)
	to.Packet, to.Metadata = r.Packet, r.Metadata
	to.PerRun, to.Sight = perRun, SightWhole
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

	trial            trial
	began            time.Time
	alone            time.Duration // time of an input that runs by itself
	took             time.Duration // time of the calls since they were last judged
	in               int           // number of inputs of these calls
	pause, nextPause int           // numbers of inputs
	count            int64
}

func newCarriage[Q Request[Q, R], R any](prog *ebpf.Program, opts BatchOptions) *carriage[Q, R] {
	kind, ok := carriedKind[Q, R]()
	c := &carriage[Q, R]{kind: kind, prog: prog, began: time.Now(), nextPause: firstPause}
	chunks, most := 1, mostCarried
	if opts.Workers > 1 {
		chunks, most = 2*opts.Workers, 4*mostCarried // waking a worker takes long
	}
	c.options = carrier.Options{Chunks: chunks, Packets: min(opts.Ahead/chunks, most)}
	switch {
	case !ok || prog == nil || !xdpTypes.has(prog.Type()):
		c.err = refuse("Batch", "", "", "only packets of XDP programs are carried", enotsupp)
		c.err.(*Error).Err = unsupported{enotsupp}
	case c.options.Packets < leastCarried:
		c.err = refuse("Batch", "Ahead", strconv.Itoa(opts.Ahead),
			fmt.Sprintf("less than the %d that it pays to carry", chunks*leastCarried), syscall.EINVAL)
	}
	return c
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
	case n == carryAfter:
		c.alone = time.Since(c.began) / (carryAfter - inputsAlone)
		_, _, _, _, noOutput := c.kind.fields(req)
		c.options.Output = !*noOutput
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
		g.cargo = &cargo[Q, R]{
			kind: &c.kind, output: c.options.Output, prog: c.prog, chunk: made.Chunk(i),
			places: make([]place, 0, g.size),
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

// giveBack frees a group that has been yielded, and decides whether to go on
// carrying.
func (c *carriage[Q, R]) giveBack(g *group[Q, R]) {
	l := g.cargo
	if c.options.Chunks > 1 {
		c.trial.done(len(l.places), c.options.Chunks)
	}
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
	l.err, l.took, l.skipped = nil, 0, 0
	l.places = l.places[:0]
	l.chunk.Reset()
	c.free = append(c.free, g)
}

// trial finds out whether several workers carry faster than the caller alone. They need
// not: moving packets and results between processors can take longer than running them.
type trial struct {
	several bool // whether several workers carry
	decided bool // whether that is so because it was faster
	groups  int  // number of groups that were carried so
	inputs  int  // number of their inputs, without those of the first groups
	began   time.Time
	alone   time.Duration // time of an input that the caller carries
}

// Numbers of groups that are carried in one way: to measure it, and until both are
// measured again.
const groupsMeasured, groupsDecided = 16, 512

// done is called for each group. The first groups of a measurement, as many as can be
// ahead, do not count.
func (t *trial) done(inputs, ahead int) {
	t.groups++
	t.inputs += inputs
	switch {
	case t.groups == ahead:
		t.began, t.inputs = time.Now(), 0
		return
	case t.groups < ahead+groupsMeasured, t.decided && t.groups < groupsDecided:
		return
	case t.decided:
		t.several, t.decided = false, false
	case !t.several:
		t.several, t.alone = true, time.Since(t.began)/time.Duration(max(t.inputs, 1))
	default:
		t.several, t.decided = time.Since(t.began)/time.Duration(max(t.inputs, 1)) < t.alone, true
	}
	t.groups = 0
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
func (c *carriage[Q, R]) settle(l *cargo[Q, R], i int) {
	for k := range min(settledAtOnce, len(l.places)-i) {
		if !l.places[i+k].alone {
			l.settle(&c.settled[k], i+k)
		}
	}
}

// cargo is the part of a group that is carried.
type cargo[Q Request[Q, R], R any] struct {
	kind    *carried[Q, R]
	output  bool // whether outputs are copied out
	prog    *ebpf.Program
	chunk   *carrier.Chunk
	first   int     // number of the first input of the group
	places  []place // of all inputs of the group
	res     carrier.Result
	perRun  time.Duration // mean of the call whose results are in the chunk
	took    time.Duration // time of the calls
	skipped int64         // number of inputs that could not be carried after all
	err     error         // error of a call
}

// place says where an input is, and has what the chunk lacks of its request.
type place struct {
	alone    bool // whether the input runs by itself
	at       int  // index among the inputs that run by themselves, or in the chunk
	out      []byte
	repeat   int
	noOutput bool
}

// add adds input n, with a copy of its packet in the chunk. It reports whether the
// input can be carried.
func (l *cargo[Q, R]) add(n int, req *Q) bool {
	l.first = n - len(l.places)
	if !l.kind.plain(req) {
		return false
	}
	packet, metadata, out, repeat, noOutput := l.kind.fields(req)
	if !*noOutput && !l.output {
		return false
	}
	var m []byte
	if metadata != nil {
		m = *metadata
	}
	at := l.chunk.Len()
	if !l.chunk.Add(*packet, m) {
		return false
	}
	i := len(l.places)
	l.places = l.places[:i+1]
	p := &l.places[i]
	p.alone, p.at, p.out, p.repeat, p.noOutput = false, at, *out, *repeat, *noOutput
	return true
}

// settle sets an input to the i-th of the group, with its request and its result.
func (l *cargo[Q, R]) settle(in *input[Q, R], i int) {
	l.unload(in, i)
	p, res := &l.places[i], &l.res
	l.chunk.Result(p.at, res)
	if in.err = nil; res.Lost {
		in.err = &Error{Request: "Batch", Rule: "the program ran, but its output could not be read", Ran: RanYes, Err: syscall.EFAULT}
		in.Result = *new(R)
		return
	}
	if p.noOutput {
		res.Packet, res.Metadata, res.Linear = nil, nil, 0
	} else {
		out := &p.out
		if *out == nil {
			out = &in.out
		}
		m := len(res.Metadata)
		*out = append(append((*out)[:0], res.Metadata...), res.Packet...)
		res.Metadata, res.Packet = (*out)[:m:m], (*out)[m:]
	}
	l.kind.result(&in.Result, res, l.perRun)
}

// unload sets the request of an input that is in the chunk. The packet is copied.
func (l *cargo[Q, R]) unload(in *input[Q, R], i int) {
	p := &l.places[i]
	packet, metadata, out, repeat, noOutput := l.kind.fields(&in.Request)
	all, m := l.chunk.Input(p.at)
	all = append(in.data[:0], all...)
	in.data, *packet = all, all[m:]
	if metadata != nil {
		*metadata = all[:m:m]
	}
	in.Input, *out, *repeat, *noOutput = l.first+i, p.out, p.repeat, p.noOutput
}

// carry runs the carried inputs from i on, up to the first one that is not carried,
// and returns the index of that one.
func (g *group[Q, R]) carry(i int) int {
	l := g.cargo
	end := l.lastCarried(i)
	for i < end {
		begin := time.Now()
		from, to, perRun, err := l.chunk.Run(l.places[i].at+end-i, runCarrier)
		l.took += time.Since(begin)
		l.perRun = perRun
		if to == from {
			if err != nil {
				l.err = err
			}
			g.alone(i)
			to++
		} else if to < l.chunk.Len() { // later results will overwrite these
			for k := range to - from {
				l.settle(g.another(), i+k)
				l.places[i+k] = g.last()
			}
		}
		i += to - from
	}
	return end
}

// lastCarried returns the end of the inputs from i on that are carried. Where all are,
// it need not look at them, whose memory another processor has.
func (l *cargo[Q, R]) lastCarried(i int) int {
	if len(l.places) == l.chunk.Len() {
		return len(l.places)
	}
	for i < len(l.places) && !l.places[i].alone {
		i++
	}
	return i
}

// alone runs a carried input by itself, which the carrier could not run.
func (g *group[Q, R]) alone(i int) {
	l, in := g.cargo, g.another()
	l.unload(in, i)
	l.places[i] = g.last()
	l.chunk.Skip()
	l.skipped++
	g.runOne(in, l.prog)
}
