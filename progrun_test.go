package progrun

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/progrun/progrun/internal/carrier"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] { // for tests that need another process
		case inheritedProgram:
			runInherited()
		case endlessRun:
			runEndless()
		case batchWithoutProc:
			runBatchWithoutProc()
		default:
			if process := liveProcesses[os.Args[1]]; process != nil {
				process()
				os.Exit(0)
			}
		}
	}
	errFirstThread = fromFirstThread()
	if err := rlimit.RemoveMemlock(); err != nil && privileged() {
		fmt.Fprintln(os.Stderr, "cannot raise the limit of locked memory, which old kernels count maps in:", err)
		os.Exit(1)
	}
	skipExamples()
	code := m.Run()
	for _, what := range slices.Sorted(slices.Values(unrunnable.list)) {
		fmt.Println("this kernel cannot run", what)
	}
	os.Exit(code)
}

// skipExamples leaves out the examples whose programs this process cannot load or this
// kernel cannot run, since an example cannot skip itself. All examples load programs.
func skipExamples() {
	flag.Parse()
	var names, lacking []string
	if !privileged() {
		names = append(names, "Example")
		fmt.Println("the examples load BPF programs: run the tests as root")
	}
	for name, typ := range map[string]ebpf.ProgramType{
		"SkLookup": ebpf.SkLookup, "Syscall": ebpf.Syscall, "RawTracepoint": ebpf.RawTracepoint,
		"FlowDissector": ebpf.FlowDissector, "Netfilter": ebpf.Netfilter, "StructOps": ebpf.StructOps,
	} {
		err := HaveProgramRun(typ)
		if privileged() && (lacks(err) || tooMuchFor32Bits(err)) {
			lacking = append(lacking, name)
		}
	}
	if privileged() && lacks(HaveXDPContext()) {
		lacking = append(lacking, "XDP_metadata")
	}
	if privileged() && lacks(HaveXDPLiveFrames()) {
		lacking = append(lacking, "Live", "Live_packets", "LiveStats_Add", "Exchange")
	} else if err := haveLiveCarrier(); privileged() && (lacks(err) || errors.Is(err, os.ErrPermission)) {
		lacking = append(lacking, "Live_packets", "LiveStats_Add", "Exchange")
	}
	for _, name := range lacking {
		names = append(names, "Example"+name+"$")
		fmt.Println("this kernel cannot run the example of", name)
	}
	if len(names) == 0 {
		return
	}
	skip := "^(" + strings.Join(names, "|") + ")"
	if own := flag.Lookup("test.skip").Value.String(); own != "" {
		skip = own + "|" + skip
	}
	if err := flag.Set("test.skip", skip); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// haveLiveCarrier returns an error if this kernel cannot put a carrier in front of a
// program.
func haveLiveCarrier() error {
	prog, err := nothing(ebpf.XDP)
	if err != nil {
		return err
	}
	defer prog.Close()
	c, err := carrier.NewLive(prog, carrier.LiveOptions{})
	if err != nil {
		return err
	}
	return c.Close()
}

// TestProgramTypes runs one program of every type. Its results are the support table
// of docs/kernels.md.
func TestProgramTypes(t *testing.T) {
	arp := frame(64)
	ipv4, ipv6 := udp4(somewhere, 53), udp6(53)
	verdict := func(v fmt.Stringer, err error) (string, error) { return v.String(), err }
	var tried programTypes
	for _, c := range []struct {
		name, file, program string
		typ                 ebpf.ProgramType
		run                 func(*ebpf.Program) (string, error)
		want                string
	}{
		{"SocketFilter", "socket_filter", "socket_filter", ebpf.SocketFilter, func(p *ebpf.Program) (string, error) {
			res, err := SocketFilter{Packet: arp}.Run(p)
			return verdict(res.Verdict, err)
		}, "drop"},
		{"SchedCLS", "tc", "tc_rewrite", ebpf.SchedCLS, func(p *ebpf.Program) (string, error) {
			res, err := TC{Packet: arp}.Run(p)
			return verdict(res.Verdict, err)
		}, "TC_ACT_PIPE"},
		{"SchedACT", "tc", "act_verdict", ebpf.SchedACT, func(p *ebpf.Program) (string, error) {
			res, err := TC{Packet: arp}.Run(p)
			return verdict(res.Verdict, err)
		}, "TC_ACT_OK"},
		{"XDP", "xdp", "xdp_filter", ebpf.XDP, func(p *ebpf.Program) (string, error) {
			res, err := XDP{Packet: udp4(somewhere, 9)}.Run(p)
			return verdict(res.Action, err)
		}, "XDP_DROP"},
		{"SkLookup", "sk_lookup", "sk_lookup", ebpf.SkLookup, func(p *ebpf.Program) (string, error) {
			res, err := SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:7778")}.Run(p)
			return verdict(res.Verdict, err)
		}, "SK_DROP"},
		{"CGroupSKB", "cgroup_skb", "cgroup_ingress", ebpf.CGroupSKB, func(p *ebpf.Program) (string, error) {
			res, err := CGroupSKB{Packet: arp}.Run(p)
			return verdict(res.Verdict, err)
		}, "drop"},
		{"LWTIn", "lwt", "lwt_in", ebpf.LWTIn, func(p *ebpf.Program) (string, error) {
			res, err := LWT{Packet: ipv6}.Run(p)
			return verdict(res.Verdict, err)
		}, "BPF_DROP"},
		{"LWTOut", "lwt", "lwt_out", ebpf.LWTOut, func(p *ebpf.Program) (string, error) {
			res, err := LWT{Packet: ipv4}.Run(p)
			return verdict(res.Verdict, err)
		}, "BPF_OK"},
		{"LWTXmit", "lwt", "lwt_xmit_head", ebpf.LWTXmit, func(p *ebpf.Program) (string, error) {
			res, err := LWT{Packet: ipv4}.Run(p)
			return verdict(res.Verdict, err)
		}, "BPF_REDIRECT"},
		{"LWTSeg6Local", "lwt", "lwt_seg6local", ebpf.LWTSeg6Local, func(p *ebpf.Program) (string, error) {
			res, err := LWT{Packet: ipv6}.Run(p)
			return verdict(res.Verdict, err)
		}, "BPF_OK"},
		{"FlowDissector", "flow_dissector", "flow_dissect", ebpf.FlowDissector, func(p *ebpf.Program) (string, error) {
			res, err := FlowDissector{Packet: ipv4}.Run(p)
			return verdict(res.Verdict, err)
		}, "BPF_OK"},
		{"StructOps", "struct_ops", "test_1", ebpf.StructOps, func(p *ebpf.Program) (string, error) {
			state := int32(5)
			res, err := StructOps{State: &state}.Run(p)
			return fmt.Sprint(res.Return, state), err
		}, "5 90"},
		{"RawTracepoint", "raw_tracepoint", "raw_tp", ebpf.RawTracepoint, func(p *ebpf.Program) (string, error) {
			res, err := RawTracepoint{Args: []uint64{40, 2}}.Run(p)
			return fmt.Sprint(res.Return), err
		}, "42"},
		{"Syscall", "syscall", "syscall_noctx", ebpf.Syscall, func(p *ebpf.Program) (string, error) {
			res, err := Syscall{}.Run(p)
			return fmt.Sprint(res.Return), err
		}, "42"},
		{"Netfilter", "netfilter", "netfilter_hook", ebpf.Netfilter, func(p *ebpf.Program) (string, error) {
			res, err := Netfilter{Packet: ipv4}.Run(p)
			return verdict(res.Verdict, err)
		}, "NF_ACCEPT"},
		{"Tracing/fentry", "tracing", "fentry_test", ebpf.Tracing, runTracing, "0 0"},
		{"Tracing/fexit", "tracing", "fexit_test", ebpf.Tracing, runTracing, "0 0"},
		{"Tracing/fmod_ret", "tracing", "fmod_ret_test", ebpf.Tracing, runTracing, "2 33"},
	} {
		tried |= 1 << c.typ
		t.Run(c.name, func(t *testing.T) {
			o := load(t, c.file, c.program)
			if c.typ == ebpf.Tracing {
				attachTracing(t, o.Program)
			}
			got, err := c.run(o.Program)
			if errors.Is(err, ebpf.ErrNotSupported) {
				wantError(t, err, "cannot run "+c.typ.String()+" programs", ebpf.ErrNotSupported, RanNo)
				if has := HaveProgramRun(c.typ); !errors.Is(has, ebpf.ErrNotSupported) {
					t.Errorf("the probe says %v", has)
				}
				skipOnThisKernel(t, c.name, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if err := HaveProgramRun(c.typ); err != nil {
				t.Errorf("ran, but the probe says %v", err)
			}
		})
	}
	for _, k := range programKinds {
		if k.types&^tried != 0 {
			t.Errorf("%s: not all of its program types have a case here", k.request)
		}
	}
}

func runTracing(p *ebpf.Program) (string, error) {
	res, err := Tracing{}.Run(p)
	return fmt.Sprint(res.SideEffects, res.Return), err
}

// every has a legal request of each type, for tests of all types.
var every = []struct {
	file, program string
	run           func(*ebpf.Program) error
}{
	{"xdp", "xdp_ctx", func(p *ebpf.Program) error { _, err := XDP{Packet: frame(64)}.Run(p); return err }},
	{"tc", "tc_mark", func(p *ebpf.Program) error { _, err := TC{Packet: frame(64)}.Run(p); return err }},
	{"socket_filter", "socket_filter", func(p *ebpf.Program) error { _, err := SocketFilter{Packet: frame(64)}.Run(p); return err }},
	{"cgroup_skb", "cgroup_ingress", func(p *ebpf.Program) error { _, err := CGroupSKB{Packet: frame(64)}.Run(p); return err }},
	{"lwt", "lwt_in", func(p *ebpf.Program) error { _, err := LWT{Packet: frame(64)}.Run(p); return err }},
	{"flow_dissector", "flow_dissect", func(p *ebpf.Program) error { _, err := FlowDissector{Packet: frame(64)}.Run(p); return err }},
	{"sk_lookup", "sk_lookup", func(p *ebpf.Program) error { _, err := SkLookup{Local: addrPort("192.0.2.1:1")}.Run(p); return err }},
	{"netfilter", "netfilter_hook", func(p *ebpf.Program) error { _, err := Netfilter{Packet: udp4(somewhere, 1)}.Run(p); return err }},
	{"raw_tracepoint", "raw_tp", func(p *ebpf.Program) error { _, err := RawTracepoint{Args: make([]uint64, 2)}.Run(p); return err }},
	{"syscall", "syscall_noctx", func(p *ebpf.Program) error { _, err := Syscall{}.Run(p); return err }},
	{"struct_ops", "test_1", func(p *ebpf.Program) error { _, err := StructOps{}.Run(p); return err }},
	{"tracing", "fentry_test", func(p *ebpf.Program) error { _, err := Tracing{}.Run(p); return err }},
}

func TestNilProgram(t *testing.T) {
	for _, r := range every {
		wantError(t, r.run(nil), "the program is nil: invalid argument", unix.EINVAL, RanNo)
		wantError(t, r.run(new(ebpf.Program)), "the program was never loaded: invalid argument", unix.EINVAL, RanNo)
	}
	_, err := Raw{}.Run(nil)
	wantError(t, err, "Raw: the program is nil", unix.EINVAL, RanNo)
}

func TestClosedProgram(t *testing.T) {
	for _, r := range every {
		t.Run(r.file, func(t *testing.T) {
			o := load(t, r.file, r.program)
			o.close()
			wantError(t, r.run(o.Program), "the program is closed: bad file descriptor", unix.EBADF, RanNo)
		})
	}
}

func TestWrongType(t *testing.T) {
	xdp, tc := load(t, "xdp", "xdp_ctx"), load(t, "tc", "tc_mark")
	for _, r := range every {
		o := xdp
		if r.file == "xdp" {
			o = tc
		}
		wantError(t, r.run(o.Program), " programs, not "+o.Type().String()+", which progrun.", unix.EINVAL, RanNo)
		if n := runs(t, o); n != 0 {
			t.Errorf("%s: ran %d times", r.file, n)
		}
	}
	_, err := TC{Packet: frame(64)}.Run(xdp.Program)
	wantError(t, err, "progrun: TC: runs SchedCLS, SchedACT programs, not XDP, which progrun.XDP runs: invalid argument", unix.EINVAL, RanNo)
}

func TestConcurrentRuns(t *testing.T) {
	xdp, tc := load(t, "xdp", "xdp_count"), load(t, "tc", "tc_mark")
	const workers, each = 16, 200
	set(t, xdp, "verdict", 0, uint32(XDPPass))
	var wg sync.WaitGroup
	for i := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			packet := frame(64 + i)
			for n := range each {
				res, err := XDP{Packet: packet}.Run(xdp.Program)
				if err != nil || res.Action != XDPPass || len(res.Packet) != len(packet) || res.Packet[20] != 20 {
					t.Errorf("XDP: %+v, %v", res, err)
					return
				}
				ctx := SKB{Mark: 7, CB: [5]uint32{uint32(n)}}
				tcRes, err := TC{Packet: packet, Context: ctx}.Run(tc.Program)
				if err != nil || tcRes.Verdict != TCActShot || tcRes.Context.CB[0] != uint32(n)+1 || len(tcRes.Packet) != len(packet) {
					t.Errorf("TC: %+v, %v", tcRes, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if n := sum(t, xdp, "frames", 0); n != workers*each {
		t.Errorf("XDP ran %d times, want %d", n, workers*each)
	}
	if n := runs(t, tc); n != workers*each {
		t.Errorf("TC ran %d times, want %d", n, workers*each)
	}
}

// TestStackGrowth runs requests at many depths of a growing stack, with all buffers on
// it. A pointer that the runtime does not adjust would show.
func TestStackGrowth(t *testing.T) {
	xdp, tc := load(t, "xdp", "xdp_pass"), load(t, "tc", "tc_mark")
	for range 50 {
		done := make(chan error)
		go func() { done <- runDeep(xdp.Program, tc.Program, 200) }()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// runDeep calls itself, with a frame large enough to make the stack grow often.
func runDeep(xdp, tc *ebpf.Program, depth int) error {
	var packet, out [256]byte
	for i := range packet {
		packet[i] = byte(depth + i)
	}
	packet[12], packet[13] = 0x88, 0xb5
	res, err := XDP{Packet: packet[:], Out: out[:0]}.Run(xdp)
	if err != nil {
		return err
	}
	if string(res.Packet) != string(packet[:]) || &res.Packet[0] != &out[0] {
		return fmt.Errorf("depth %d: the packet came out as %x", depth, res.Packet)
	}
	tcRes, err := TC{Packet: packet[:], Context: SKB{Mark: 7, Priority: uint32(depth)}}.Run(tc)
	if err != nil {
		return err
	}
	if tcRes.Context.Mark != 8 || tcRes.Context.Priority != 99 {
		return fmt.Errorf("depth %d: the context came out as %+v", depth, tcRes.Context)
	}
	if depth == 0 {
		return nil
	}
	return runDeep(xdp, tc, depth-1)
}

// TestGarbageCollection runs requests with fresh buffers during garbage collections.
func TestGarbageCollection(t *testing.T) {
	xdp, sysc := load(t, "xdp", "xdp_pass"), load(t, "tc", "tc_mark")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	defer wg.Wait()
	defer close(stop)
	for i := range 300 {
		packet := frame(64 + i)
		res, err := XDP{Packet: packet, Metadata: nil, Out: make([]byte, 0, i)}.Run(xdp.Program)
		if err != nil || string(res.Packet) != string(packet) {
			t.Fatalf("run %d: %x, %v", i, res.Packet, err)
		}
		tcRes, err := TC{Packet: packet, Context: SKB{Mark: 7, TStampNS: uint64(i)}}.Run(sysc.Program)
		if err != nil || tcRes.Context.TStampNS != uint64(i)+1000 || string(tcRes.Packet) != string(packet) {
			t.Fatalf("run %d: %+v, %v", i, tcRes, err)
		}
	}
}

// TestDroppedProgram runs a program to which only the request has a reference.
func TestDroppedProgram(t *testing.T) {
	needPrivilege(t)
	for i := range 50 {
		o, err := loadObject("xdp", "xdp_pass")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range o.maps {
			m.Close()
		}
		go runtime.GC()
		if _, err := (XDP{Packet: frame(64), Repeat: 1}).Run(o.Program); err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
	}
}

// TestAllocations checks that a run in steady state allocates nothing.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and empties pools on purpose")
	}
	packet, out := frame(64), make([]byte, 0, 64)
	local := addrPort("192.0.2.1:80")
	args := []uint64{1, 2}
	var add addContext
	for _, c := range []struct {
		name, file, program string
		want                int
		run                 func(*ebpf.Program) error
	}{
		{"XDP without output", "xdp", "xdp_pass", 0, func(p *ebpf.Program) error {
			_, err := XDP{Packet: packet, NoOutput: true}.Run(p)
			return err
		}},
		{"XDP into Out", "xdp", "xdp_pass", 0, func(p *ebpf.Program) error {
			_, err := XDP{Packet: packet, Out: out}.Run(p)
			return err
		}},
		{"XDP without Out", "xdp", "xdp_pass", 1, func(p *ebpf.Program) error {
			_, err := XDP{Packet: packet}.Run(p)
			return err
		}},
		{"TC with context", "tc", "tc_mark", 0, func(p *ebpf.Program) error {
			_, err := TC{Packet: packet, Context: SKB{Mark: 7}, Out: out}.Run(p)
			return err
		}},
		{"SocketFilter", "socket_filter", "socket_filter", 0, func(p *ebpf.Program) error {
			_, err := SocketFilter{Packet: packet, Out: out}.Run(p)
			return err
		}},
		{"SkLookup", "sk_lookup", "sk_lookup", 0, func(p *ebpf.Program) error {
			_, err := SkLookup{Protocol: unix.IPPROTO_TCP, Local: local}.Run(p)
			return err
		}},
		{"FlowDissector", "flow_dissector", "flow_dissect", 0, func(p *ebpf.Program) error {
			_, err := FlowDissector{Packet: packet, Flags: FlowStopAtEncap}.Run(p)
			return err
		}},
		{"Syscall", "syscall", "syscall_add", 0, func(p *ebpf.Program) error {
			add.A = 1
			_, err := Syscall{Context: &add}.Run(p)
			return err
		}},
		{"RawTracepoint", "raw_tracepoint", "raw_tp", 0, func(p *ebpf.Program) error {
			_, err := RawTracepoint{Args: args, CPU: OnCPU(0)}.Run(p)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, c.file, c.program)
			const runs = 1000
			run := func(n int) {
				for range n {
					if err := c.run(o.Program); err != nil {
						t.Fatal(err)
					}
				}
			}
			run(10) // fills the pools
			n := mallocs(func() { run(runs) })
			// Other goroutines may allocate, and a collection empties the pools.
			if n < c.want*runs || n > c.want*runs+runs/50 {
				t.Errorf("%d allocations in %d runs, want %d a run", n, runs, c.want)
			}
		})
	}
}

// inheritedProgram is the argument with which the test binary runs an inherited program
// in place of its tests.
const inheritedProgram = "run-inherited-program"

// TestUnprivileged passes a loaded program to a process without any capability.
func TestUnprivileged(t *testing.T) {
	o := load(t, "xdp", "xdp_filter")
	if got := inherit(t, o, inheritedProgram); got != "XDP_TX 53 bytes, loading: operation not permitted\n" {
		if strings.Contains(got, "open the program: ") && strings.Contains(got, "not permitted") {
			skipOnThisKernel(t, "programs without a capability", errors.New(strings.TrimSpace(got)))
		}
		t.Errorf("got %q", got)
	}
	if n := sum(t, o, "verdicts", uint32(XDPTX)); n != 1 {
		t.Errorf("the program says it ran %d times", n)
	}
}

// withoutPrivilege drops all privileges of this process, and opens the program that it
// inherited.
func withoutPrivilege() *ebpf.Program {
	err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
	if err != nil {
		fmt.Println("cannot give up privilege:", err)
		os.Exit(1)
	}
	prog, err := ebpf.NewProgramFromFD(3)
	if err != nil {
		fmt.Println("open the program:", err)
		os.Exit(0)
	}
	return prog
}

// runInherited is the main function of the process of TestUnprivileged.
func runInherited() {
	prog := withoutPrivilege()
	res, err := XDP{Packet: udp4(somewhere, 7, []byte("hello world")...)}.Run(prog)
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	_, err = nothing(ebpf.SocketFilter)
	fmt.Printf("%s %s, loading: %v\n", res.Action, size(len(res.Packet)), unwrapped(err))
	os.Exit(0)
}
