package progrun

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
)

// call is a request as the kernel saw it: the attr's numbers and the first
// bytes of what it points to, but no pointer, so that explaining a failure
// costs nothing where there is none.
type call struct {
	request string
	names   map[string]string // the request's names of the kernel's fields
	prog    *ebpf.Program

	dataSizeIn, dataSizeOut uint32
	hasDataIn, hasDataOut   bool
	ctxSizeIn, ctxSizeOut   uint32
	hasCtxIn, hasCtxOut     bool
	repeat, flags           uint32
	cpu, batchSize          uint32
	duration                uint32
	tail                    bool // there are other than zeros after batch_size

	ctx  [192]byte // of ctx_in
	head [64]byte  // of data_in

	wanted uint32 // data_size_out as the kernel left it
}

// newCall copies the numbers of an attr, but nothing that it points to.
func newCall(request string, names map[string]string, prog *ebpf.Program, a *attr) call {
	return call{
		request: request, names: names, prog: prog,
		dataSizeIn: a.dataSizeIn, hasDataIn: a.dataIn.ptr != nil,
		dataSizeOut: a.dataSizeOut, hasDataOut: a.dataOut.ptr != nil,
		ctxSizeIn: a.ctxSizeIn, hasCtxIn: a.ctxIn.ptr != nil,
		ctxSizeOut: a.ctxSizeOut, hasCtxOut: a.ctxOut.ptr != nil,
		duration: a.duration, repeat: a.repeat, flags: a.flags, cpu: a.cpu, batchSize: a.batchSize,
		wanted: a.dataSizeOut,
	}
}

// rules returns the rules that hold for the program's type, those of every type
// first, in the order in which the kernel applies them.
func (c *call) rules() []rule {
	return append(commonRules[:len(commonRules):len(commonRules)], kindOf(c.prog.Type()).rules...)
}

// ctxSize returns the size of the context that the handler has, or 0 if it takes
// any number of bytes, or none.
func (c *call) ctxSize() uint32 { return uint32(kindOf(c.prog.Type()).ctxSize) }

func (c *call) u32(off int) uint32 { return binary.NativeEndian.Uint32(c.ctx[off:]) }

// rule is one reason that the kernel has for an errno.
type rule struct {
	errno syscall.Errno
	// field is the kernel's name of the field: of the attr, or after "ctx."
	// of the context.
	field string
	// text is the rule in a sentence.
	text string
	// broken is whether the request breaks the rule. Where that cannot be
	// seen, the rule stands behind all others, and is what is left.
	broken func(c *call) bool
	// value puts the field in words; nil for that of the attr's fields.
	value func(c *call) string
	// limit is what text says for this kernel, asked of it; nil or "" if
	// there is nothing to add.
	limit func(c *call) string
	// lacking says that a kernel without this rule's limit exists: the error
	// is ErrNotSupported too.
	lacking bool
}

// explain makes the error of a call that failed: from the rules of its
// handler, the first with this errno that the request breaks.
func explain(errno syscall.Errno, c call) error {
	e := &Error{Request: c.request, Ran: c.ran(errno), Err: errno}
	switch errno {
	case enotsupp:
		e.Rule = "this kernel cannot run " + c.prog.Type().String() + " programs"
		if !supported {
			e.Rule = "BPF programs run on Linux only"
		}
		e.Err = unsupported{errno}
		return e
	case replaced:
		e.Rule = "a program on the tracepoint bpf_test_finish replaced the result"
		return e
	}
	for _, r := range c.rules() {
		if r.errno == errno && r.broken(&c) {
			r.blame(e, &c)
			return e
		}
	}
	e.Rule = errnoText(errno)
	return e
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

// name is the request's name of a field.
func (c *call) name(field string) string {
	if name, ok := c.names[field]; ok {
		return name
	}
	return rawNames.of(field)
}

// value is an attr's field in words.
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
			return "true" // the request of a flag has a bool for it
		}
		return fmt.Sprintf("%#x", c.flags)
	case "cpu":
		return fmt.Sprint(c.cpu)
	case "batch_size":
		return fmt.Sprint(c.batchSize)
	}
	return ""
}

// ran is whether the program ran in a call that failed with errno.
func (c *call) ran(errno syscall.Errno) Ran {
	switch errno {
	case syscall.ENOSPC, syscall.EINTR, syscall.EBADMSG, replaced:
		return RanYes
	case syscall.EOPNOTSUPP:
		if c.prog.Type() == ebpf.SkLookup {
			return RanYes
		}
		return RanNo
	case syscall.ENOMEM:
		// For XDP all memory is there before the run, but for that of live frames.
		if c.prog.Type() == ebpf.XDP && c.flags&testXDPLiveFrames == 0 {
			return RanNo
		}
		return RanMaybe
	case syscall.EINVAL, syscall.E2BIG, syscall.ENODEV, syscall.ENXIO, syscall.ERANGE, syscall.EBADF,
		syscall.EAFNOSUPPORT, syscall.EPROTO, syscall.EMSGSIZE, syscall.EPERM, enotsupp:
		return RanNo
	}
	return RanMaybe
}

// errnoText says what an errno can mean where the request breaks no known rule.
func errnoText(errno syscall.Errno) string {
	switch errno {
	case syscall.EPERM:
		return "not permitted: by the kernel before Linux 5.19 for want of CAP_BPF, else by a security module or a seccomp filter"
	case syscall.EINTR:
		return "interrupted after the program ran at least once; the kernel does not say how often"
	case syscall.ENOMEM:
		return "the kernel is out of memory, or the input needs more fragments than it has"
	case syscall.EFAULT:
		return "the kernel could not read an input or write an output"
	case syscall.ENOSPC:
		return "the output is larger than the buffer for it"
	case syscall.EBADF:
		return "the program is closed"
	}
	return "the kernel does not say why, and no rule is known that the request breaks"
}
