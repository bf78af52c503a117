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
// program of whatever type takes packets.
//
// A request is a plain value. It can be kept, copied, changed and run again,
// also from many goroutines at once, as long as they do not share its output
// buffer. The package keeps no state between runs. A run allocates nothing if
// the request has a buffer for its output.
//
// # What a run does
//
// The program really runs: its maps, ring buffers and helpers take effect, and a
// bpf_clone_redirect transmits. Its verdict does not take effect: the kernel
// neither drops nor redirects the packet. [Live] is the exception.
//
// Every packet begins with its Ethernet header, even for socket filters,
// cgroup_skb and LWT programs, whose data begins after it. These programs get
// the header back as 14 zero bytes.
//
// The kernel looks up interface indexes in the network namespace of the calling
// thread. A goroutine that moved its thread to another namespace must keep it
// with [runtime.LockOSThread]. Code that a new goroutine runs, such as a subtest
// started with t.Run, is not in that namespace.
//
// # Repeat and time
//
// Repeat runs the program several times in one system call; 0 and 1 both mean
// once. The kernel does not reset the packet or the context in between: a
// program that strips a tag strips the next one in its second run. PerRun is the
// kernel's mean time of one run, without the system call, and at most 4.29
// seconds. [Measure] tells whether a program changes what it runs on, and also
// times runs on fresh packets.
//
// A call for an XDP program with a Repeat above 1 takes tens of milliseconds more,
// unless the program is attached to some device: the kernel adds the program to
// its XDP dispatcher and removes it again. [NewHold] avoids that for as long as it
// is held. Kernels without a JIT have no dispatcher.
//
// A signal could end such a call early, and the kernel does not say how many
// runs were made. So the calling thread blocks signals until the call returns:
// a Repeat that takes many seconds cannot be interrupted by a context. Only
// stopping the process and [syscall.AllThreadsSyscall] still end it, with EINTR.
// No run is ever made twice. Blocking and unblocking takes two system calls, which
// show in a Repeat of less than some hundred. A caller that makes many such calls
// saves the second one by having the signals blocked before: with
// [runtime.LockOSThread], and a pthread_sigmask of all signals but 33, which the
// Go runtime needs.
//
// # Output
//
// Out is the buffer that receives the output, from its start. It grows as with
// append: pass the same buffer again to run without an allocation, or leave it
// nil. The next run with the same buffer overwrites the result. No buffer is too
// small, and none needs room for a packet that grows. Where Out has capacity for
// all that a program could make of the packet, the kernel writes to it directly:
// that is a page and 256 bytes more than Metadata and Packet for XDP, and four
// pages more than Packet for other types. Otherwise the output is copied, which
// takes a tenth of a run at 9,000 bytes, and nothing that shows below 1,500.
// NoOutput asks for the verdict only, which is the fastest way to run.
//
// # Sizes
//
// The kernel lays a packet in pages, so its largest size depends on the size of a
// page, and a little on the architecture. In bytes, packet and no metadata:
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
// A live frame has 40 bytes less before Linux 6.3. Kernels with larger pages held
// XDP packets to the linear part of 4 KiB until Linux 6.17 and stable kernels of
// January 2026. An error about a size names the limit of the kernel at hand.
//
// # Closing a program
//
// [ebpf.Program.Close] must not be called during a Run, a [Batch] or a [Measure]
// of the same program, as with any other use of its descriptor. [Live] works on
// a descriptor of its own.
//
// # Privilege
//
// Since Linux 5.19, a process that has a program's descriptor needs no
// capability to run it. Older kernels return EPERM to a process without CAP_BPF
// where the sysctl kernel.unprivileged_bpf_disabled is set.
package progrun
