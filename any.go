package progrun

import (
	"bytes"
	"encoding"
	"fmt"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// Any runs a program of any type that takes a packet. Depending on the type, it
// runs the program as [XDP], [TC], [SocketFilter], [CGroupSKB], [LWT],
// [FlowDissector] or [Netfilter] does, with only the fields below. Rules and errors
// are those of that request.
type Any struct {
	// Packet is the frame, from its Ethernet header on.
	Packet []byte
	// Repeat is how often the program runs. 0 means once.
	Repeat int
	// Out is the buffer for the result's Packet. It grows as with append, and may
	// be nil. Flow dissectors and netfilter programs have no output.
	Out []byte
	// NoOutput asks for the verdict only.
	NoOutput bool
}

// AnyResult is the result of a run of [Any]. A field that the result for the program's
// type does not have is zero.
type AnyResult struct {
	// Verdict is what the program returned.
	Verdict AnyVerdict
	// Packet is the packet as the program left it. It is nil for flow dissectors
	// and netfilter programs, whose packets the kernel does not return.
	Packet []byte
	// Metadata is what an XDP program left in front of the packet. See [XDPResult].
	Metadata []byte
	// Context is the context as the program left it: that of a [TC], [SocketFilter],
	// [CGroupSKB] or [LWT] request.
	Context SKB
	// Keys is what a flow dissector filled in. See [FlowDissectorResult].
	Keys FlowKeys
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
	// Sight says how much of the packet the program could see.
	Sight Sight
}

// AnyVerdict is the verdict of a program of any type that takes a packet. Two
// verdicts are equal if both Type and Value are.
type AnyVerdict struct {
	// Type is the type of the program.
	Type ebpf.ProgramType
	// Value is the verdict as a number, such as int64(XDPDrop) or
	// int64(TCActUnspec).
	Value int64
}

// String returns the verdict as the request's own verdict type prints it, such as
// "XDP_DROP".
func (v AnyVerdict) String() string {
	switch kindOf(v.Type).types {
	case xdpTypes:
		return XDPAction(v.Value).String()
	case tcTypes:
		return TCVerdict(v.Value).String()
	case socketFilterTypes:
		return SocketFilterVerdict(v.Value).String()
	case cgroupSKBTypes:
		return CGroupSKBVerdict(v.Value).String()
	case lwtTypes:
		return LWTVerdict(v.Value).String()
	case flowDissectorTypes:
		return FlowDissectorVerdict(v.Value).String()
	case netfilterTypes:
		return NFVerdict(v.Value).String()
	}
	return fmt.Sprintf("AnyVerdict(%s, %d)", v.Type, v.Value)
}

// MarshalText returns the type and the verdict, such as "XDP XDP_DROP" or "SchedCLS
// TC_ACT_OK".
func (v AnyVerdict) MarshalText() ([]byte, error) {
	return []byte(v.Type.String() + " " + v.String()), nil
}

// UnmarshalText parses what MarshalText returns.
func (v *AnyVerdict) UnmarshalText(text []byte) error {
	typ, verdict, _ := strings.Cut(string(text), " ")
	for t := range ebpf.ProgramType(64) {
		if packetTypes.has(t) && t.String() == typ {
			n, err := parseVerdict(t, []byte(verdict))
			if err != nil {
				break
			}
			*v = AnyVerdict{Type: t, Value: n}
			return nil
		}
	}
	return noSuchWord("AnyVerdict", text)
}

// parseVerdict returns the verdict of a program of type t that prints as text.
func parseVerdict(t ebpf.ProgramType, text []byte) (int64, error) {
	switch kindOf(t).types {
	case xdpTypes:
		return parseAs[XDPAction](text)
	case tcTypes:
		return parseAs[TCVerdict](text)
	case socketFilterTypes:
		return parseAs[SocketFilterVerdict](text)
	case cgroupSKBTypes:
		return parseAs[CGroupSKBVerdict](text)
	case lwtTypes:
		return parseAs[LWTVerdict](text)
	case flowDissectorTypes:
		return parseAs[FlowDissectorVerdict](text)
	}
	return parseAs[NFVerdict](text)
}

func parseAs[V word, P interface {
	*V
	encoding.TextUnmarshaler
}](text []byte) (int64, error) {
	var v V
	err := P(&v).UnmarshalText(text)
	return int64(v), err
}

// packetTypes are the types of programs that Any runs.
const packetTypes = xdpTypes | tcTypes | socketFilterTypes | cgroupSKBTypes | lwtTypes | flowDissectorTypes | netfilterTypes

// Run runs prog, of any type that takes a packet.
func (r Any) Run(prog *ebpf.Program) (AnyResult, error) {
	if _, err := packetTypes.descriptor("Any", prog); err != nil {
		return AnyResult{}, err
	}
	t := prog.Type()
	verdict := func(value int64) AnyVerdict { return AnyVerdict{Type: t, Value: value} }
	switch {
	case xdpTypes.has(t):
		res, err := XDP{Packet: r.Packet, Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput}.Run(prog)
		return orError(err, AnyResult{
			Verdict: verdict(int64(res.Action)), Packet: res.Packet, Metadata: res.Metadata,
			PerRun: res.PerRun, Sight: res.Sight,
		})
	case tcTypes.has(t):
		res, err := TC{Packet: r.Packet, Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput}.Run(prog)
		return orError(err, AnyResult{
			Verdict: verdict(int64(res.Verdict)), Packet: res.Packet, Context: res.Context,
			PerRun: res.PerRun,
		})
	case socketFilterTypes.has(t):
		res, err := SocketFilter{Packet: r.Packet, Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput}.Run(prog)
		return orError(err, AnyResult{
			Verdict: verdict(int64(res.Verdict)), Packet: res.Packet, Context: res.Context,
			PerRun: res.PerRun,
		})
	case cgroupSKBTypes.has(t):
		res, err := CGroupSKB{Packet: r.Packet, Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput}.Run(prog)
		return orError(err, AnyResult{
			Verdict: verdict(int64(res.Verdict)), Packet: res.Packet, Context: res.Context,
			PerRun: res.PerRun, Sight: res.Sight,
		})
	case lwtTypes.has(t):
		res, err := LWT{Packet: r.Packet, Repeat: r.Repeat, Out: r.Out, NoOutput: r.NoOutput}.Run(prog)
		return orError(err, AnyResult{
			Verdict: verdict(int64(res.Verdict)), Packet: res.Packet, Context: res.Context,
			PerRun: res.PerRun,
		})
	case flowDissectorTypes.has(t):
		res, err := FlowDissector{Packet: r.Packet, Repeat: r.Repeat}.Run(prog)
		return orError(err, AnyResult{Verdict: verdict(int64(res.Verdict)), Keys: res.Keys, PerRun: res.PerRun})
	}
	res, err := Netfilter{Packet: r.Packet, Repeat: r.Repeat}.Run(prog)
	return orError(err, AnyResult{Verdict: verdict(int64(res.Verdict)), PerRun: res.PerRun})
}

// orError returns the result, or only the error if there is one.
func orError(err error, res AnyResult) (AnyResult, error) {
	if err != nil {
		return AnyResult{}, err
	}
	return res, nil
}

func (r Any) room() int { return room(len(r.Packet), r.Out, r.NoOutput) }

func (Any) outIn(r *Any) *[]byte { return &r.Out }

func (r Any) keep(memory *[]byte) Any {
	*memory = append((*memory)[:0], r.Packet...)
	r.Packet = *memory
	return r
}

func (Any) packetIn(r *Any) *[]byte { return &r.Packet }

func (r Any) repeated(n int, noOutput bool) Any {
	r.Repeat, r.Out, r.NoOutput = n, nil, noOutput
	return r
}

// timing leaves the Ethernet header out of the comparison for types that do not
// return it.
func (r Any) timing(res AnyResult) (time.Duration, bool) {
	drifts := len(res.Metadata) > 0 || SKB{}.changed(&res.Context)
	switch t := res.Verdict.Type; {
	case flowDissectorTypes.has(t), netfilterTypes.has(t):
		return res.PerRun, false
	case xdpTypes.has(t), tcTypes.has(t):
		return res.PerRun, drifts || !bytes.Equal(r.Packet, res.Packet)
	}
	return res.PerRun, drifts || l3Changed(r.Packet, res.Packet)
}
