package progrun

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// floorCase is a request, and the system call that it makes.
type floorCase struct {
	name, file, program string
	floor               attr // without the program's descriptor
	run                 func(*ebpf.Program) error
}

// floorCases returns a case for each type, and one of TC with a Repeat.
func floorCases() []floorCase {
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
	return []floorCase{
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
		{"TC, Repeat 10", "tc", "tc_mark", newAttr(0, packet, nil, nil, nil, 10, 0), func(p *ebpf.Program) error {
			_, err := TC{Packet: packet, Repeat: 10, NoOutput: true}.Run(p)
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
		{"Raw", "tc", "tc_mark", newAttr(0, packet, nil, nil, nil, 0, 0), func(p *ebpf.Program) error {
			_, err := Raw{DataIn: packet}.Run(p)
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
	}
}

// load loads the program of a case, and sets the descriptor of the floor.
func (c *floorCase) load(t testing.TB) *object {
	if c.file == "xdp" {
		need(t, HaveXDPContext())
	}
	o := load(t, c.file, c.program)
	c.floor.progFD = uint32(o.FD())
	return o
}

// runFloor makes the bare system call n times, with an attr that is there already, and
// those around it that block signals where a run needs them.
func (c *floorCase) runFloor(t testing.TB, n int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := &c.floor
	sizeOut, ctxSizeOut := a.dataSizeOut, a.ctxSizeOut
	var before unix.Sigset_t
	for range n {
		a.dataSizeOut, a.ctxSizeOut = sizeOut, ctxSizeOut
		if a.interruptible() {
			setSignals(allSignals(), &before)
		}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
		if a.interruptible() {
			setSignals(&before, nil)
		}
		if errno != 0 {
			t.Fatal(errno)
		}
	}
}

// runMany makes n runs of a case.
func (c *floorCase) runMany(t testing.TB, prog *ebpf.Program, n int) {
	for range n {
		if err := c.run(prog); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFloor checks that a run takes little longer than its system call. It compares
// medians of paired ratios, since single ratios mean nothing on a busy machine. The
// bench module measures this precisely.
func TestFloor(t *testing.T) {
	if emulated || raceEnabled {
		t.Skip("speed is asserted on the machine itself, without the race detector")
	}
	for _, c := range floorCases() {
		t.Run(c.name, func(t *testing.T) {
			o := c.load(t)
			const most = 1.2
			atBest(t, fmt.Sprintf("a run takes at most %.2f times its system calls", most), func() bool {
				ratios := make([]float64, 0, 51)
				for range cap(ratios) {
					begin := time.Now()
					c.runFloor(t, 200)
					floor := time.Since(begin)
					begin = time.Now()
					c.runMany(t, o.Program, 200)
					ratios = append(ratios, float64(time.Since(begin))/float64(floor))
				}
				slices.Sort(ratios)
				median := ratios[len(ratios)/2]
				t.Logf("%.2f times the system call", median)
				return median <= most
			})
		})
	}
}
