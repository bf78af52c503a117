package progrun

import (
	"math"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// attr is the part of union bpf_attr that BPF_PROG_RUN reads and writes. It
// lives on the stack of the Run that makes it. It has the full size of the
// kernel's struct, because the kernel writes results at their offsets even if it
// is told a smaller size.
type attr struct {
	progFD, retval          uint32
	dataSizeIn, dataSizeOut uint32
	dataIn, dataOut         pointer
	repeat, duration        uint32
	ctxSizeIn, ctxSizeOut   uint32
	ctxIn, ctxOut           pointer
	flags, cpu, batchSize   uint32
	tail                    [4]byte
}

const attrSize = unsafe.Sizeof(attr{})

// interruptible reports whether a signal could cut the call short. Only such
// calls block signals.
func (a *attr) interruptible() bool { return a.repeat > 1 || !knowsBatchSize() }

// guard blocks signals if one could cut the call short. It returns before the
// call, so that it adds no stack frame between a run and its system call.
func (a *attr) guard() guard {
	if a.interruptible() {
		return blockSignals()
	}
	return guard{}
}

// run passes the attr to the kernel once. The Run methods of requests do the same
// in their own frames; progRun says why.
func (a *attr) run() syscall.Errno { return a.runSized(attrSize) }

// runSized is like run for an attr that is followed by more bytes, up to size.
func (a *attr) runSized(size uintptr) syscall.Errno {
	guard := a.guard()
	errno := progRun(a, size)
	guard.release()
	return errno
}

// probe is like run, but blocks no signals.
func (a *attr) probe() syscall.Errno { return progRun(a, attrSize) }

// longAttr is an attr with room for fields that later kernels append. The kernel
// takes at most a page.
type longAttr struct {
	attr
	more [4096 - attrSize]byte
}

// maxTail is how many bytes a longAttr has after batch_size.
const maxTail = len(attr{}.tail) + len(longAttr{}.more)

// Flags of attr, by the names of linux/bpf.h.
const (
	testRunOnCPU            = 1 << 0 // BPF_F_TEST_RUN_ON_CPU
	testXDPLiveFrames       = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	testSKBChecksumComplete = 1 << 2 // BPF_F_TEST_SKB_CHECKSUM_COMPLETE
)

const (
	ethHLen     = 14             // ETH_HLEN
	maxCtx      = math.MaxUint16 // of a syscall program
	maxFuncArgs = 12             // MAX_BPF_FUNC_ARGS
)

// The kernel's rules for the batch size of live frames.
const (
	maxBatchSize     = 256 // TEST_XDP_MAX_BATCH
	defaultBatchSize = 64  // NAPI_POLL_WEIGHT
	overMaxBatchSize = "over the kernel's 256"
)

// newAttr returns an attr for a program, its data and its contexts. Each slice is
// nil or not empty. newAttr is one literal, which the compiler builds in place:
// filling in an attr field by field and copying it costs a twentieth of a run.
// The code of a run is cold after every system call, which is also why refusals
// and explanations are functions of their own.
func newAttr(fd uint32, dataIn, dataOut, ctxIn, ctxOut []byte, repeat, flags uint32) attr {
	return attr{
		progFD: fd,
		dataIn: pointer{ptr: unsafe.Pointer(unsafe.SliceData(dataIn))}, dataSizeIn: uint32(len(dataIn)),
		dataOut: pointer{ptr: unsafe.Pointer(unsafe.SliceData(dataOut))}, dataSizeOut: uint32(len(dataOut)),
		ctxIn: pointer{ptr: unsafe.Pointer(unsafe.SliceData(ctxIn))}, ctxSizeIn: uint32(len(ctxIn)),
		ctxOut: pointer{ptr: unsafe.Pointer(unsafe.SliceData(ctxOut))}, ctxSizeOut: uint32(len(ctxOut)),
		repeat: repeat, flags: flags,
	}
}

// perRun returns the kernel's mean time of one run.
func (a *attr) perRun() time.Duration { return time.Duration(a.duration) }

var batchSizeKnown answer

// knowsBatchSize reports whether this kernel's attr has the field batch_size, which
// came with Linux 5.18. It reports false if the kernel cannot be asked.
//
// A kernel with the field also finishes a single run although a signal is
// pending, since it has 607b9cc92bd7 (5.13). No call can ask for that commit.
func knowsBatchSize() bool {
	return batchSizeKnown.Load() == yes || learnsBatchSize()
}

// learnsBatchSize is not inlined, to keep it out of every run.
//
//go:noinline
func learnsBatchSize() bool {
	known, _ := askForBatchSize()
	return known == yes
}

// askForBatchSize finds out what knowsBatchSize reports. If the answer is
// unknown, errno did not come from the kernel's handler of the command, but from
// something like a seccomp filter. The kernel checks for unknown fields before it
// looks up the program. So a call with a descriptor that cannot exist returns
// EBADF if the kernel knows the field.
func askForBatchSize() (known uint32, errno syscall.Errno) {
	if known = batchSizeKnown.Load(); known != unknown {
		return known, 0
	}
	a := newAttr(^uint32(0), nil, nil, nil, nil, 0, 0)
	switch errno = a.probe(); errno {
	case syscall.EBADF:
	case enotsupp: // not on Linux
		return no, 0
	default:
		return unknown, errno
	}
	a.batchSize = 1
	switch errno = a.probe(); errno {
	case syscall.EBADF:
		known = yes
	case syscall.EINVAL:
		known = no
	default:
		return unknown, errno
	}
	batchSizeKnown.Store(known)
	return known, 0
}

// maxErrno is the largest errno of the kernel. A program on the writable
// tracepoint bpf_test_finish can make a call return a number that is neither 0 nor
// an errno. An Errno above maxErrno stands for such a result. Like an errno, it
// is the negated result.
const maxErrno = 4095

// result returns the result of the call for which an Errno above maxErrno stands.
func result(errno syscall.Errno) int { return int(int32(-errno)) }

// enotsupp is ENOTSUPP, an errno that is internal to the kernel but reaches user
// space here: the program type has no handler for BPF_PROG_RUN. The C library has
// no name for it.
const enotsupp = syscall.Errno(524)

// answer is a kernel's answer to a question: unknown until it is certain.
type answer struct{ atomic.Uint32 }

const (
	unknown uint32 = iota
	yes
	no
)
