package progrun

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// SkLookup runs an sk_lookup program as if a packet for Local had arrived from
// Remote. The ingress interface is always 0. Since Linux 5.13, and in some older
// stable kernels. See bpf_prog_test_run_sk_lookup in the kernel's
// net/bpf/test_run.c.
type SkLookup struct {
	// Protocol is the IP protocol, such as unix.IPPROTO_TCP or unix.IPPROTO_UDP. It
	// is at most 65,535.
	Protocol int
	// Local and Remote are the packet's destination and source. Either both are
	// IPv4, or both are IPv6 without zones. One of them may be unset.
	Local, Remote netip.AddrPort
	// Repeat is how often the program runs. 0 means once.
	Repeat int
}

// SkLookupResult is the result of a run of [SkLookup].
type SkLookupResult struct {
	// Verdict is the outcome that the hook would have: SkPass if the program picked
	// a socket.
	Verdict SkVerdict
	// Cookie is the cookie (SO_COOKIE) of the socket that the program picked, or 0
	// if it picked none. If the socket is in a reuseport group and the program did
	// not set BPF_SK_LOOKUP_F_NO_REUSEPORT, the run fails (EOPNOTSUPP).
	Cookie uint64
	// PerRun is the kernel's mean time of one run.
	PerRun time.Duration
}

var skLookupNames = fieldNames{
	"ctx_size_in": "Local", "ctx.family": "Local", "ctx.local_port": "Local", "ctx.remote_port": "Remote",
}

// Run runs prog, of type [ebpf.SkLookup].
func (r SkLookup) Run(prog *ebpf.Program) (SkLookupResult, error) {
	fd, err := skLookupTypes.descriptor("SkLookup", prog)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return SkLookupResult{}, err
	}

	in := r.context()
	var out skLookup
	a := r.attr(fd, view(&in), view(&out))
	guard := a.guard()
	errno := progRun(&a, attrSize)
	guard.release()
	runtime.KeepAlive(prog)
	if errno != 0 {
		c := newCall("SkLookup", skLookupNames, prog, &a)
		copy(c.ctx[:], view(&in))
		return SkLookupResult{}, explain(errno, c)
	}
	return SkLookupResult{Verdict: SkVerdict(a.retval), Cookie: out.cookie, PerRun: a.perRun()}, nil
}

func (r SkLookup) room() int { return 0 }

func (SkLookup) outIn(*SkLookup) *[]byte { return nil }

func (r SkLookup) keep(*[]byte) SkLookup { return r }

func (r *SkLookup) attr(fd uint32, ctxIn, ctxOut []byte) attr {
	return newAttr(fd, nil, nil, ctxIn, ctxOut, uint32(r.Repeat), 0)
}

// check rejects what does not fit in a bpf_sk_lookup.
func (r *SkLookup) check() error {
	local, remote := r.Local.Addr(), r.Remote.Addr()
	switch {
	case !local.IsValid() && !remote.IsValid():
		return refuse("SkLookup", "Local", "", "neither Local nor Remote is set: one must tell the address family", syscall.EAFNOSUPPORT)
	case local.IsValid() && remote.IsValid() && local.Is4() != remote.Is4():
		return refuse("SkLookup", "Remote", r.Remote.String(),
			fmt.Sprintf("its address family differs from that of Local, %s", r.Local), syscall.EAFNOSUPPORT)
	case local.Zone() != "":
		return refuse("SkLookup", "Local", r.Local.String(), "an address cannot have a zone here, since the run has no ingress interface", syscall.EINVAL)
	case remote.Zone() != "":
		return refuse("SkLookup", "Remote", r.Remote.String(), "an address cannot have a zone here, since the run has no ingress interface", syscall.EINVAL)
	}
	// The kernel would silently keep the low 16 bits.
	if err := inRange("SkLookup", "Protocol", r.Protocol, math.MaxUint16); err != nil {
		return err
	}
	return inRange("SkLookup", "Repeat", r.Repeat, math.MaxUint32)
}

func (r *SkLookup) context() skLookup {
	ctx := skLookup{family: afInet6, protocol: uint32(r.Protocol), localPort: uint32(r.Local.Port())}
	binary.BigEndian.PutUint16(ctx.remotePort[:], r.Remote.Port())
	if local := r.Local.Addr(); local.Is4() {
		ctx.family, ctx.localIP4 = afInet, local.As4()
	} else if local.IsValid() {
		ctx.localIP6 = local.As16()
	}
	if remote := r.Remote.Addr(); remote.Is4() {
		ctx.family, ctx.remoteIP4 = afInet, remote.As4()
	} else if remote.IsValid() {
		ctx.remoteIP6 = remote.As16()
	}
	return ctx
}
