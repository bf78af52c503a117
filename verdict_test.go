package progrun

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

// TestString checks the names of all verdicts and enumerations, and of values without a
// name.
func TestString(t *testing.T) {
	for _, c := range []struct {
		value fmt.Stringer
		want  string
	}{
		{XDPAborted, "XDP_ABORTED"}, {XDPDrop, "XDP_DROP"}, {XDPPass, "XDP_PASS"}, {XDPTX, "XDP_TX"}, {XDPRedirect, "XDP_REDIRECT"},
		{XDPAction(5), "XDPAction(5)"}, {XDPAction(math.MaxUint32), "XDPAction(4294967295)"},

		{TCActUnspec, "TC_ACT_UNSPEC"}, {TCActOK, "TC_ACT_OK"}, {TCActReclassify, "TC_ACT_RECLASSIFY"}, {TCActShot, "TC_ACT_SHOT"},
		{TCActPipe, "TC_ACT_PIPE"}, {TCActStolen, "TC_ACT_STOLEN"}, {TCActQueued, "TC_ACT_QUEUED"}, {TCActRepeat, "TC_ACT_REPEAT"},
		{TCActRedirect, "TC_ACT_REDIRECT"}, {TCActTrap, "TC_ACT_TRAP"},
		{TCVerdict(9), "TCVerdict(9)"}, {TCVerdict(-2), "TCVerdict(-2)"}, {TCVerdict(math.MinInt32), "TCVerdict(-2147483648)"},
		{TCVerdict(tcActGotoChain), "TC_ACT_GOTO_CHAIN|0"}, {TCVerdict(tcActGotoChain | 3), "TC_ACT_GOTO_CHAIN|3"},
		{TCVerdict(tcActGotoChain | 0xfffffff), "TC_ACT_GOTO_CHAIN|268435455"},
		{TCVerdict(tcActJump | 7), "TC_ACT_JUMP|7"}, {TCVerdict(3 << 28), "TCVerdict(805306368)"},

		{SocketFilterDrop, "drop"}, {SocketFilterVerdict(42), "keep 42 bytes"}, {SocketFilterVerdict(math.MaxUint32), "keep"},

		{CGroupSKBDrop, "drop"}, {CGroupSKBAllow, "allow"}, {CGroupSKBDropCN, "drop+cn"}, {CGroupSKBAllowCN, "allow+cn"},
		{CGroupSKBVerdict(4), "CGroupSKBVerdict(4)"},

		{LWTOK, "BPF_OK"}, {LWTDrop, "BPF_DROP"}, {LWTRedirect, "BPF_REDIRECT"}, {LWTReroute, "BPF_LWT_REROUTE"},
		{LWTVerdict(1), "LWTVerdict(1)"}, {LWTVerdict(math.MaxUint32), "LWTVerdict(4294967295)"},

		{FlowDissectorOK, "BPF_OK"}, {FlowDissectorDrop, "BPF_DROP"}, {FlowDissectorContinue, "BPF_FLOW_DISSECTOR_CONTINUE"},
		{FlowDissectorNotOK, "not BPF_OK"}, {FlowDissectorUnknown, "unknown"},
		{FlowDissectorVerdict(1), "FlowDissectorVerdict(1)"}, {FlowDissectorVerdict(math.MaxUint32), "FlowDissectorVerdict(4294967295)"},

		{SkDrop, "SK_DROP"}, {SkPass, "SK_PASS"}, {SkVerdict(2), "SkVerdict(2)"},

		{NFDrop, "NF_DROP"}, {NFAccept, "NF_ACCEPT"}, {NFVerdict(2), "NFVerdict(2)"},

		{FlowDissectorFlags(0), "0x0"}, {FlowParse1stFrag, "PARSE_1ST_FRAG"}, {FlowStopAtFlowLabel, "STOP_AT_FLOW_LABEL"},
		{FlowParse1stFrag | FlowStopAtEncap, "PARSE_1ST_FRAG|STOP_AT_ENCAP"},
		{FlowStopAtEncap | 1<<31, "STOP_AT_ENCAP|0x80000000"}, {FlowDissectorFlags(8), "0x8"},

		{NFPreRouting, "NF_INET_PRE_ROUTING"}, {NFLocalIn, "NF_INET_LOCAL_IN"}, {NFForward, "NF_INET_FORWARD"},
		{NFLocalOut, "NF_INET_LOCAL_OUT"}, {NFPostRouting, "NF_INET_POST_ROUTING"}, {NFHook(5), "NFHook(5)"},

		{NFIPv4, "NFPROTO_IPV4"}, {NFIPv6, "NFPROTO_IPV6"}, {NFFamily(0), "NFFamily(0)"}, {NFFamily(7), "NFFamily(7)"},

		{CPU{}, "the caller's CPU"}, {OnCPU(0), "CPU 0"}, {OnCPU(-1), "CPU -1"},

		{RanNo, "did not run"}, {RanMaybe, "may have run"}, {RanYes, "ran"}, {Ran(3), "Ran(3)"},
	} {
		if got := c.value.String(); got != c.want {
			t.Errorf("%T: got %q, want %q", c.value, got, c.want)
		}
	}
}

func TestGotoChain(t *testing.T) {
	for v, want := range map[TCVerdict]struct {
		chain uint32
		ok    bool
	}{
		tcActGotoChain | 3: {3, true}, tcActGotoChain: {0, true},
		TCActOK: {0, false}, TCActShot: {2, false}, TCActUnspec: {0xfffffff, false}, tcActJump | 3: {3, false},
	} {
		if chain, ok := v.GotoChain(); chain != want.chain || ok != want.ok {
			t.Errorf("%s: %d, %v, want %d, %v", v, chain, ok, want.chain, want.ok)
		}
	}
}

// TestCPU checks that CPU 0 is not the zero value.
func TestCPU(t *testing.T) {
	if OnCPU(0) == (CPU{}) {
		t.Error("CPU 0 is the caller's")
	}
}

// roundTrip checks that values marshal as text, and back.
func roundTrip[T interface {
	comparable
	String() string
	encoding.TextMarshaler
}, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, values ...T) {
	t.Helper()
	for _, v := range values {
		text, err := json.Marshal(v)
		if want, _ := json.Marshal(v.String()); err != nil || string(text) != string(want) {
			t.Errorf("%v marshals as %s, %v", v, text, err)
		}
		var back T
		if err := json.Unmarshal(text, &back); err != nil || back != v {
			t.Errorf("%s came back as %v, %v", text, back, err)
		}
	}
	for _, bad := range []string{"", "nonsense", fmt.Sprintf("%T(", *new(T))[len("progrun."):], fmt.Sprintf("%T(1", *new(T))[len("progrun."):], "keep 1 byte", "TC_ACT_JUMP|x", "TC_ACT_JUMP|268435456"} {
		var back T
		if err := P(&back).UnmarshalText([]byte(bad)); err == nil || back != *new(T) {
			t.Errorf("%q was taken for %v", bad, back)
		}
	}
}

// TestTextOfVerdicts checks the text form of every type that prints as a word.
// TestTextForms finds the types that have none.
func TestTextOfVerdicts(t *testing.T) {
	roundTrip(t, XDPAborted, XDPDrop, XDPPass, XDPTX, XDPRedirect, 5, math.MaxUint32)
	roundTrip(t, TCActUnspec, TCActOK, TCActReclassify, TCActShot, TCActPipe, TCActStolen, TCActQueued, TCActRepeat, TCActRedirect,
		TCActTrap, 9, -2, math.MinInt32, math.MaxInt32, tcActGotoChain|3, tcActJump, tcActJump|0xfffffff)
	roundTrip(t, SocketFilterDrop, SocketFilterKeep, 1, 42, math.MaxUint32-1)
	roundTrip(t, CGroupSKBDrop, CGroupSKBAllow, CGroupSKBDropCN, CGroupSKBAllowCN, 4)
	roundTrip(t, LWTOK, LWTDrop, LWTRedirect, LWTReroute, 129, 1)
	roundTrip(t, FlowDissectorOK, FlowDissectorDrop, FlowDissectorContinue, FlowDissectorNotOK, FlowDissectorUnknown, 7, 128, 1, math.MaxUint32)
	roundTrip(t, SkDrop, SkPass, 2)
	roundTrip(t, NFDrop, NFAccept, 2)
	roundTrip(t, SightWhole, SightPart, SightUnknown, 3)
	roundTrip(t, RanNo, RanMaybe, RanYes, 255)
	roundTrip(t, LimitCPU, LimitRate, LimitDispatcher, 3)
	roundTrip(t, NFPreRouting, NFLocalIn, NFForward, NFLocalOut, NFPostRouting, 5, 255)
	roundTrip(t, NFIPv4, NFIPv6, 0, 7)
	roundTrip(t, FlowParse1stFrag, FlowStopAtFlowLabel, FlowStopAtEncap, 0, 7, 8, FlowStopAtEncap|1<<31, math.MaxUint32)
	roundTrip(t, CPU{}, OnCPU(0), OnCPU(3), OnCPU(-1))
	text, err := json.Marshal(&Error{Request: "XDP", Rule: "the program is nil", Err: unix.EINVAL})
	if string(text) != `"progrun: XDP: the program is nil: invalid argument"` || err != nil {
		t.Errorf("an error marshals as %s, %v", text, err)
	}
}
