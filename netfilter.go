package progrun

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// NFHook is a hook of netfilter: enum nf_inet_hooks of linux/netfilter.h.
type NFHook uint8

const (
	NFPreRouting  NFHook = 0
	NFLocalIn     NFHook = 1
	NFForward     NFHook = 2
	NFLocalOut    NFHook = 3
	NFPostRouting NFHook = 4
)

// String returns the name in linux/netfilter.h, such as "NF_INET_LOCAL_OUT".
func (h NFHook) String() string {
	return name(int64(h), "NFHook", "NF_INET_PRE_ROUTING", "NF_INET_LOCAL_IN", "NF_INET_FORWARD",
		"NF_INET_LOCAL_OUT", "NF_INET_POST_ROUTING")
}

// MarshalText returns what String does.
func (h NFHook) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText parses what String returns.
func (h *NFHook) UnmarshalText(text []byte) error {
	return parse(h, text, "NFHook", NFPreRouting, NFLocalIn, NFForward, NFLocalOut, NFPostRouting)
}

// NFFamily is a protocol family of netfilter: NFPROTO_* of linux/netfilter.h.
type NFFamily uint8

const (
	NFIPv4 NFFamily = 2
	NFIPv6 NFFamily = 10
)

// String returns the name in linux/netfilter.h, such as "NFPROTO_IPV4".
func (f NFFamily) String() string {
	switch f {
	case NFIPv4:
		return "NFPROTO_IPV4"
	case NFIPv6:
		return "NFPROTO_IPV6"
	}
	return name(int64(f), "NFFamily")
}

// MarshalText returns what String does.
func (f NFFamily) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText parses what String returns.
func (f *NFFamily) UnmarshalText(text []byte) error {
	return parse(f, text, "NFFamily", NFIPv4, NFIPv6)
}

// Netfilter runs a netfilter program on a packet. Since Linux 6.4. See
// bpf_prog_test_run_nf in the kernel's net/bpf/test_run.c.
//
// The program sees no input interface, and loopback as the output interface,
// whatever the hook: state->in is NULL and state->out is lo.
type Netfilter struct {
	// Packet is the packet. It begins with its Ethernet header and has at least 34
	// bytes for IPv4, and 54 for IPv6. On the hook NFLocalOut it begins with its IP
	// header instead and has at least 20 bytes. It has at most 3,712 bytes with
	// pages of 4 KiB, 16,000 with pages of 16 KiB (EINVAL). The kernel refuses all
	// but IPv4 and IPv6 (EPROTO).
	Packet []byte
	// Hook is the hook on which the program runs. The zero value is NFPreRouting.
	// The kernel's own default, for a call without a context, is NF_INET_LOCAL_OUT.
	// Packets from code that makes such calls begin with their IP header, and need
	// Hook: NFLocalOut here.
	Hook NFHook
	// Family is the protocol family of the hook. 0 means that of the packet. The
	// kernel refuses any other (EINVAL), except on NFLocalOut.
	Family NFFamily
	// Repeat is how often the program runs. 0 means once.
	Repeat int
}

// NetfilterResult is the result of a run of [Netfilter]. The kernel does not return
// the packet.
type NetfilterResult struct {
	// Verdict is what the program returned.
	Verdict NFVerdict
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

var netfilterNames = fieldNames{"data_size_in": "Packet", "ctx_size_in": "Hook", "ctx.pf": "Family"}

// Run runs prog, of type [ebpf.Netfilter].
func (r Netfilter) Run(prog *ebpf.Program) (NetfilterResult, error) {
	fd, err := netfilterTypes.descriptor("Netfilter", prog)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return NetfilterResult{}, err
	}

	in := nfHookState{hook: uint8(r.Hook), pf: uint8(r.family())}
	a := r.attr(fd, view(&in))
	guard := a.guard()
	errno := progRun(&a, attrSize)
	guard.release()
	runtime.KeepAlive(prog)
	if errno != 0 {
		c := newCall("Netfilter", netfilterNames, prog, &a)
		copy(c.ctx[:], view(&in))
		copy(c.head[:], r.Packet)
		return NetfilterResult{}, explain(errno, c)
	}
	return NetfilterResult{Verdict: NFVerdict(a.retval), PerRun: a.perRun()}, nil
}

func (r Netfilter) room() int { return 0 }

func (Netfilter) outIn(*Netfilter) *[]byte { return nil }

func (r Netfilter) keep(memory *[]byte) Netfilter {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (Netfilter) packetIn(r *Netfilter) *[]byte { return &r.Packet }

func (r Netfilter) repeated(n int, _ bool) Netfilter {
	r.Repeat = n
	return r
}

// timing reports no change: the kernel does not say whether a netfilter program
// edited the packet.
func (r Netfilter) timing(res NetfilterResult) (time.Duration, bool) { return res.PerRun, false }

func (r *Netfilter) attr(fd uint32, ctxIn []byte) attr {
	return newAttr(fd, r.Packet, nil, ctxIn, nil, uint32(r.Repeat), 0)
}

// check rejects hooks that do not exist, although the kernel would run the program,
// and sizes that no kernel takes.
func (r *Netfilter) check() error {
	if r.Hook > NFPostRouting {
		return refuse("Netfilter", "Hook", fmt.Sprint(uint8(r.Hook)), "it must be one of the hooks 0 to 4", syscall.EINVAL)
	}
	if len(r.Packet) < 20 {
		return refuse("Netfilter", "Packet", size(len(r.Packet)), "it must have at least the 20 bytes of an IP header", syscall.EINVAL)
	}
	if len(r.Packet) > maxPacket {
		return refuse("Netfilter", "Packet", size(len(r.Packet)), "must fit in one page with its skb", syscall.EINVAL)
	}
	return inRange("Netfilter", "Repeat", r.Repeat, math.MaxUint32)
}

// family returns the protocol family of the request, or that of the packet if the
// request has none.
func (r *Netfilter) family() NFFamily {
	switch {
	case r.Family != 0:
		return r.Family
	case r.Hook == NFLocalOut && r.Packet[0]>>4 == 6:
		return NFIPv6
	case r.Hook != NFLocalOut && binary.BigEndian.Uint16(r.Packet[12:]) == ethPIPv6:
		return NFIPv6
	}
	return NFIPv4
}
