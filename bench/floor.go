package main

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// job is what one call asks of the kernel. It has the sizes that progrun passes for
// the same request, so that the kernel has the same work.
type job struct {
	prog    *ebpf.Program
	packet  []byte
	out     int // bytes of room for the packet
	ctx     []byte
	ctxOut  int // bytes of room for the context
	repeat  uint32
	flags   uint32
	batch   uint32
	callRun uint32 // runs or frames for which a call counts; 0 means one
}

// attr is the part of union bpf_attr that the command uses.
type attr struct {
	progFD, retval          uint32
	dataSizeIn, dataSizeOut uint32
	dataIn, dataOut         unsafe.Pointer
	repeat, duration        uint32
	ctxSizeIn, ctxSizeOut   uint32
	ctxIn, ctxOut           unsafe.Pointer
	flags, cpu, batchSize   uint32
	_                       uint32
}

// Pointers in an attr have 64 bits: this does not build for other machines.
var _ = [1]struct{}{}[unsafe.Sizeof(attr{})-80]

// attr returns an attr with all that does not change from call to call.
func (j job) attr() *attr {
	return &attr{
		progFD: uint32(j.prog.FD()),
		dataIn: pointer(j.packet), dataSizeIn: uint32(len(j.packet)),
		dataOut: pointer(make([]byte, j.out)), dataSizeOut: uint32(j.out),
		ctxIn: pointer(j.ctx), ctxSizeIn: uint32(len(j.ctx)),
		ctxOut: pointer(make([]byte, j.ctxOut)), ctxSizeOut: uint32(j.ctxOut),
		repeat: j.repeat, flags: j.flags, batchSize: j.batch,
	}
}

func pointer(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Pointer(unsafe.SliceData(b))
}

// call makes one system call, which is the whole floor. It sets the sizes again
// because the kernel overwrites them.
func (a *attr) call(out, ctxOut uint32) error {
	a.dataSizeOut, a.ctxSizeOut = out, ctxOut
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a)); errno != 0 {
		return errno
	}
	return nil
}

// goFloor returns the floor of Go: an attr filled in beforehand, and unix.Syscall.
func goFloor(j job) contender {
	a := j.attr()
	out, ctxOut := uint32(j.out), uint32(j.ctxOut)
	return contender{by: byGo, run: j.counting(func(n int) (time.Duration, error) {
		if j.repeat > 1 {
			defer blockSignals()()
		}
		begin := time.Now()
		for range n {
			if err := a.call(out, ctxOut); err != nil {
				return 0, err
			}
		}
		return time.Since(begin), nil
	})}
}

// blockSignals keeps the Go runtime's signals from cutting repeats short on the
// calling thread, until the function that it returns is called. It is not part of
// what is measured, although progrun does the same for each call.
func blockSignals() (restore func()) {
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old)
	return func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }
}

// counting turns a function that makes calls into one that counts the runs of these.
func (j job) counting(f func(calls int) (time.Duration, error)) func(int) (time.Duration, error) {
	if j.callRun < 2 {
		return f
	}
	return func(n int) (time.Duration, error) { return f(max(1, n/int(j.callRun))) }
}

//go:embed floor.c
var floorSource []byte

// cLoop is a child process that makes calls in a C loop. It is nil on machines
// without a compiler.
type cLoop struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

var errNoCompiler = errors.New("no C compiler was found")

// startCLoop builds the C loop and starts it. It runs on the CPUs and in the
// network namespace of the calling thread, whose goroutine must be locked to it.
func startCLoop() (*cLoop, error) {
	cc, err := compiler()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "progrun-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // the child keeps its image
	source, binary := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
	if err := os.WriteFile(source, floorSource, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command(cc, "-O2", "-o", binary, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cc, err, out)
	}
	c := &cLoop{cmd: exec.Command(binary)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	return c, c.cmd.Start()
}

// compiler returns the path of the machine's C compiler.
func compiler() (string, error) {
	for _, name := range []string{os.Getenv("CC"), "cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path, nil
		}
	}
	return "", errNoCompiler
}

// stop ends the child and waits for it.
func (c *cLoop) stop() error {
	if c == nil {
		return nil
	}
	c.in.Close()
	return c.cmd.Wait()
}

// cFloor returns the floor of C, or no contender if there is no compiler.
func (c *cLoop) cFloor(j job) []contender {
	if c == nil {
		return nil
	}
	return []contender{{by: byC, run: j.counting(func(n int) (time.Duration, error) { return c.do(j, n) })}}
}

// do makes the child make n calls, and returns the time that they took there.
func (c *cLoop) do(j job, n int) (time.Duration, error) {
	info, err := j.prog.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	var request []byte
	for _, v := range []uint32{
		uint32(id), uint32(len(j.packet)), uint32(j.out), uint32(len(j.ctx)), uint32(j.ctxOut),
		j.repeat, j.flags, j.batch,
	} {
		request = binary.NativeEndian.AppendUint32(request, v)
	}
	request = binary.NativeEndian.AppendUint64(request, uint64(n))
	request = append(append(request, j.packet...), j.ctx...)
	if _, err := c.in.Write(request); err != nil {
		return 0, fmt.Errorf("the C loop: %w", err)
	}
	var answer int64
	if err := binary.Read(c.out, binary.NativeEndian, &answer); err != nil {
		return 0, fmt.Errorf("the C loop: %w", err)
	}
	if answer < 0 {
		return 0, fmt.Errorf("the C loop: %w", syscall.Errno(-answer))
	}
	return time.Duration(answer), nil
}

// compilerVersion returns the first line of the compiler's version.
func compilerVersion() string {
	cc, err := compiler()
	if err != nil {
		return "none: the C loops are left out"
	}
	out, err := exec.Command(cc, "--version").Output()
	if err != nil {
		return cc
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
