package progrun

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
)

// Error says why a request was refused or failed. Every error of a Run is one:
//
//	progrun: XDP.Metadata: 13 bytes: metadata must be a multiple of 4 bytes, at most 216 here: invalid argument
//
// [errors.Is] finds the errno in it, such as unix.EINVAL, and
// [ebpf.ErrNotSupported] where this kernel cannot do what was asked. A request
// that was refused before the system call carries the errno that the kernel
// has for the same mistake.
type Error struct {
	// Input is the number of the input in a [Batch], counted from 1, and 0
	// outside of one.
	Input int
	// Request is the name of the request's type, such as "XDP".
	Request string
	// Field is the field of the request that broke the rule, such as
	// "Context.WireLen". It is empty if no single field did.
	Field string
	// Value is the field's value in words, such as "13 bytes".
	Value string
	// Rule is the rule that was broken, in a sentence.
	Rule string
	// Ran says whether the program ran nevertheless.
	Ran Ran
	// Err is the errno, a [syscall.Errno], if need be together with
	// [ebpf.ErrNotSupported].
	Err error
}

// Error puts all but Ran in one line.
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

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// Ran says whether a program ran in a call that failed.
type Ran uint8

const (
	RanNo    Ran = iota // it did not run
	RanMaybe            // the kernel's answer does not tell
	RanYes              // it ran at least once; results may be lost, side effects are not
)

// String gives "did not run", "may have run" or "ran".
func (r Ran) String() string {
	return name(int64(r), "Ran", "did not run", "may have run", "ran")
}

// enotsupp is a number of the kernel's own that leaked into its answers: this
// program type has no handler for BPF_PROG_RUN. The C library has no name for it.
const enotsupp = syscall.Errno(524)

// unsupported marks an errno as the kernel's lack of something.
type unsupported struct{ errno syscall.Errno }

func (u unsupported) Error() string { return "not supported" }

func (u unsupported) Unwrap() []error { return []error{ebpf.ErrNotSupported, u.errno} }

// refuse makes the error for a field that breaks a rule, found before the
// system call, so that nothing ran. It is kept out of the way of requests that
// break none.
//
//go:noinline
func refuse(request, field, value, rule string, errno syscall.Errno) error {
	return &Error{Request: request, Field: field, Value: value, Rule: rule, Err: errno}
}

// size puts a number of bytes in words.
func size[T int | uint32](n T) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

// inRange refuses a number that does not fit where the kernel has it.
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

// atLeastEthernet refuses a packet that ends before its Ethernet header does.
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
