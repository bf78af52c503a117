// Package progrun runs loaded BPF programs from user space, through the kernel's
// BPF_PROG_RUN command (formerly BPF_PROG_TEST_RUN).
//
// Each family of program types has a request type with the fields that the
// kernel accepts for it, and one method, Run:
//
//	res, err := progrun.XDP{Packet: frame}.Run(prog)
//	res.Action // progrun.XDPDrop, which prints as "XDP_DROP"
//
// In the header of an if, for or switch statement, Go requires parentheses
// around the literal: (progrun.XDP{Packet: frame}).Run(prog). [Any] runs a
// program of any type that takes packets.
//
// A request is a plain value. It can be kept, copied, changed and run again.
// Several goroutines may run it at once if they do not share its output buffer.
// A run changes no later one. It allocates nothing if the request has a buffer
// for its output, or asks for none.
//
// # What a run does
//
// The program really runs: its maps, ring buffers and helpers take effect, and a
// bpf_clone_redirect transmits. Its verdict does not take effect: the kernel
// neither drops nor redirects the packet. [Live] is the exception.
//
// A packet begins with its Ethernet header. This is so even for socket filters,
// cgroup_skb and LWT programs, whose data begins after it: their results have
// 14 zero bytes in its place. The exception is [Netfilter] on the hook
// NFLocalOut, where a packet begins with its IP header.
//
// The kernel looks up interface indexes in the network namespace of the calling
// thread. A goroutine that moves its thread to another namespace must first lock
// itself to it with [runtime.LockOSThread]. A new goroutine, such as that of a
// subtest started with t.Run, is not in that namespace.
//
// # Repeat and time
//
// Repeat runs the program several times in one system call; 0 and 1 both mean
// once. The kernel does not reset the packet or the context in between: a
// program that strips a tag strips the next one in its second run. PerRun is the
// kernel's mean time of one run, without the system call. It is at most 4.29
// seconds. [Measure] reports whether a program changes its input, and also times
// runs on fresh packets.
//
// A call for an XDP program with a Repeat above 1 takes tens of milliseconds more,
// unless the program is attached to some device: the kernel adds the program to
// its XDP dispatcher and removes it again. A [Hold] avoids that. Kernels without a
// JIT have no dispatcher.
//
// A signal could end a call with a Repeat above 1 early, and the kernel does not
// say how many runs it made. So the calling thread blocks signals until the call
// returns. Before Linux 5.18 it does so for a single run too. A context cannot
// interrupt a Repeat that takes many seconds. Only a stop of the process and
// [syscall.AllThreadsSyscall] can end it, with EINTR. No run is ever made twice.
//
// Blocking and unblocking signals takes two system calls, whose time shows if
// Repeat is less than some hundred. A caller that makes many such calls can save
// the second one by blocking the signals beforehand: with [runtime.LockOSThread],
// and a pthread_sigmask of all signals but 33, which the Go runtime needs.
//
// # Output
//
// Out is the buffer that receives the output, from its start. It grows as with
// append: pass the same buffer again to run without an allocation, or leave it
// nil. The next run with the same buffer overwrites the result. No buffer is too
// small, even if the program makes the packet longer.
//
// The kernel writes to Out directly if its capacity is enough for the largest
// packet that a program could make: the length of Metadata and Packet plus a page
// and 256 bytes for XDP, or the length of Packet plus four pages for other types.
// Otherwise the output is copied. The copy takes a tenth of a run at 9,000 bytes,
// and is too short to measure below 1,500.
//
// NoOutput asks for the verdict only. It is the fastest way to run.
//
// # Sizes
//
// The kernel puts a packet in pages, so its largest size depends on the size of a
// page, and slightly on the architecture. These are the largest sizes in bytes, without
// metadata:
//
//	                      amd64, arm64   arm64    ppc64le   s390x
//	pages of              4 KiB          16 KiB   64 KiB    4 KiB
//	XDP, linear part      3520           15808    64896     3328
//	XDP, 17 fragments     73152          294336   1179008   72960
//	Live                  3408           15696    64784     3216
//	TC, SocketFilter, …   3712           16000    65024     3550
//	the same since 6.19   73344          294528   1179136   73182
//	Netfilter             3712           16000    65024     3550
//	FlowDissector         4096           16384    65536     4096
//
// Before Linux 6.3, a live frame has 40 bytes less. Before Linux 6.17 and the stable
// kernels of January 2026, kernels with larger pages limit the linear part of XDP
// packets to that of 4 KiB. An error about a size names the limit of the running kernel.
//
// # Closing a program
//
// Do not call [ebpf.Program.Close] during a Run, a [Batch] or a [Measure] of the
// same program, as with any other use of its descriptor. [Live] duplicates the
// descriptor.
//
// # Privilege
//
// Since Linux 5.19, a process that has a program's descriptor needs no
// capability to run it. Older kernels return EPERM to a process without CAP_BPF
// if the sysctl kernel.unprivileged_bpf_disabled is set.
package progrun
