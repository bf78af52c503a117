package progrun

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// anyCase has a program, and a function that runs it by the request for its type.
type anyCase struct {
	file, program string
	run           func(packet []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error)
}

func anyCases() []anyCase {
	xdp := func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
		res, err := XDP{Packet: p}.Run(prog)
		return res.Action, AnyResult{Packet: res.Packet, Metadata: res.Metadata, Sight: res.Sight}, err
	}
	tc := func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
		res, err := TC{Packet: p}.Run(prog)
		return res.Verdict, AnyResult{Packet: res.Packet, Context: res.Context}, err
	}
	return []anyCase{
		{"xdp", "xdp_filter", xdp},
		{"xdp", "xdp_meta", xdp},
		{"tc", "tc_mark", tc},
		{"tc", "act_verdict", tc},
		{"socket_filter", "socket_filter", func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
			res, err := SocketFilter{Packet: p}.Run(prog)
			return res.Verdict, AnyResult{Packet: res.Packet, Context: res.Context}, err
		}},
		{"cgroup_skb", "cgroup_ingress", func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
			res, err := CGroupSKB{Packet: p}.Run(prog)
			return res.Verdict, AnyResult{Packet: res.Packet, Context: res.Context, Sight: res.Sight}, err
		}},
		{"lwt", "lwt_in", func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
			res, err := LWT{Packet: p}.Run(prog)
			return res.Verdict, AnyResult{Packet: res.Packet, Context: res.Context}, err
		}},
		{"flow_dissector", "flow_dissect", func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
			res, err := FlowDissector{Packet: p}.Run(prog)
			return res.Verdict, AnyResult{Keys: res.Keys}, err
		}},
		{"netfilter", "netfilter_hook", func(p []byte, prog *ebpf.Program) (fmt.Stringer, AnyResult, error) {
			res, err := Netfilter{Packet: p}.Run(prog)
			return res.Verdict, AnyResult{}, err
		}},
	}
}

// sameResult reports whether two results are equal, apart from verdicts and times.
func sameResult(a, b AnyResult) bool {
	return bytes.Equal(a.Packet, b.Packet) && bytes.Equal(a.Metadata, b.Metadata) &&
		a.Context == b.Context && a.Keys == b.Keys && a.Sight == b.Sight
}

// TestAny compares Any with the request for the program's type. It also checks that Any
// allocates nothing, and works with Batch and Measure.
func TestAny(t *testing.T) {
	packets := traffic(t)
	for _, c := range anyCases() {
		t.Run(c.program, func(t *testing.T) {
			o := load(t, c.file, c.program)
			for res, err := range Batch(o.Program, Packets(Any{}, seqOf(packets)), &BatchOptions{KeepGoing: true}) {
				verdict, want, err2 := c.run(packets[res.Input-1], o.Program)
				if (err == nil) != (err2 == nil) {
					t.Fatalf("input %d: %v, alone %v", res.Input, err, err2)
				}
				if err == nil && (res.Result.Verdict.String() != verdict.String() || !sameResult(res.Result, want)) {
					t.Errorf("input %d: %+v, want %s, %+v", res.Input, res.Result, verdict, want)
				}
			}
			req := Any{Packet: udp4(somewhere, 53), Out: make([]byte, 0, 32<<10)}
			if n := testing.AllocsPerRun(100, func() { _, _ = req.Run(o.Program) }); n != 0 && !raceEnabled {
				t.Errorf("%v allocations", n)
			}
			got, err := Measure(o.Program, req, time.Millisecond)
			if err != nil || got.PerFreshRun <= 0 {
				t.Errorf("measured %+v, %v", got, err)
			}
			if res, err := (Any{Packet: req.Packet, NoOutput: true, Repeat: 2}).Run(o.Program); err != nil || res.Packet != nil {
				t.Errorf("without output: %+v, %v", res, err)
			}
		})
	}
}

// TestAnyCarried checks that carried results have all that a result of XDP has.
func TestAnyCarried(t *testing.T) {
	need(t, HaveXDPContext())
	o := load(t, "xdp", "xdp_meta")
	packet := udp4(somewhere, 53)
	want, err := Any{Packet: packet}.Run(o.Program)
	if err != nil || len(want.Metadata) == 0 {
		t.Fatalf("%+v, %v", want, err)
	}
	var stats BatchStats
	requests := withPause(1, Packets(Any{}, repeated(packet, carryFrom(1)+10_000)))
	for res, err := range Batch(o.Program, requests, &BatchOptions{Ahead: 512, Stats: &stats}) {
		if err != nil || res.Result.Verdict != want.Verdict || !sameResult(res.Result, want) {
			t.Fatalf("input %d: %+v, %v, want %+v", res.Input, res.Result, err, want)
		}
	}
	needCarrier(t, stats)
	if stats.Carried == 0 {
		t.Errorf("%+v", stats)
	}
}

// TestAnyTiming checks that a change beside the packet counts as one.
func TestAnyTiming(t *testing.T) {
	need(t, HaveXDPContext())
	mark, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 7),
		asm.StoreMem(asm.R1, 8, asm.R0, asm.Word), // __sk_buff.mark
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer mark.Close()
	for _, c := range []struct {
		prog *ebpf.Program
		want bool
	}{
		{mark, true}, {load(t, "tc", "tc_mark").Program, false},
		{load(t, "xdp", "xdp_meta").Program, true}, {load(t, "xdp", "xdp_pass").Program, false},
	} {
		req := Any{Packet: udp4(somewhere, 53)}
		res, err := req.Run(c.prog)
		if _, changed := req.timing(res); err != nil || changed != c.want {
			t.Errorf("%s: changed %v, %v", c.prog, changed, err)
		}
	}
}

func seqOf(packets [][]byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for _, p := range packets {
			if !yield(p) {
				return
			}
		}
	}
}

// TestAnyVerdict checks that verdicts print by their names, and marshal with the type
// of their program, since several types have verdicts of the same name.
func TestAnyVerdict(t *testing.T) {
	for _, c := range []struct {
		v    AnyVerdict
		want string
	}{
		{AnyVerdict{ebpf.XDP, int64(XDPDrop)}, "XDP_DROP"},
		{AnyVerdict{ebpf.SchedCLS, int64(TCActUnspec)}, "TC_ACT_UNSPEC"},
		{AnyVerdict{ebpf.SchedACT, int64(TCActShot)}, "TC_ACT_SHOT"},
		{AnyVerdict{ebpf.SocketFilter, int64(SocketFilterKeep)}, "keep"},
		{AnyVerdict{ebpf.CGroupSKB, int64(CGroupSKBAllowCN)}, "allow+cn"},
		{AnyVerdict{ebpf.LWTXmit, int64(LWTReroute)}, "BPF_LWT_REROUTE"},
		{AnyVerdict{ebpf.FlowDissector, int64(FlowDissectorNotOK)}, "not BPF_OK"},
		{AnyVerdict{ebpf.Netfilter, int64(NFAccept)}, "NF_ACCEPT"},
		{AnyVerdict{ebpf.Kprobe, 1}, "AnyVerdict(Kprobe, 1)"},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		b, err := json.Marshal(map[string]any{"verdict": c.v})
		if err != nil || string(b) != `{"verdict":"`+c.v.Type.String()+" "+c.want+`"}` {
			t.Errorf("got %s, %v", b, err)
		}
		var back map[string]AnyVerdict
		if err := json.Unmarshal(b, &back); c.v.Type == ebpf.Kprobe {
			if err == nil {
				t.Errorf("%s was taken for %v", b, back)
			}
		} else if err != nil || back["verdict"] != c.v {
			t.Errorf("%s came back as %+v, %v", b, back, err)
		}
	}
	for _, bad := range []string{"", "XDP", "XDP ", "XDP_DROP", "XDP TC_ACT_OK", "XDP XDP_DROP ", "SkLookup SK_PASS"} {
		var v AnyVerdict
		if err := v.UnmarshalText([]byte(bad)); err == nil || v != (AnyVerdict{}) {
			t.Errorf("%q was taken for %+v", bad, v)
		}
	}
}

// TestAnyRefuses checks that errors name the types that take packets, or come from the
// request for the type.
func TestAnyRefuses(t *testing.T) {
	for _, c := range []struct {
		file, program, text string
		packet              []byte
	}{
		{"sk_lookup", "sk_lookup", "progrun: Any: runs SocketFilter, SchedCLS, SchedACT, XDP, CGroupSKB, LWTIn, LWTOut, LWTXmit, LWTSeg6Local, FlowDissector, Netfilter programs, not SkLookup, which progrun.SkLookup runs", frame(64)},
		{"xdp", "xdp_pass", "progrun: XDP.Packet: 13 bytes: a packet begins with a 14-byte Ethernet header", frame(13)},
	} {
		o := load(t, c.file, c.program)
		_, err := Any{Packet: c.packet}.Run(o.Program)
		wantError(t, err, c.text, unix.EINVAL, RanNo)
	}
	_, err := Any{Packet: frame(64)}.Run(nil)
	wantError(t, err, "progrun: Any: the program is nil", unix.EINVAL, RanNo)
}
