package progrun

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
)

// Error describes why a request was refused, or why it failed. All errors of this
// package are of this type:
//
//	progrun: XDP.Metadata: 13 bytes: metadata must be a multiple of 4 bytes, at most 216 here: invalid argument
//
// [errors.Is] finds the kernel's errno in it, such as unix.EINVAL, and
// [ebpf.ErrNotSupported] if this kernel cannot do what was asked. A request that
// was refused before the system call has the errno that the kernel has for the
// same mistake.
type Error struct {
	// Input is the number of the input in a [Batch], from 1. It is 0 for errors
	// that concern no input.
	Input int
	// Request is what was asked for: the name of the request's type, such as
	// "XDP", or of another part of the package, such as "Hold". The Have functions
	// name the feature in words, such as "XDP contexts".
	Request string
	// Field is the field of the request that broke the rule, such as
	// "Context.WireLen". It is empty if no single field did.
	Field string
	// Value is the value of the field in words, such as "13 bytes".
	Value string
	// Rule says which rule was broken, or what went wrong.
	Rule string
	// Ran says whether the program ran although the call failed.
	Ran Ran
	// Err is the underlying error. If the kernel refused a run, it is the errno, a
	// [syscall.Errno], or an error that wraps both the errno and
	// [ebpf.ErrNotSupported]. If a context ended a [Live], it is the context's
	// error. It may be an error of another package, such as the loader's when a
	// Have function could not load a program. It is nil if the system call did not
	// fail, but a program on the writable tracepoint bpf_test_finish made it return
	// a number, which is then in Value.
	Err error
}

// Error returns all fields except Ran in one line.
func (e *Error) Error() string {
	parts := make([]string, 0, 6)
	parts = append(parts, "progrun")
	if e.Input > 0 {
		parts = append(parts, fmt.Sprintf("input %d", e.Input))
	}
	where := e.Request
	if e.Field != "" {
		where += "." + e.Field
	}
	parts = append(parts, where)
	for _, s := range []string{e.Value, e.Rule} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// MarshalText returns the line that Error returns.
func (e *Error) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Ran says whether a program ran in a call that failed.
type Ran uint8

const (
	RanNo    Ran = iota // the program did not run
	RanMaybe            // the kernel's answer does not tell
	RanYes              // the program ran at least once: results may be lost, side effects are not
)

// String returns "did not run", "may have run" or "ran".
func (r Ran) String() string {
	return name(int64(r), "Ran", "did not run", "may have run", "ran")
}

// MarshalText returns what String does.
func (r Ran) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText parses what String returns.
func (r *Ran) UnmarshalText(text []byte) error { return parse(r, text, "Ran", RanNo, RanMaybe, RanYes) }

// errnoOf returns the errno in an error, or EINVAL if there is none.
func errnoOf(err error) syscall.Errno {
	errno := syscall.EINVAL
	errors.As(err, &errno)
	return errno
}

// unsupported is the error of a kernel that lacks a feature, with its errno.
type unsupported struct{ errno syscall.Errno }

func (u unsupported) Error() string { return "not supported" }

func (u unsupported) Unwrap() []error { return []error{ebpf.ErrNotSupported, u.errno} }

// refuse returns the error for a field that was found to break a rule before the
// system call, so that nothing ran. It is not inlined, so that valid requests do
// not pay for it.
//
//go:noinline
func refuse(request, field, value, rule string, errno syscall.Errno) error {
	return &Error{Request: request, Field: field, Value: value, Rule: rule, Err: errno}
}

// size returns a number of bytes in words.
func size[T int | uint32](n T) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

// inRange rejects a number that is negative or larger than most.
func inRange(request, field string, n int, most uint32) error {
	if uint64(n) <= uint64(most) {
		return nil
	}
	return outOfRange(request, field, n, most)
}

func outOfRange(request, field string, n int, most uint32) error {
	if n < 0 {
		return refuse(request, field, strconv.Itoa(n), "it cannot be negative", syscall.EINVAL)
	}
	return refuse(request, field, strconv.Itoa(n), fmt.Sprintf("it can be at most %d", most), syscall.EINVAL)
}

// Rules for an interface or a CPU that does not exist.
const (
	noSuchInterface = "no such interface in this thread's network namespace"
	noSuchCPU       = "no such CPU is online"
)

// canExist rejects the number of an interface or a CPU that is negative, or that
// does not fit in the kernel's 32 bits. For the latter it returns the error that
// the kernel returns for a number that does not exist.
func canExist(request, field string, n int, rule string, errno syscall.Errno) error {
	switch {
	case uint64(n) <= math.MaxUint32:
		return nil
	case n < 0:
		return outOfRange(request, field, n, math.MaxUint32)
	}
	return refuse(request, field, strconv.Itoa(n), rule, errno)
}

// atLeastEthernet rejects a packet that ends before its Ethernet header does.
// Kernels before 6.14 ran XDP programs on such packets, and read past them.
func atLeastEthernet(request string, n int) error {
	if n >= ethHLen {
		return nil
	}
	return lessThanEthernet(request, n)
}

func lessThanEthernet(request string, n int) error {
	return refuse(request, "Packet", size(n), "a packet begins with a 14-byte Ethernet header", syscall.EINVAL)
}

// fitsPage rejects metadata longer than a page, for which the kernel's error would
// blame the packet. The kernel itself rejects shorter metadata that is too long.
func fitsPage(request string, n int) error {
	if n <= pageSize {
		return nil
	}
	return refuse(request, "Metadata", size(n), "no kernel takes more than 252 bytes of metadata", syscall.EINVAL)
}

// name returns names[v], or "Type(v)" if there is none.
func name(v int64, typ string, names ...string) string {
	if v >= 0 && v < int64(len(names)) {
		return names[v]
	}
	return typ + "(" + strconv.FormatInt(v, 10) + ")"
}

// word is a number that prints as a word.
type word interface {
	~uint8 | ~int32 | ~uint32 | ~int64
	String() string
}

// parse sets v to the value that prints as text. It is one of values, or n if text
// is "Type(n)".
func parse[T word](v *T, text []byte, typ string, values ...T) error {
	if digits, ok := strings.CutPrefix(string(text), typ+"("); ok {
		n, _ := strconv.ParseInt(strings.TrimSuffix(digits, ")"), 10, 64)
		values = []T{T(n)}
	}
	for _, value := range values {
		if value.String() == string(text) {
			*v = value
			return nil
		}
	}
	return noSuchWord(typ, text)
}

func noSuchWord(typ string, text []byte) error {
	return refuse(typ, "", strconv.Quote(string(text)), "no value of this type has this text", syscall.EINVAL)
}
