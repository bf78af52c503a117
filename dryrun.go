package progrun

import (
	"encoding/binary"
	"syscall"
)

// The functions of this file ask the kernel without running a program. They name
// an interface or a CPU that cannot exist. The kernel refuses that with ENODEV or
// ENXIO if all that it checks before is legal.

// noIfindex is the number of an interface that cannot exist.
const noIfindex = 0x7fffffff

// neverRunsText says why the kernel refuses to run some XDP programs at all.
const neverRunsText = "the program is for a devmap or a cpumap, or bound to a device: the kernel does not run such programs"

// dryXDP has the kernel check an XDP request of these sizes. It returns ENODEV if
// they are legal. The linear size includes the metadata.
func dryXDP(fd, dataSize, metadata, linear uint32) syscall.Errno {
	return dryXDPWith(fd, 0, dataSize, metadata, linear)
}

func dryXDPWith(fd, flags, dataSize, metadata, linear uint32) syscall.Errno {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	if int(dataSize) > len(*s) {
		return syscall.EINVAL
	}
	ctx := xdpMD{data: metadata, dataEnd: linear, ingressIfindex: noIfindex}
	a := newAttr(fd, (*s)[:dataSize], nil, view(&ctx), nil, 0, flags)
	return a.probe()
}

// largestLive returns the size of the largest packet of a live frame with this
// much metadata.
func largestLive(fd, metadata uint32) uint32 {
	return largest(ethHLen, uint32(pageSize), func(n uint32) bool {
		return dryXDPWith(fd, testXDPLiveFrames, metadata+n, metadata, metadata+n) == syscall.ENODEV
	})
}

// largest returns the largest legal number. legal is a legal number, and illegal a
// larger one that is not.
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

// largestMetadata returns how many bytes of metadata the kernel takes, or 0 if
// it takes none or cannot be asked. It tries the limits that kernels have had:
// see xdp_metalen_invalid and bpf_prog_test_run_xdp.
func largestMetadata(fd uint32) uint32 {
	for _, n := range []uint32{252, 216, 32} {
		if dryXDP(fd, n+64, n, n+64) == syscall.ENODEV {
			return n
		}
	}
	return 0
}

// drySKB has the kernel check an skb request of this size. It returns ENODEV if
// the request is legal. Before the kernel looks up the interface, it checks no
// more of the context than data, data_end and data_meta.
func drySKB(fd, dataSize, dataEnd, flags uint32) syscall.Errno {
	s := scratch.Get().(*[]byte)
	defer scratch.Put(s)
	if int(dataSize) > len(*s) {
		return syscall.EINVAL
	}
	ctx := skBuff{ifindex: noIfindex, dataEnd: dataEnd}
	a := newAttr(fd, (*s)[:dataSize], nil, view(&ctx), nil, 0, flags)
	return a.probe()
}

// skbTooLarge reports whether the kernel refuses a packet for its size alone.
func skbTooLarge(fd, n uint32) bool {
	return drySKB(fd, 64, 0, 0) == syscall.ENODEV && drySKB(fd, n, 0, 0) != syscall.ENODEV
}

// largestSKB returns the size of the largest packet with dataEnd linear bytes. 0
// means as many as fit.
func largestSKB(fd, dataEnd uint32) uint32 {
	return largest(max(64, dataEnd), uint32(maxPacket), func(n uint32) bool {
		return drySKB(fd, n, dataEnd, 0) == syscall.ENODEV
	})
}

// dryNetfilter has the kernel check a netfilter request of this size. It returns
// EPROTO if the size is legal, since the packet is neither IPv4 nor IPv6.
func dryNetfilter(fd, dataSize uint32) syscall.Errno {
	if dataSize < ethHLen || int(dataSize) > maxPacket {
		return syscall.EINVAL
	}
	packet := make([]byte, dataSize)
	binary.BigEndian.PutUint16(packet[12:], 0x88b5) // for local experiments
	ctx := nfHookState{pf: afInet}                  // on the hook PRE_ROUTING
	a := newAttr(fd, packet, nil, view(&ctx), nil, 0, 0)
	return a.probe()
}

// largestNetfilter returns the size of the largest packet for a netfilter program.
func largestNetfilter(fd uint32) uint32 {
	return largest(64, uint32(pageSize), func(n uint32) bool { return dryNetfilter(fd, n) == syscall.EPROTO })
}

// nonLinearSKBOn asks whether the kernel has skbs with a part that is not linear.
// It returns 0 if so, EINVAL if not, and any other errno if the program at fd
// does not allow an answer. A kernel that has them refuses a linear part larger
// than the packet before it looks up the interface.
func nonLinearSKBOn(fd uint32) syscall.Errno {
	if errno := drySKB(fd, 64, 0, 0); errno != syscall.ENODEV {
		return noAnswer(errno)
	}
	switch errno := drySKB(fd, 64, 65, 0); errno {
	case syscall.EINVAL:
		return 0
	case syscall.ENODEV:
		return syscall.EINVAL
	default:
		return noAnswer(errno)
	}
}

// checksumCompleteOn asks whether the kernel checks the checksums of skbs. It
// returns what nonLinearSKBOn does.
func checksumCompleteOn(fd uint32) syscall.Errno {
	if errno := drySKB(fd, 64, 0, 0); errno != syscall.ENODEV {
		return noAnswer(errno)
	}
	switch errno := drySKB(fd, 64, 0, testSKBChecksumComplete); errno {
	case syscall.ENODEV:
		return 0
	case syscall.EINVAL:
		return syscall.EINVAL
	default:
		return noAnswer(errno)
	}
}

// noAnswer returns errno, or EIO in place of EINVAL and 0, which would mean no and
// yes.
func noAnswer(errno syscall.Errno) syscall.Errno {
	if errno == syscall.EINVAL || errno == 0 {
		return syscall.EIO
	}
	return errno
}

// dryOnCPU has the kernel check a raw tracepoint request with n arguments, for a
// CPU that cannot exist. It returns ENXIO if the request is legal.
func dryOnCPU(fd uint32, n int) syscall.Errno {
	a := newAttr(fd, nil, nil, orNil(make([]byte, 8*n)), nil, 0, testRunOnCPU)
	a.cpu = ^uint32(0)
	return a.probe()
}

// dryStructOps has the kernel check a struct_ops request with this many bytes of
// arguments. The first is a pointer to memory that cannot be read, so the kernel
// returns EFAULT if the size is right.
func dryStructOps(fd, size uint32) syscall.Errno {
	if size == 0 {
		return syscall.EINVAL
	}
	args := make([]byte, max(8, size))
	binary.NativeEndian.PutUint64(args, 1)
	a := newAttr(fd, nil, nil, args[:size], nil, 0, 0)
	return a.probe()
}
