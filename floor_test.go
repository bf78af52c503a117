package progrun

import (
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestFloor holds that a run costs little more than its system call: medians
// of paired ratios, for single ones mean nothing on a busy machine. The bench
// module measures this finely.
func TestFloor(t *testing.T) {
	if emulated || raceEnabled {
		t.Skip("speed is asserted on the machine itself, without the race detector")
	}
	const most = 1.3
	packet, out := frame(64), make([]byte, 64, 32<<10)
	mark := skBuff{mark: 9}
	md := xdpMD{dataEnd: uint32(len(packet))}
	var markOut skBuff
	var mdOut xdpMD
	lookup := SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:80")}
	socket, found := lookup.context(), skLookup{}
	stop, keys := flowKeys{flags: uint32(FlowStopAtEncap)}, flowKeys{}
	var add addContext
	args := []uint64{1, 2}
	for _, c := range []struct {
		name, file, program string
		floor               attr
		run                 func(*ebpf.Program) error
	}{
		{"XDP without output", "xdp", "xdp_pass", newAttr(0, packet, nil, nil, nil, 0, 0), func(p *ebpf.Program) error {
			_, err := XDP{Packet: packet, NoOutput: true}.Run(p)
			return err
		}},
		{"XDP into Out", "xdp", "xdp_pass", newAttr(0, packet, out[:cap(out)], view(&md), view(&mdOut), 0, 0), func(p *ebpf.Program) error {
			_, err := XDP{Packet: packet, Out: out}.Run(p)
			return err
		}},
		{"TC without output", "tc", "tc_mark", newAttr(0, packet, nil, nil, nil, 0, 0), func(p *ebpf.Program) error {
			_, err := TC{Packet: packet, NoOutput: true}.Run(p)
			return err
		}},
		{"TC with context", "tc", "tc_mark", newAttr(0, packet, out[:cap(out)], view(&mark), view(&markOut), 0, 0), func(p *ebpf.Program) error {
			_, err := TC{Packet: packet, Context: SKB{Mark: 9}, Out: out}.Run(p)
			return err
		}},
		{"SocketFilter into Out", "socket_filter", "socket_filter", newAttr(0, packet, out[:cap(out)], nil, view(&markOut), 0, 0), func(p *ebpf.Program) error {
			_, err := SocketFilter{Packet: packet, Out: out}.Run(p)
			return err
		}},
		{"SkLookup", "sk_lookup", "sk_lookup", newAttr(0, nil, nil, view(&socket), view(&found), 0, 0), func(p *ebpf.Program) error {
			_, err := lookup.Run(p)
			return err
		}},
		{"FlowDissector", "flow_dissector", "flow_dissect", newAttr(0, packet, view(&keys), view(&stop), nil, 0, 0), func(p *ebpf.Program) error {
			_, err := FlowDissector{Packet: packet, Flags: FlowStopAtEncap}.Run(p)
			return err
		}},
		{"Syscall", "syscall", "syscall_add", newAttr(0, nil, nil, view(&add), nil, 0, 0), func(p *ebpf.Program) error {
			_, err := Syscall{Context: &add}.Run(p)
			return err
		}},
		{"RawTracepoint", "raw_tracepoint", "raw_tp", newAttr(0, nil, nil, unsafe.Slice((*byte)(unsafe.Pointer(&args[0])), 16), nil, 0, 0), func(p *ebpf.Program) error {
			_, err := RawTracepoint{Args: args}.Run(p)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.file == "xdp" {
				need(t, HaveXDPContext())
			}
			o := load(t, c.file, c.program)
			ratios := make([]float64, 0, 101)
			for range cap(ratios) {
				floor := timeFloor(t, &c.floor, o)
				begin := time.Now()
				for range 200 {
					if err := c.run(o.Program); err != nil {
						t.Fatal(err)
					}
				}
				ratios = append(ratios, float64(time.Since(begin))/float64(floor))
			}
			slices.Sort(ratios)
			median := ratios[len(ratios)/2]
			t.Logf("%.2f times the system call", median)
			if median > most {
				t.Errorf("a run takes %.2f times its system call, want at most %.2f", median, most)
			}
		})
	}
}

// timeFloor times the bare system call with an attr that is there already.
func timeFloor(t *testing.T, a *attr, o *object) time.Duration {
	sizeOut, ctxSizeOut := a.dataSizeOut, a.ctxSizeOut
	begin := time.Now()
	for range 200 {
		a.progFD, a.dataSizeOut, a.ctxSizeOut = uint32(o.FD()), sizeOut, ctxSizeOut
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	return time.Since(begin)
}
