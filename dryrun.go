package progrun

import (
	"syscall"

	"github.com/cilium/ebpf"
)

// dryXDP has the kernel check an XDP request of these sizes without running
// prog: ENODEV if they are legal. linear counts from the metadata.
func dryXDP(prog *ebpf.Program, dataSize, metadata, linear uint32) syscall.Errno {
	return dryXDPOn(uint32(prog.FD()), dataSize, metadata, linear)
}

func dryXDPOn(fd, dataSize, metadata, linear uint32) syscall.Errno {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	if int(dataSize) > len(*s) {
		return syscall.EINVAL
	}
	ctx := xdpMD{data: metadata, dataEnd: linear, ingressIfindex: noIfindex}
	a := newAttr(fd, (*s)[:dataSize], nil, view(&ctx), nil, 0, 0)
	return a.probe()
}

// largestLive is the largest packet of a live frame behind this much metadata,
// found by bisection.
func largestLive(prog *ebpf.Program, metadata uint32) uint32 {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	return largest(ethHLen, uint32(pageSize), func(n uint32) bool {
		ctx := xdpMD{data: metadata, dataEnd: metadata + n, ingressIfindex: noIfindex}
		a := newAttr(uint32(prog.FD()), (*s)[:metadata+n], nil, view(&ctx), nil, 0, 0)
		a.flags = testXDPLiveFrames
		return a.probe() == syscall.ENODEV
	})
}

// largest bisects for the largest number that is legal: legal is, illegal is not.
func largest(legal, illegal uint32, isLegal func(uint32) bool) uint32 {
	for illegal-legal > 1 {
		if n := (legal + illegal) / 2; isLegal(n) {
			legal = n
		} else {
			illegal = n
		}
	}
	return legal
}

// largestMetadata is how much metadata the kernel takes, or 0 if it takes none
// or cannot be asked. The limits there were: see xdp_metalen_invalid and
// bpf_prog_test_run_xdp.
func largestMetadata(prog *ebpf.Program) uint32 {
	for _, n := range []uint32{252, 216, 32} {
		if dryXDP(prog, n+64, n, n+64) == syscall.ENODEV {
			return n
		}
	}
	return 0
}

// drySKB has the kernel check an skb request of this size without running
// prog: ENODEV if it is legal.
func drySKB(prog *ebpf.Program, dataSize uint32) syscall.Errno {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	if int(dataSize) > len(*s) {
		return syscall.EINVAL
	}
	ctx := skBuff{ifindex: noIfindex}
	a := newAttr(uint32(prog.FD()), (*s)[:dataSize], nil, view(&ctx), nil, 0, 0)
	return a.probe()
}

// skbTooLarge is whether the size alone makes the kernel refuse a packet.
func skbTooLarge(prog *ebpf.Program, n uint32) bool {
	return drySKB(prog, 64) == syscall.ENODEV && drySKB(prog, n) != syscall.ENODEV
}

// largestSKB finds the largest packet.
func largestSKB(prog *ebpf.Program) uint32 {
	return largest(64, uint32(maxPacket), func(n uint32) bool { return drySKB(prog, n) == syscall.ENODEV })
}
