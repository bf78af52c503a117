package progrun

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// FlowDissectorFlags tells a flow dissector how far to go: BPF_FLOW_DISSECTOR_F_*
// of linux/bpf.h. The kernel passes on any bits.
type FlowDissectorFlags uint32

const (
	FlowParse1stFrag    FlowDissectorFlags = 1 << 0 // dissect the first fragment of a packet too
	FlowStopAtFlowLabel FlowDissectorFlags = 1 << 1 // stop at an IPv6 flow label
	FlowStopAtEncap     FlowDissectorFlags = 1 << 2 // stop at an encapsulated packet
	knownFlowFlags                         = FlowParse1stFrag | FlowStopAtFlowLabel | FlowStopAtEncap
)

// flowFlagNames has the names of the flags, by bit.
var flowFlagNames = []string{"PARSE_1ST_FRAG", "STOP_AT_FLOW_LABEL", "STOP_AT_ENCAP"}

// String returns the names in linux/bpf.h without their prefix, joined by "|",
// such as "PARSE_1ST_FRAG|STOP_AT_ENCAP". Bits without a name follow in one
// hexadecimal number, as in "STOP_AT_ENCAP|0x80000000". If no bit is set, String
// returns "0x0".
func (f FlowDissectorFlags) String() string {
	var names []string
	for i, n := range flowFlagNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	if rest := f &^ knownFlowFlags; rest != 0 || f == 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, "|")
}

// MarshalText returns what String does.
func (f FlowDissectorFlags) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText parses what String returns.
func (f *FlowDissectorFlags) UnmarshalText(text []byte) error {
	var flags FlowDissectorFlags
	for _, n := range strings.Split(string(text), "|") {
		if i := slices.Index(flowFlagNames, n); i >= 0 {
			flags |= 1 << i
		} else if rest, err := strconv.ParseUint(n, 0, 32); err == nil {
			flags |= FlowDissectorFlags(rest)
		}
	}
	return parse(f, text, "FlowDissectorFlags", flags)
}

// FlowDissector runs a flow dissector on a packet. Since Linux 5.1; Flags
// since 5.4. See bpf_prog_test_run_flow_dissector in the kernel's
// net/bpf/test_run.c.
type FlowDissector struct {
	// Packet is the frame, from its Ethernet header on. It has at least 14 bytes,
	// and at most a page (EINVAL).
	Packet []byte
	// Flags is passed to the program in its keys.
	Flags FlowDissectorFlags
	// Repeat is how often the program runs. 0 means once.
	Repeat int
}

// FlowDissectorResult is the result of a run of [FlowDissector].
type FlowDissectorResult struct {
	// Verdict is what the program returned.
	Verdict FlowDissectorVerdict
	// Keys is what the program filled in. If NHOff or THOff pointed outside of the
	// packet, the kernel has moved them into it.
	Keys FlowKeys
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

var flowDissectorNames = fieldNames{"data_size_in": "Packet", "ctx_size_in": "Flags"}

// Run runs prog, of type [ebpf.FlowDissector].
func (r FlowDissector) Run(prog *ebpf.Program) (res FlowDissectorResult, err error) {
	fd, err := flowDissectorTypes.descriptor("FlowDissector", prog)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return res, err
	}

	var keys flowKeys
	var ctxIn []byte
	if r.Flags != 0 {
		in := flowKeys{flags: uint32(r.Flags)}
		ctxIn = view(&in)
	}
	a := r.attr(fd, view(&keys), ctxIn)
	guard := a.guard()
	errno := progRun(&a, attrSize)
	guard.release()
	runtime.KeepAlive(prog)
	if errno != 0 {
		c := newCall("FlowDissector", flowDissectorNames, prog, &a)
		copy(c.ctx[:], ctxIn)
		return res, explain(errno, c)
	}
	res.Verdict, res.PerRun = flowVerdict(a.retval), a.perRun()
	keys.decode(&res.Keys)
	return res, nil
}

func (r FlowDissector) room() int { return 0 }

func (FlowDissector) outIn(*FlowDissector) *[]byte { return nil }

func (r FlowDissector) keep(memory *[]byte) FlowDissector {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (FlowDissector) packetIn(r *FlowDissector) *[]byte { return &r.Packet }

func (r FlowDissector) repeated(n int, _ bool) FlowDissector {
	r.Repeat = n
	return r
}

// timing reports no change: a flow dissector cannot edit the packet, and gets new
// keys for every run.
func (r FlowDissector) timing(res FlowDissectorResult) (time.Duration, bool) {
	return res.PerRun, false
}

// attr asks for the keys as output data, since the output context merely echoes the
// input.
func (r *FlowDissector) attr(fd uint32, keys, ctxIn []byte) attr {
	return newAttr(fd, r.Packet, keys, ctxIn, nil, uint32(r.Repeat), 0)
}

func (r *FlowDissector) check() error {
	if err := atLeastEthernet("FlowDissector", len(r.Packet)); err != nil {
		return err
	}
	if len(r.Packet) > maxPacket {
		return refuse("FlowDissector", "Packet", size(len(r.Packet)), "at most one page", syscall.EINVAL)
	}
	return inRange("FlowDissector", "Repeat", r.Repeat, math.MaxUint32)
}

// flowVerdict decodes a return value. Kernels before 6.1 return 1 for BPF_OK and 0
// for anything else, so only 0 and 1 are in doubt.
func flowVerdict(retval uint32) FlowDissectorVerdict {
	if retval > 1 {
		return FlowDissectorVerdict(retval)
	}
	switch known := flowVerdicts.cached(); {
	case known == yes:
		return FlowDissectorVerdict(retval)
	case known == unknown:
		return FlowDissectorUnknown
	case retval == 1:
		return FlowDissectorOK
	}
	return FlowDissectorNotOK
}

// FlowKeys is what a flow dissector found: struct bpf_flow_keys. Numbers are in
// the byte order of the machine.
type FlowKeys struct {
	// NHOff and THOff are where the network and the transport header begin, in
	// bytes from the start of the Ethernet header.
	NHOff, THOff int
	// AddrProto is the protocol of Src and Dst: ETH_P_IP, ETH_P_IPV6, or 0 if the
	// program set no addresses.
	AddrProto uint16
	// IsFrag reports whether the packet is an IP fragment.
	IsFrag bool
	// IsFirstFrag reports whether the packet is the first fragment.
	IsFirstFrag bool
	// IsEncap reports whether the packet has an inner IP header.
	IsEncap bool
	// IPProto is the protocol after the IP header: IPPROTO_*.
	IPProto uint8
	// NProto is the EtherType.
	NProto uint16
	// Src and Dst are the addresses. They are invalid unless AddrProto is ETH_P_IP
	// or ETH_P_IPV6.
	Src, Dst netip.Addr
	// SPort and DPort are the source and the destination port.
	SPort, DPort uint16
	// Flags has the flags of the request, as the program left them.
	Flags FlowDissectorFlags
	// FlowLabel is the IPv6 flow label, of 20 bits.
	FlowLabel uint32
}

// decode stores the keys through a pointer, because they are large.
func (k *flowKeys) decode(keys *FlowKeys) {
	*keys = FlowKeys{
		NHOff: int(k.nhoff), THOff: int(k.thoff), AddrProto: k.addrProto,
		IsFrag: k.isFrag != 0, IsFirstFrag: k.isFirstFrag != 0, IsEncap: k.isEncap != 0,
		IPProto: k.ipProto,
		NProto:  binary.BigEndian.Uint16(k.nProto[:]),
		SPort:   binary.BigEndian.Uint16(k.sport[:]), DPort: binary.BigEndian.Uint16(k.dport[:]),
		Flags:     FlowDissectorFlags(k.flags),
		FlowLabel: binary.BigEndian.Uint32(k.flowLabel[:]),
	}
	switch k.addrProto {
	case ethPIP:
		keys.Src, keys.Dst = netip.AddrFrom4([4]byte(k.addrs[:4])), netip.AddrFrom4([4]byte(k.addrs[4:]))
	case ethPIPv6:
		keys.Src, keys.Dst = netip.AddrFrom16([16]byte(k.addrs[:16])), netip.AddrFrom16([16]byte(k.addrs[16:]))
	}
}
