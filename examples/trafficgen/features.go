//go:build linux

package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// peer returns the peer of a veth, which may be in another namespace.
func peer(veth netlink.Link) (netlink.Link, error) {
	a := veth.Attrs()
	if a.NetNsID < 0 {
		return netlink.LinkByIndex(a.ParentIndex)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(a.ParentIndex)
	req.AddData(info)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(a.NetNsID))))
	replies, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	if len(replies) == 0 {
		return nil, errors.New("no reply")
	}
	return netlink.LinkDeserialize(nil, replies[0])
}

// genlHeader is struct genlmsghdr: command, version, and two bytes that must be 0. The
// kernel rejects nl.Genlmsg, whose serialization has stray memory in the two bytes.
type genlHeader [nl.SizeofGenlmsg]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

// xdpFeatures asks the kernel what an interface can do for XDP: enum
// netdev_xdp_act of linux/netdev.h. Kernels before 6.3 cannot tell
// (ebpf.ErrNotSupported).
func xdpFeatures(ifindex int) (uint64, error) {
	const (
		cmdDevGet   = 1 // NETDEV_CMD_DEV_GET
		attrIfindex = 1 // NETDEV_A_DEV_IFINDEX
		attrXDP     = 3 // NETDEV_A_DEV_XDP_FEATURES
	)
	family, err := netlink.GenlFamilyGet("netdev")
	if errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("features of interfaces: %w", ebpf.ErrNotSupported)
	}
	if err != nil {
		return 0, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genlHeader{cmdDevGet, uint8(family.Version)})
	req.AddData(nl.NewRtAttr(attrIfindex, nl.Uint32Attr(uint32(ifindex))))
	replies, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, err
	}
	for _, reply := range replies {
		attrs, err := nl.ParseRouteAttr(reply[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type&nl.NLA_TYPE_MASK == attrXDP && len(a.Value) == 8 {
				return nl.NativeEndian().Uint64(a.Value), nil
			}
		}
	}
	return 0, errors.New("the reply lacks the XDP features")
}
