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
	// some milliseconds of another CPU.
	carryAfter = 2048
	// mostCarried and leastCarried are how many packets one call carries.
	mostCarried, leastCarried = 512, 16
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
	// fields returns pointers to the fields of the request. metadata may be nil.
	fields func(*Q) (packet, metadata, out *[]byte, noOutput bool)
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

func (r *XDP) fields() (packet, metadata, out *[]byte, noOutput bool) {
	return &r.Packet, &r.Metadata, &r.Out, r.NoOutput
}

func (r *Any) fields() (packet, metadata, out *[]byte, noOutput bool) {
	return &r.Packet, nil, &r.Out, r.NoOutput
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
	kind      carried[Q, R]
	prog      *ebpf.Program
	options   carrier.Options
	stats     *BatchStats
	data, out []byte // memory of the input that was yielded last

	making  chan *heldCarrier // receives the carrier; nil unless one is being made
	carrier *heldCarrier
	free    []*group[Q, R]
	err     error

	began            time.Time
	alone            time.Duration // time of an input that runs by itself
	took             time.Duration // time of the calls since they were last judged
	in               int           // number of inputs of these calls
	pause, nextPause int           // numbers of inputs
	count            int64
}

// newCarriage returns nil if the batch was not asked to run ahead.
func newCarriage[Q Request[Q, R], R any](prog *ebpf.Program, opts BatchOptions) *carriage[Q, R] {
	if opts.Ahead == 0 && opts.Stats == nil {
		return nil
	}
	kind, ok := carriedKind[Q, R]()
	c := &carriage[Q, R]{kind: kind, prog: prog, stats: opts.Stats, nextPause: firstPause}
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
// that will pay.
func (c *carriage[Q, R]) ready(n int) bool {
	switch {
	case c == nil || c.err != nil:
		return false
	case c.carrier != nil:
		if c.pause > 0 {
			c.pause--
			return false
		}
		return c.prog.FD() >= 0
	case c.making == nil:
		switch n {
		case carryAfter / 2:
			c.began = time.Now()
		case carryAfter:
			c.alone = time.Since(c.began) / (carryAfter / 2)
			c.make()
		}
		return false
	}
	if n%64 != 0 {
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

// look makes the carrier copy outputs if the request asks for its output.
func (c *carriage[Q, R]) look(req Q) {
	if c == nil || c.kind.fields == nil {
		return
	}
	_, _, _, noOutput := c.kind.fields(&req)
	c.options.Output = !noOutput
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
		g.cargo = &cargo[Q, R]{kind: &c.kind, output: c.options.Output, prog: c.prog, chunk: made.Chunk(i)}
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
	l.err, l.took, l.skipped = nil, 0, 0
	l.chunk.Reset()
	c.free = append(c.free, g)
}

// stop releases the carrier and fills in the stats. Releasing takes tens of
// milliseconds, for which stop does not wait.
func (c *carriage[Q, R]) stop(n *int) {
	if c == nil {
		return
	}
	if c.making != nil {
		go func(making chan *heldCarrier) { (<-making).close() }(c.making)
	}
	if c.carrier != nil {
		go c.carrier.close()
	}
	if c.stats != nil {
		*c.stats = BatchStats{Inputs: int64(*n), Carried: c.count, CarryErr: c.why()}
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

// cargo is the part of a group that is carried.
type cargo[Q, R any] struct {
	kind    *carried[Q, R]
	output  bool // whether outputs are copied out
	prog    *ebpf.Program
	chunk   *carrier.Chunk
	res     carrier.Result
	perRun  time.Duration // mean of the call whose results are in the chunk
	took    time.Duration // time of the calls
	skipped int64         // number of inputs that could not be carried after all
	err     error         // error of a call
}

// takeIn copies the packet of an input into the chunk. It reports whether the input
// can be carried.
func (g *group[Q, R]) takeIn(in *input[Q, R]) bool {
	l := g.cargo
	if !l.kind.plain(&in.Request) {
		return false
	}
	packet, metadata, _, noOutput := l.kind.fields(&in.Request)
	if !noOutput && !l.output {
		return false
	}
	var m []byte
	if metadata != nil {
		m = *metadata
	}
	in.at = l.chunk.Len()
	return l.chunk.Add(*packet, m)
}

// carry runs the carried inputs from i on, up to the first one that is not carried,
// and returns the index of that one.
func (g *group[Q, R]) carry(i int) int {
	l, end := g.cargo, g.lastCarried(i)
	for i < end {
		begin := time.Now()
		from, to, perRun, err := l.chunk.Run(g.inputs[i].at+end-i, runCarrier)
		l.took += time.Since(begin)
		l.perRun = perRun
		if to == from {
			if err != nil {
				l.err = err
			}
			g.alone(&g.inputs[i])
			to++
		} else if to < l.chunk.Len() { // later results will overwrite these
			for k := range to - from {
				in := &g.inputs[i+k]
				in.carried = false
				g.settle(in, &in.data, &in.out)
			}
		}
		i += to - from
	}
	return end
}

// lastCarried returns the end of the inputs from i on that are carried. Where all are,
// it need not look at them, whose memory another processor has.
func (g *group[Q, R]) lastCarried(i int) int {
	if len(g.inputs) == g.cargo.chunk.Len() {
		return len(g.inputs)
	}
	for i < len(g.inputs) && g.inputs[i].carried {
		i++
	}
	return i
}

// alone runs an input by itself that the carrier could not run.
func (g *group[Q, R]) alone(in *input[Q, R]) {
	in.carried = false
	packet, metadata, _, _ := g.cargo.kind.fields(&in.Request)
	p, m := g.cargo.chunk.Input(in.at)
	*packet = p
	if len(m) > 0 {
		*metadata = m
	}
	in.Request = in.Request.keep(&in.data)
	g.cargo.chunk.Skip()
	g.cargo.skipped++
	g.runOne(in, g.cargo.prog)
}

// settle sets the request and the result of a carried input, with memory in *data and
// *out.
func (g *group[Q, R]) settle(in *input[Q, R], data, out *[]byte) {
	l, res := g.cargo, &g.cargo.res
	l.chunk.Result(in.at, res)
	packet, metadata, own, noOutput := l.kind.fields(&in.Request)
	switch {
	case res.Lost:
		in.err = &Error{Request: "Batch", Rule: "the program ran, but its output could not be read", Ran: RanYes, Err: syscall.EFAULT}
	case noOutput:
		res.Packet, res.Metadata, res.Linear = nil, nil, 0
	default:
		if *own != nil {
			out = own
		}
		all := append(append((*out)[:0], res.Metadata...), res.Packet...)
		*out = all
		m := len(res.Metadata)
		res.Metadata, res.Packet = all[:m:m], all[m:]
	}
	l.kind.result(&in.Result, res, l.perRun)
	p, m := l.chunk.Input(in.at)
	*data = append(append((*data)[:0], p...), m...)
	*packet = (*data)[:len(p):len(p)]
	if len(m) > 0 {
		*metadata = (*data)[len(p):]
	}
}
