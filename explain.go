package progrun

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"github.com/cilium/ebpf"
)

// call is a request as the kernel saw it, with what the kernel wrote back. It has
// copies of the attr's numbers and of the bytes that rules look at. It keeps none
// of the request's pointers, so that a run that succeeds pays nothing for
// explanations.
type call struct {
	request string
	names   fieldNames // the request's names of the kernel's fields
	prog    *ebpf.Program

	dataSizeIn, dataSizeOut uint32
	hasDataIn, hasDataOut   bool
	ctxSizeIn, ctxSizeOut   uint32
	hasCtxIn, hasCtxOut     bool
	repeat, flags           uint32
	cpu, batchSize          uint32
	duration                uint32
	tail                    bool // bytes after batch_size are set

	ctx  [largestContext]byte // the start of ctx_in; no handler has room for more
	head [ethHLen]byte        // the start of data_in

	// left holds fields of the attr as the kernel left them.
	left struct{ retval, dataSizeOut, duration uint32 }
}

// newCall returns a call with the numbers of an attr that was passed to the kernel.
// The caller sets data_size_out if the kernel may have changed it, and copies the
// context and the start of the data.
func newCall(request string, names fieldNames, prog *ebpf.Program, a *attr) call {
	c := call{
		request: request, names: names, prog: prog,
		dataSizeIn: a.dataSizeIn, hasDataIn: a.dataIn.ptr != nil,
		dataSizeOut: a.dataSizeOut, hasDataOut: a.dataOut.ptr != nil,
		ctxSizeIn: a.ctxSizeIn, hasCtxIn: a.ctxIn.ptr != nil,
		ctxSizeOut: a.ctxSizeOut, hasCtxOut: a.ctxOut.ptr != nil,
		repeat: a.repeat, flags: a.flags, cpu: a.cpu, batchSize: a.batchSize,
	}
	c.left.retval, c.left.dataSizeOut, c.left.duration = a.retval, a.dataSizeOut, a.duration
	return c
}

// fd returns the descriptor of the program, for questions to the kernel.
func (c *call) fd() uint32 { return uint32(c.prog.FD()) }

// contextAs returns the context as its handler reads it. Bytes that ctx_in does
// not have are 0.
func contextAs[T any](c *call) (ctx T) {
	copy(view(&ctx), c.ctx[:])
	return ctx
}

func (c *call) skb() skBuff          { return contextAs[skBuff](c) }
func (c *call) xdp() xdpMD           { return contextAs[xdpMD](c) }
func (c *call) skLookup() skLookup   { return contextAs[skLookup](c) }
func (c *call) nfState() nfHookState { return contextAs[nfHookState](c) }

// hasCtx reports whether the handler has a context. A buffer for the output is
// enough: the input is then all zeros.
func (c *call) hasCtx() bool { return c.hasCtxIn || c.hasCtxOut }

// live reports whether the run is on live frames.
func (c *call) live() bool { return c.flags&testXDPLiveFrames != 0 }

// finished reports whether the kernel wrote results, which it does only after
// the program ran. Before the call all of them but data_size_out are 0.
func (c *call) finished() bool {
	return c.left.retval != 0 || c.left.duration != 0 || c.left.dataSizeOut != c.dataSizeOut
}

// rules returns the rules for the program's type, in the order in which the
// kernel applies them.
func (c *call) rules() []rule {
	rules := attrRules()
	if handler := kindOf(c.prog.Type()).rules; handler != nil {
		rules = append(rules, handler()...)
	}
	return append(rules, copyRules()...)
}

// ctxSize returns the size of the handler's context, or 0 if it takes any number of
// bytes, or no context.
func (c *call) ctxSize() uint32 { return uint32(kindOf(c.prog.Type()).ctxSize) }

// rule is one of the kernel's reasons for an errno.
type rule struct {
	errno syscall.Errno
	// field is the kernel's name of a field of the attr or, after "ctx.", of the
	// context. It is empty if the rule is about no single field.
	field string
	// text says what the rule is.
	text string
	// broken reports whether the request breaks the rule. Rules that cannot be
	// checked come last and always match.
	broken func(c *call) bool
	// value returns the field in words. It may be nil for a field of the attr.
	value func(c *call) string
	// limit returns what to add to text on this kernel, such as a size that only
	// the kernel knows. It may be nil.
	limit func(c *call) string
	// lacking means that later kernels take the request. The error then Is
	// ebpf.ErrNotSupported too.
	lacking bool
}

// where returns the rule with another condition.
func (r rule) where(broken func(c *call) bool) rule {
	r.broken = broken
	return r
}

// replacedText explains a result that is not the kernel's own.
const replacedText = "the program ran, and then a program on the writable tracepoint bpf_test_finish replaced the result of the call"

// explain returns the error of a call that failed. The first rule of the handler
// that has this errno and that the request breaks is the reason.
func explain(errno syscall.Errno, c call) error {
	defer runtime.KeepAlive(c.prog)
	e := &Error{Request: c.request, Ran: c.ran(errno), Err: errno}
	switch {
	case errno == enotsupp:
		e.Rule = "this kernel cannot run " + c.prog.Type().String() + " programs"
		if !supported {
			e.Rule = "BPF programs run on Linux only"
		}
		e.Err = unsupported{errno}
	case errno > maxErrno:
		e.Value, e.Rule, e.Err = strconv.Itoa(result(errno)), replacedText, nil
	case c.finished() && errno != syscall.ENOSPC && errno != syscall.EFAULT:
		e.Rule = replacedText // the kernel itself has no other errno at that point
	default:
		c.findRule(errno, e)
	}
	return e
}

// findRule fills in the error with the rule that the request breaks, or with
// what the errno can mean if there is none.
func (c *call) findRule(errno syscall.Errno, e *Error) {
	for _, r := range c.rules() {
		if r.errno == errno && r.broken(c) {
			r.blame(e, c)
			return
		}
	}
	switch {
	case c.finished():
		e.Rule = replacedText
	case c.prog.Type() == ebpf.Tracing: // finished cannot tell for this type
		e.Ran = RanMaybe
		e.Rule = errnoText(errno) + ", unless a program on the writable tracepoint bpf_test_finish replaced the result of the call"
	default:
		e.Rule = errnoText(errno)
	}
}

// blame fills in the error for a broken rule.
func (r *rule) blame(e *Error, c *call) {
	e.Field, e.Rule = c.name(r.field), r.text
	if r.value != nil {
		e.Value = r.value(c)
	} else {
		e.Value = c.value(r.field)
	}
	if r.limit != nil {
		e.Rule += r.limit(c)
	}
	if r.lacking {
		e.Err = unsupported{r.errno}
	}
}

// name returns the request's name of a field.
func (c *call) name(field string) string {
	if name, ok := c.names[field]; ok {
		return name
	}
	return rawNames.of(field)
}

// value returns a field of the attr in words.
func (c *call) value(field string) string {
	switch field {
	case "data_size_in":
		return size(c.dataSizeIn)
	case "data_size_out":
		return size(c.dataSizeOut)
	case "ctx_size_in":
		return size(c.ctxSizeIn)
	case "ctx_size_out":
		return size(c.ctxSizeOut)
	case "repeat":
		return fmt.Sprint(c.repeat)
	case "flags":
		if c.request != "Raw" {
			return "true" // requests have a bool for each flag
		}
		return fmt.Sprintf("%#x", c.flags)
	case "cpu":
		return fmt.Sprint(c.cpu)
	case "batch_size":
		return fmt.Sprint(c.batchSize)
	}
	return ""
}

// ran returns whether the program ran in a call that failed with errno.
func (c *call) ran(errno syscall.Errno) Ran {
	if c.finished() || errno > maxErrno {
		return RanYes
	}
	switch errno {
	case syscall.ENOSPC, syscall.EINTR, syscall.EBADMSG:
		return RanYes
	case syscall.EOPNOTSUPP:
		if c.prog.Type() == ebpf.SkLookup {
			return RanYes
		}
		return RanNo
	case syscall.ENOMEM:
		// For XDP the kernel allocates all memory before the run, except for live
		// frames.
		if c.prog.Type() == ebpf.XDP && !c.live() {
			return RanNo
		}
		return RanMaybe
	case syscall.EINVAL, syscall.E2BIG, syscall.ENODEV, syscall.ENXIO, syscall.ERANGE, syscall.EBADF,
		syscall.EAFNOSUPPORT, syscall.EPROTO, syscall.EMSGSIZE, syscall.EPERM, syscall.EACCES, syscall.ENOSYS, enotsupp:
		return RanNo
	}
	return RanMaybe
}

// errnoText returns what an errno can mean if the request breaks no known rule.
func errnoText(errno syscall.Errno) string {
	switch errno {
	case syscall.EPERM:
		return "not permitted: before Linux 5.19 the process needs CAP_BPF; otherwise a security module or a seccomp filter refused the call"
	case syscall.EACCES:
		return "not permitted: a security module or a seccomp filter refused the call"
	case syscall.ENOSYS:
		return "the kernel has no bpf system call, or a seccomp filter hides it"
	case syscall.EINTR:
		return "interrupted after the program ran at least once; the kernel does not say how often"
	case syscall.ENOMEM:
		return "the kernel is out of memory, or the input needs more fragments than the kernel has"
	case syscall.EFAULT:
		return "the kernel could not read an input or write an output"
	case syscall.ENOSPC:
		return "the output is larger than the buffer for it"
	case syscall.EBADF:
		return "the program is closed"
	}
	return "the kernel does not say why, and the request breaks no known rule"
}

// wantLiveFrames returns an error if the kernel has no live frames, or if that
// cannot be found out. Live frames came with the attr's field batch_size. field and
// value are those of the request that ask for them, if one does.
func wantLiveFrames(request, field, value string, prog *ebpf.Program) error {
	switch known, errno := askForBatchSize(); known {
	case yes:
		return nil
	case no:
		return &Error{Request: request, Field: field, Value: value,
			Rule: "this kernel has no live frames (Linux 5.18)", Err: unsupported{syscall.EINVAL}}
	default:
		return explain(errno, call{request: request, prog: prog})
	}
}
