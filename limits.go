package progrun

import (
	"os"
	"runtime"
)

// The kernel puts a packet in pages. In the first page it reserves a headroom
// before the packet, and a tailroom behind it for its own data.

var pageSize = os.Getpagesize()

// maxPacket is larger than any packet that a kernel takes: a linear part and as
// many fragments as a kernel can have, of a page each.
var maxPacket = (maxFrags + 1) * pageSize

const (
	maxFrags     = 45  // the most that CONFIG_MAX_SKB_FRAGS can be
	defaultFrags = 17  // CONFIG_MAX_SKB_FRAGS if not set
	xdpHeadroom  = 256 // XDP_PACKET_HEADROOM
)

// tailroom is sizeof(struct skb_shared_info) with defaultFrags, in whole cache
// lines: SKB_DATA_ALIGN.
var tailroom = (48 + 16*defaultFrags + cacheLine() - 1) &^ (cacheLine() - 1)

// cacheLine returns SMP_CACHE_BYTES of the kernels for this architecture.
func cacheLine() int {
	switch runtime.GOARCH {
	case "s390x":
		return 256
	case "ppc64", "ppc64le":
		return 128
	}
	return 64
}

// xdpLinear is how much of an XDP packet can be linear.
var xdpLinear = pageSize - xdpHeadroom - tailroom
