package progrun

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Request: "XDP", Field: "Metadata", Value: "13 bytes", Rule: "metadata must be a multiple of 4 bytes", Err: unix.EINVAL},
			"progrun: XDP.Metadata: 13 bytes: metadata must be a multiple of 4 bytes: invalid argument"},
		{Error{Request: "TC", Field: "Context.WireLen", Value: "40", Rule: "it must be at least the packet's length", Err: unix.EINVAL},
			"progrun: TC.Context.WireLen: 40: it must be at least the packet's length: invalid argument"},
		{Error{Input: 3, Request: "XDP", Field: "Packet", Value: "13 bytes", Rule: "too short", Err: unix.EINVAL},
			"progrun: input 3: XDP.Packet: 13 bytes: too short: invalid argument"},
		{Error{Request: "SkLookup", Field: "Local", Rule: "not set", Err: unix.EAFNOSUPPORT},
			"progrun: SkLookup.Local: not set: address family not supported by protocol"},
		{Error{Request: "XDP", Rule: "the program is nil", Err: unix.EINVAL}, "progrun: XDP: the program is nil: invalid argument"},
		{Error{Request: "LWT", Rule: "this kernel cannot run LWTSeg6Local programs", Err: unsupported{enotsupp}},
			"progrun: LWT: this kernel cannot run LWTSeg6Local programs: not supported"},
		{Error{Request: "XDP", Rule: "a rule alone"}, "progrun: XDP: a rule alone"},
		{Error{Request: "XDP", Field: "Packet", Err: unix.EINVAL}, "progrun: XDP.Packet: invalid argument"},
		{Error{Request: "XDP", Rule: "it ran all the same", Ran: RanYes, Err: unix.EINTR}, "progrun: XDP: it ran all the same: interrupted system call"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// TestErrorIs checks that errors.Is finds the errno, and ebpf.ErrNotSupported too if
// the kernel lacks a feature.
func TestErrorIs(t *testing.T) {
	_, err := XDP{}.Run(nil)
	lacking := error(&Error{Request: "TC", Err: unsupported{unix.EINVAL}})
	for _, c := range []struct {
		name string
		err  error
		is   error
		want bool
	}{
		{"refused", err, unix.EINVAL, true},
		{"refused", err, syscall.EINVAL, true},
		{"refused", err, unix.EBADF, false},
		{"refused", err, ebpf.ErrNotSupported, false},
		{"refused, wrapped", fmt.Errorf("test: %w", err), unix.EINVAL, true},
		{"lacking", lacking, ebpf.ErrNotSupported, true},
		{"lacking", lacking, unix.EINVAL, true},
		{"lacking", lacking, unix.ENOENT, false},
		{"lacking a handler", &Error{Err: unsupported{enotsupp}}, ebpf.ErrNotSupported, true},
		{"lacking a handler", &Error{Err: unsupported{enotsupp}}, syscall.Errno(524), true},
		{"without an errno", &Error{}, unix.EINVAL, false},
	} {
		if got := errors.Is(c.err, c.is); got != c.want {
			t.Errorf("%s: errors.Is(%v, %v) is %v", c.name, c.err, c.is, got)
		}
	}
}

func TestErrorAs(t *testing.T) {
	_, err := SkLookup{Protocol: 70000, Local: addrPort("192.0.2.1:1")}.Run(nil)
	var e *Error
	if !errors.As(fmt.Errorf("test: %w", err), &e) {
		t.Fatalf("%v is no *Error", err)
	}
	if e.Request != "SkLookup" || e.Field != "" || e.Value != "" || e.Rule != "the program is nil" || e.Ran != RanNo || e.Input != 0 {
		t.Errorf("got %+v", e)
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) || errno != unix.EINVAL {
		t.Errorf("the errno is %v", errno)
	}
	if !errors.As(error(&Error{Err: unsupported{enotsupp}}), &errno) || errno != enotsupp {
		t.Errorf("the errno of what is not supported is %v", errno)
	}
	if e.Unwrap() != error(unix.EINVAL) || (&Error{}).Unwrap() != nil {
		t.Error("Unwrap does not give Err")
	}
}

// TestErrorOfField checks each field of an Error on which a program can act.
func TestErrorOfField(t *testing.T) {
	o := load(t, "tc", "tc_mark")
	_, err := TC{Packet: frame(64), Context: SKB{WireLen: 40}}.Run(o.Program)
	want := Error{Request: "TC", Field: "Context.WireLen", Value: "40", Rule: "it must be at least the packet's length, 64 bytes", Err: unix.EINVAL}
	var e *Error
	if !errors.As(err, &e) || *e != want {
		t.Errorf("got  %+v\nwant %+v", err, want)
	}
}
