// Package progrun runs loaded BPF programs from user space, by the kernel's
// BPF_PROG_RUN command (once BPF_PROG_TEST_RUN).
//
// There is one request type for each family of program types, with just the
// fields that the kernel takes for it, and one verb, Run:
//
//	res, err := progrun.XDP{Packet: frame}.Run(prog)
//	res.Action // progrun.XDPDrop, which prints as "XDP_DROP"
//
// In the header of an if, for or switch, Go wants the literal in parentheses:
// (progrun.XDP{Packet: frame}).Run(prog).
//
// A request is a plain value: it may be kept, copied, changed and run again,
// from many goroutines at once as long as they do not share its output
// buffers. Nothing is kept between runs, and a run allocates nothing when it
// is given somewhere to put its output.
//
// # What a run does
//
// The program runs for real: its maps, ring buffers and helpers take effect.
// Its verdict is not acted on: nothing is dropped or redirected, though
// bpf_clone_redirect does transmit. Interface indexes are looked up in the
// network namespace of the calling thread; callers that moved theirs hold it
// with [runtime.LockOSThread].
//
// # Repeat and time
//
// Repeat runs the program again and again within one system call; 0 and 1 both
// mean once. The kernel does not reset the packet or the context in between:
// a program that edits the packet meets its own edits. PerRun is the kernel's
// own mean time of one run, without the system call. It cannot exceed 4.29
// seconds. For XDP, a call with a Repeat above 1 costs tens of milliseconds
// more, for it takes the program into the kernel's XDP dispatcher and out
// again (x86-64), unless the program is attached to some device meanwhile.
//
// Signals could cut such a call short, and nobody would know how far it came.
// So its thread blocks all signals until it is done; a Repeat of many seconds
// is many seconds in which no context ends it. Only a stop of the process and
// [syscall.AllThreadsSyscall] still cut it, with EINTR.
//
// # Output
//
// Out is a buffer that the output is written to from its start, growing as
// append would: pass the same one again to run without an allocation, or leave
// it nil. The output is as large as the packet came out of the program; no
// room for growth is needed. NoOutput wants the verdict only and is the
// fastest.
//
// # Privilege
//
// Since Linux 5.19 a process that holds a program's descriptor needs no
// capability to run it. Before, EPERM answers a process without CAP_BPF where
// the sysctl kernel.unprivileged_bpf_disabled is set.
package progrun
