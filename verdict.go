package progrun

import (
	"bytes"
	"fmt"
	"strconv"
)

// XDPAction is what an XDP program returned: enum xdp_action of linux/bpf.h. The
// kernel returns any number as it is. Drivers treat numbers without a name as
// XDP_ABORTED.
type XDPAction uint32

const (
	XDPAborted  XDPAction = 0 // drop, and fire the tracepoint xdp:xdp_exception
	XDPDrop     XDPAction = 1
	XDPPass     XDPAction = 2 // pass on to the network stack
	XDPTX       XDPAction = 3 // send out of the interface on which it arrived
	XDPRedirect XDPAction = 4 // send to the target of bpf_redirect or bpf_redirect_map
)

// String returns the name in linux/bpf.h, such as "XDP_DROP".
func (a XDPAction) String() string {
	return name(int64(a), "XDPAction", "XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
}

// MarshalText returns what String does.
func (a XDPAction) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText parses what String returns.
func (a *XDPAction) UnmarshalText(text []byte) error {
	return parse(a, text, "XDPAction", XDPAborted, XDPDrop, XDPPass, XDPTX, XDPRedirect)
}

// TCVerdict is what a sched_cls or sched_act program returned: TC_ACT_* of
// linux/pkt_cls.h, a signed number. A program on a tcx hook returns the same
// numbers by the names TCX_NEXT (-1), TCX_PASS (0), TCX_DROP (2) and TCX_REDIRECT
// (7).
//
// The upper four bits may hold an opcode: see [TCVerdict.GotoChain].
type TCVerdict int32

const (
	TCActUnspec     TCVerdict = -1 // the default action; on tcx, go on with the next program
	TCActOK         TCVerdict = 0
	TCActReclassify TCVerdict = 1
	TCActShot       TCVerdict = 2 // drop
	TCActPipe       TCVerdict = 3 // go on with the next action
	TCActStolen     TCVerdict = 4
	TCActQueued     TCVerdict = 5
	TCActRepeat     TCVerdict = 6
	TCActRedirect   TCVerdict = 7 // send to the target of bpf_redirect
	TCActTrap       TCVerdict = 8
)

const (
	tcActOpcode    = 0xf << 28
	tcActJump      = 1 << 28
	tcActGotoChain = 2 << 28
)

// GotoChain returns the chain of a TC_ACT_GOTO_CHAIN verdict, and reports whether
// v is one.
func (v TCVerdict) GotoChain() (chain uint32, ok bool) {
	return uint32(v) &^ tcActOpcode, uint32(v)&tcActOpcode == tcActGotoChain
}

// String returns the name in linux/pkt_cls.h, such as "TC_ACT_SHOT" or
// "TC_ACT_GOTO_CHAIN|3".
func (v TCVerdict) String() string {
	if v == TCActUnspec {
		return "TC_ACT_UNSPEC"
	}
	if chain, ok := v.GotoChain(); ok {
		return "TC_ACT_GOTO_CHAIN|" + strconv.FormatUint(uint64(chain), 10)
	}
	if uint32(v)&tcActOpcode == tcActJump {
		return "TC_ACT_JUMP|" + strconv.FormatUint(uint64(uint32(v)&^tcActOpcode), 10)
	}
	return name(int64(v), "TCVerdict", "TC_ACT_OK", "TC_ACT_RECLASSIFY", "TC_ACT_SHOT", "TC_ACT_PIPE",
		"TC_ACT_STOLEN", "TC_ACT_QUEUED", "TC_ACT_REPEAT", "TC_ACT_REDIRECT", "TC_ACT_TRAP")
}

// MarshalText returns what String does.
func (v TCVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *TCVerdict) UnmarshalText(text []byte) error {
	for prefix, opcode := range map[string]uint32{"TC_ACT_GOTO_CHAIN|": tcActGotoChain, "TC_ACT_JUMP|": tcActJump} {
		if digits, ok := bytes.CutPrefix(text, []byte(prefix)); ok {
			n, err := strconv.ParseUint(string(digits), 10, 28)
			if err != nil {
				return noSuchWord("TCVerdict", text)
			}
			*v = TCVerdict(opcode | uint32(n))
			return nil
		}
	}
	return parse(v, text, "TCVerdict", TCActUnspec, TCActOK, TCActReclassify, TCActShot, TCActPipe,
		TCActStolen, TCActQueued, TCActRepeat, TCActRedirect, TCActTrap)
}

// SocketFilterVerdict is how many bytes of the packet a socket filter keeps,
// counted from where the program's data begins. 0 drops the packet. A number larger
// than the packet's length keeps all of it.
type SocketFilterVerdict uint32

// SocketFilterDrop keeps nothing.
const SocketFilterDrop SocketFilterVerdict = 0

// SocketFilterKeep keeps a packet of any length. Most filters return this number.
const SocketFilterKeep SocketFilterVerdict = 0xffffffff

// String returns "drop", "keep" or "keep 42 bytes".
func (v SocketFilterVerdict) String() string {
	switch v {
	case SocketFilterDrop:
		return "drop"
	case SocketFilterKeep:
		return "keep"
	}
	return "keep " + strconv.FormatUint(uint64(v), 10) + " bytes"
}

// MarshalText returns what String does.
func (v SocketFilterVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *SocketFilterVerdict) UnmarshalText(text []byte) error {
	var n uint32
	if _, err := fmt.Sscanf(string(text), "keep %d bytes", &n); err == nil && SocketFilterVerdict(n).String() == string(text) {
		*v = SocketFilterVerdict(n)
		return nil
	}
	return parse(v, text, "SocketFilterVerdict", SocketFilterDrop, SocketFilterKeep)
}

// CGroupSKBVerdict is what a cgroup_skb program returned. Ingress programs
// return 0 or 1; egress programs may set the second bit too.
type CGroupSKBVerdict uint32

const (
	CGroupSKBDrop    CGroupSKBVerdict = 0
	CGroupSKBAllow   CGroupSKBVerdict = 1
	CGroupSKBDropCN  CGroupSKBVerdict = 2 // drop, and notify the sender's transport of congestion
	CGroupSKBAllowCN CGroupSKBVerdict = 3 // allow, and notify the sender's transport of congestion
)

// String returns "drop", "allow", "drop+cn" or "allow+cn". The kernel's headers have
// no names for these verdicts.
func (v CGroupSKBVerdict) String() string {
	return name(int64(v), "CGroupSKBVerdict", "drop", "allow", "drop+cn", "allow+cn")
}

// MarshalText returns what String does.
func (v CGroupSKBVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *CGroupSKBVerdict) UnmarshalText(text []byte) error {
	return parse(v, text, "CGroupSKBVerdict", CGroupSKBDrop, CGroupSKBAllow, CGroupSKBDropCN, CGroupSKBAllowCN)
}

// LWTVerdict is what a lightweight tunnel program returned: enum bpf_ret_code
// of linux/bpf.h.
type LWTVerdict uint32

const (
	LWTOK       LWTVerdict = 0   // BPF_OK: go on
	LWTDrop     LWTVerdict = 2   // BPF_DROP
	LWTRedirect LWTVerdict = 7   // BPF_REDIRECT: send to the target of bpf_redirect; lwt_xmit only
	LWTReroute  LWTVerdict = 128 // BPF_LWT_REROUTE: look up the route again; lwt_in and lwt_xmit
)

// String returns the name in linux/bpf.h, such as "BPF_LWT_REROUTE".
func (v LWTVerdict) String() string { return bpfRetCode(uint32(v), "LWTVerdict") }

// MarshalText returns what String does.
func (v LWTVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *LWTVerdict) UnmarshalText(text []byte) error {
	return parse(v, text, "LWTVerdict", LWTOK, LWTDrop, LWTRedirect, LWTReroute, 129)
}

// FlowDissectorVerdict is what a flow dissector returned: enum bpf_ret_code of
// linux/bpf.h.
//
// Before Linux 6.1 the kernel does not return the number itself, but only whether
// it was BPF_OK. [FlowDissectorNotOK] stands for all other numbers there.
type FlowDissectorVerdict int64

const (
	FlowDissectorOK       FlowDissectorVerdict = 0   // BPF_OK: the keys are valid
	FlowDissectorDrop     FlowDissectorVerdict = 2   // BPF_DROP: the packet could not be dissected
	FlowDissectorContinue FlowDissectorVerdict = 129 // BPF_FLOW_DISSECTOR_CONTINUE: leave it to the kernel's own dissector

	// FlowDissectorNotOK means that the program returned something other than
	// BPF_OK, on a kernel before 6.1.
	FlowDissectorNotOK FlowDissectorVerdict = -1

	// FlowDissectorUnknown means that the kernel returned 0 or 1, and that the
	// meaning of these on this kernel is not known: finding out takes the privilege
	// to load a program. Later runs ask again, ever more rarely.
	FlowDissectorUnknown FlowDissectorVerdict = -2
)

// String returns the name in linux/bpf.h, such as "BPF_DROP". It returns "not
// BPF_OK" for FlowDissectorNotOK and "unknown" for FlowDissectorUnknown.
func (v FlowDissectorVerdict) String() string {
	switch v {
	case FlowDissectorNotOK:
		return "not BPF_OK"
	case FlowDissectorUnknown:
		return "unknown"
	}
	return bpfRetCode(uint32(v), "FlowDissectorVerdict")
}

// MarshalText returns what String does.
func (v FlowDissectorVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *FlowDissectorVerdict) UnmarshalText(text []byte) error {
	return parse(v, text, "FlowDissectorVerdict", FlowDissectorOK, FlowDissectorDrop, 7, 128, FlowDissectorContinue,
		FlowDissectorNotOK, FlowDissectorUnknown)
}

// SkVerdict is the outcome of an sk_lookup program: enum sk_action of linux/bpf.h.
// The kernel derives it as on the hook: SkPass if the program picked a socket.
type SkVerdict uint32

const (
	SkDrop SkVerdict = 0
	SkPass SkVerdict = 1
)

// String returns the name in linux/bpf.h, such as "SK_PASS".
func (v SkVerdict) String() string { return name(int64(v), "SkVerdict", "SK_DROP", "SK_PASS") }

// MarshalText returns what String does.
func (v SkVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *SkVerdict) UnmarshalText(text []byte) error {
	return parse(v, text, "SkVerdict", SkDrop, SkPass)
}

// NFVerdict is what a netfilter program returned. The verifier allows only NFDrop
// and NFAccept.
type NFVerdict uint32

const (
	NFDrop   NFVerdict = 0
	NFAccept NFVerdict = 1
)

// String returns the name in linux/netfilter.h, such as "NF_ACCEPT".
func (v NFVerdict) String() string { return name(int64(v), "NFVerdict", "NF_DROP", "NF_ACCEPT") }

// MarshalText returns what String does.
func (v NFVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText parses what String returns.
func (v *NFVerdict) UnmarshalText(text []byte) error {
	return parse(v, text, "NFVerdict", NFDrop, NFAccept)
}

// bpfRetCode returns the name of a value of enum bpf_ret_code.
func bpfRetCode(v uint32, typ string) string {
	switch v {
	case 0:
		return "BPF_OK"
	case 2:
		return "BPF_DROP"
	case 7:
		return "BPF_REDIRECT"
	case 128:
		return "BPF_LWT_REROUTE"
	case 129:
		return "BPF_FLOW_DISSECTOR_CONTINUE"
	}
	return name(int64(v), typ)
}
