package progrun

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// refusing calls f on a thread where the system call bpf fails with errno, for one
// command, or for all commands if cmd is -1.
func refusing(t *testing.T, errno unix.Errno, cmd int, f func()) {
	t.Helper()
	needPrivilege(t)
	const nr, arg0 = 0, 16 // offsets in struct seccomp_data; the command is 32 bits of it
	low := uint32(arg0)
	if !littleEndian {
		low += 4
	}
	match := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: low},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(cmd), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if cmd < 0 {
		match[3].Jf = 0
	}
	filter := unix.SockFprog{Len: uint16(len(match)), Filter: &match[0]}
	var err error
	onThread(func() bool {
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return false
		}
		if err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err == nil {
			f()
		}
		return false // the thread ends, since the filter stays on it
	})
	if err != nil {
		t.Fatalf("install a seccomp filter: %v", err)
	}
}

var littleEndian = *(*byte)(unsafe.Pointer(&[]uint16{1}[0])) == 1

// forgetBatchSize makes the next caller of askForBatchSize ask the kernel.
func forgetBatchSize(t *testing.T) {
	known := batchSizeKnown.Load()
	batchSizeKnown.Store(unknown)
	t.Cleanup(func() { batchSizeKnown.Store(known) })
}

// TestLiveFramesRefused checks that a refused system call does not count as a lack of
// live frames, and that every request returns the same error.
func TestLiveFramesRefused(t *testing.T) {
	o := load(t, "xdp", "xdp_drop")
	for _, c := range []struct {
		errno unix.Errno
		text  string
	}{
		{unix.EPERM, "not permitted: before Linux 5.19 the process needs CAP_BPF; otherwise a security module or a seccomp filter refused the call: operation not permitted"},
		{unix.EACCES, "not permitted: a security module or a seccomp filter refused the call: permission denied"},
		{unix.ENOSYS, "the kernel has no bpf system call, or a seccomp filter hides it: function not implemented"},
	} {
		for _, r := range []struct {
			request string
			run     func() error
		}{
			{"XDP", func() error { _, err := XDP{Packet: frame(64)}.Run(o.Program); return err }},
			{"Raw", func() error {
				_, err := Raw{DataIn: frame(64), Flags: testXDPLiveFrames}.Run(o.Program)
				return err
			}},
			{"Live", func() error {
				_, err := Live{Packet: frame(64), Frames: 1}.Run(t.Context(), o.Program)
				return err
			}},
		} {
			t.Run(r.request+" "+c.errno.Error(), func(t *testing.T) {
				forgetBatchSize(t)
				var err error
				refusing(t, c.errno, unix.BPF_PROG_RUN, func() { err = r.run() })
				wantError(t, err, "progrun: "+r.request+": "+c.text, c.errno, RanNo)
				if lacks(err) {
					t.Errorf("%v is taken for a lack of the kernel", err)
				}
				if batchSizeKnown.Load() != unknown {
					t.Error("this was kept for an answer")
				}
			})
		}
	}
	if n := sum(t, o, "frames", 0); n != 0 {
		t.Errorf("ran %d times", n)
	}
}

// TestProbesRefused checks that no probe keeps a refusal, or a lack of memory, as an
// answer.
func TestProbesRefused(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOMEM, unix.EMFILE, unix.EINVAL} {
		for _, cmd := range []int{-1, unix.BPF_PROG_RUN, unix.BPF_PROG_LOAD} {
			for _, c := range probes {
				fresh := anew(c.p)
				forgetBatchSize(t)
				var err error
				refusing(t, errno, cmd, func() { err = fresh.result() })
				if err == nil || lacks(err) || !errors.Is(err, errno) || fresh.known.Load() != unknown {
					t.Errorf("%s: the kernel could not be asked (%v), but: %v", c.name, errno, err)
				}
			}
			forgetBatchSize(t)
			var err, typ error
			typeKnown[ebpf.SchedCLS].Store(unknown)
			refusing(t, errno, cmd, func() { err, typ = HaveXDPLiveFrames(), HaveProgramRun(ebpf.SchedCLS) })
			for _, err := range []error{err, typ} {
				if cmd == unix.BPF_PROG_LOAD && err != typ {
					continue // this probe needs no program
				}
				if err == nil || lacks(err) || !errors.Is(err, errno) {
					t.Errorf("the kernel could not be asked (%v), but: %v", errno, err)
				}
			}
		}
	}
}

// withoutDescriptors calls f while the process can open no file.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// TestWithoutDescriptors runs requests while no descriptor is left, and again
// afterwards.
func TestWithoutDescriptors(t *testing.T) {
	dissector, cgroup, xdp := load(t, "flow_dissector", "flow_dissect"), load(t, "cgroup_skb", "cgroup_ingress"), load(t, "xdp", "xdp_pass")
	type seen struct {
		verdict FlowDissectorVerdict
		cgroup  Sight
		frags   Sight
	}
	run := func() (s seen) {
		f, err1 := FlowDissector{Packet: udp4(somewhere, 53)}.Run(dissector.Program)
		c, err2 := CGroupSKB{Packet: frame(64)}.Run(cgroup.Program)
		s = seen{f.Verdict, c.Sight, SightUnknown}
		var err3 error
		if HaveXDPMultiBuffer() == nil {
			var x XDPResult
			x, err3 = XDP{Packet: frame(2 * pageSize)}.Run(xdp.Program)
			s.frags = x.Sight
		}
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Error(err)
		}
		return s
	}
	HaveXDPMultiBuffer()
	flows, data := flowVerdicts.known.Load(), cgroupSKBData.known.Load()
	flowVerdicts.known.Store(unknown)
	cgroupSKBData.known.Store(unknown)
	defer func() {
		flowVerdicts.known.CompareAndSwap(unknown, flows)
		cgroupSKBData.known.CompareAndSwap(unknown, data)
	}()
	var in seen
	withoutDescriptors(t, func() {
		for range 10 {
			in = run()
		}
	})
	if in != (seen{FlowDissectorUnknown, SightUnknown, SightUnknown}) {
		t.Errorf("without descriptors: %+v", in)
	}
	var after seen
	for range 20 { // after a few attempts that failed, the next one comes soon
		after = run()
	}
	if after.verdict != FlowDissectorOK || after.cgroup == SightUnknown || HaveXDPMultiBuffer() == nil && after.frags != SightPart {
		t.Errorf("later: %+v", after)
	}
}

// TestReplacedResult has a program on the writable tracepoint bpf_test_finish replace
// the results of this process.
func TestReplacedResult(t *testing.T) {
	xdp, tc := load(t, "xdp", "xdp_ctx"), load(t, "tc", "tc_mark")
	for _, c := range []struct {
		result int32
		text   string
		is     error
	}{
		{42, ": 42: the program ran, and then a program on the writable tracepoint bpf_test_finish replaced the result of the call", nil},
		{1 << 30, ": 1073741824: the program ran", nil},
		{4095, ": 4095: the program ran", nil},
		{-4096, ": -4096: the program ran", nil},
		{-5000, ": -5000: the program ran", nil},
		{-1 << 31, ": -2147483648: the program ran", nil},
		{-22, ": the program ran, and then a program on the writable tracepoint bpf_test_finish replaced the result of the call: invalid argument", unix.EINVAL},
		{-28, ": the program ran, and then", unix.ENOSPC},
		{-14, ": the program ran, and then", unix.EFAULT},
		{-95, ": the program ran, and then", unix.EOPNOTSUPP},
	} {
		replaceResults(t, c.result, func() {
			for _, r := range []struct {
				prog *object
				name string
				run  func() error
			}{
				{xdp, "XDP", func() error { _, err := XDP{Packet: frame(64)}.Run(xdp.Program); return err }},
				{xdp, "XDP", func() error { _, err := XDP{Packet: frame(64), NoOutput: true, Repeat: 2}.Run(xdp.Program); return err }},
				{xdp, "Raw", func() error { _, err := Raw{DataIn: frame(64), DataOut: make([]byte, 64)}.Run(xdp.Program); return err }},
				{tc, "TC", func() error { _, err := TC{Packet: frame(64)}.Run(tc.Program); return err }},
			} {
				before := runs(t, r.prog)
				err := r.run()
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("%s: %v", r.name, err)
				}
				is := c.is
				if is == nil {
					is = err // it Is nothing else
				}
				wantError(t, err, "progrun: "+r.name+c.text, is, RanYes)
				if c.is == nil && e.Err != nil {
					t.Errorf("%d: %v has %v in it", c.result, err, e.Err)
				}
				if runs(t, r.prog) == before {
					t.Errorf("%s did not run", r.name)
				}
			}
		})
	}
}

// replaceResults calls f. Meanwhile every BPF_PROG_RUN of this process that finishes
// returns result.
func replaceResults(t *testing.T, result int32, f func()) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepointWritable, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
			asm.FnGetCurrentPidTgid.Call(),
			asm.RSh.Imm(asm.R0, 32),
			asm.JNE.Imm(asm.R0, int32(os.Getpid()), "exit"),
			asm.Mov.Imm(asm.R1, result),
			asm.StoreMem(asm.R6, 0, asm.R1, asm.Word),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "bpf_test_finish", Program: prog})
	if err != nil {
		skipOnThisKernel(t, "programs on the tracepoint bpf_test_finish", err)
	}
	defer l.Close()
	f()
}
