//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// target is one or two existing interfaces.
type target struct {
	ns       *os.File // nil means the namespace of the command
	in       netlink.Link
	redirect netlink.Link // nil means that frames leave by in
	peer     netlink.Link // peer of a veth that frames leave by; nil if it is none, or unknown
}

// find looks up the interfaces, and checks that frames can leave by them.
func (t *target) find(o *options) (err error) {
	in := o.iface
	if in == "" {
		in = "lo"
	}
	if t.in, err = netlink.LinkByName(in); err != nil {
		return fmt.Errorf("no interface %s: %w", in, err)
	}
	if o.redirect != "" {
		if t.redirect, err = netlink.LinkByName(o.redirect); err != nil {
			return fmt.Errorf("no interface %s: %w", o.redirect, err)
		}
	}
	if t.out().Type() == "veth" {
		t.peer, _ = peer(t.out()) // older kernels hide what is in other namespaces
	}
	return t.check()
}

func (t *target) inside(f func() error) error {
	if t.ns == nil {
		return f()
	}
	return inNetNS(t.ns, f)
}

// out returns the interface that frames leave by.
func (t *target) out() netlink.Link {
	if t.redirect != nil {
		return t.redirect
	}
	return t.in
}

func (t *target) open(int, int, *ebpf.Program) error { return nil }

func (t *target) close() error {
	if t.ns == nil {
		return nil
	}
	return t.ns.Close()
}

func (t *target) namespace() int {
	if t.ns == nil {
		return 0
	}
	return int(t.ns.Fd())
}

func (t *target) entry() int { return t.in.Attrs().Index }

func (t *target) redirectTo() int {
	if t.redirect == nil {
		return 0
	}
	return t.redirect.Attrs().Index
}

func (t *target) macs() (src, dst net.HardwareAddr) { return t.out().Attrs().HardwareAddr, nil }

func (t *target) String() string { return "out of " + t.out().Attrs().Name }

// limit returns what the MTU allows, of a veth also that of its peer. The kernel
// leaves room for a tag.
func (t *target) limit() limit {
	tightest := t.out().Attrs()
	if t.peer != nil && t.peer.Attrs().MTU < tightest.MTU {
		tightest = t.peer.Attrs()
	}
	return limit{tightest.MTU + ethernetHeader + vlanTag, fmt.Sprintf("the MTU of %s, %d", tightest.Name, tightest.MTU)}
}

// check returns an error for what makes the kernel lose every frame, and say nothing.
func (t *target) check() error {
	out := t.out().Attrs()
	switch {
	case out.EncapType != "ether" && out.EncapType != "loopback":
		return fmt.Errorf("%s is no Ethernet interface, and takes no Ethernet frames", out.Name)
	case out.Flags&net.FlagUp == 0:
		return fmt.Errorf("%s is down, so no frame could leave by it: ip link set %s up", out.Name, out.Name)
	case out.OperState == netlink.OperDown || out.OperState == netlink.OperLowerLayerDown:
		return fmt.Errorf("%s has no carrier, so no frame could arrive: is its other end up?", out.Name)
	}
	return t.checkXDP()
}

// checkXDP returns an error if the interface is known not to take frames of XDP
// programs. Kernels before 6.3 do not say.
func (t *target) checkXDP() error {
	name := t.out().Attrs().Name
	features, err := xdpFeatures(t.out().Attrs().Index)
	const ndoXmit = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return nil
	case err != nil:
		return fmt.Errorf("cannot find out whether %s takes XDP frames: %w", name, err)
	case features&ndoXmit != 0:
		return nil
	case t.out().Type() != "veth":
		return fmt.Errorf("the driver of %s sends no XDP frames, or only while an XDP program is attached to it", name)
	}
	peer := "PEER"
	if t.peer != nil {
		peer = t.peer.Attrs().Name
	}
	return fmt.Errorf("the peer of %s does not accept XDP frames, so all would be lost: attach a native XDP program to it, such as one that passes all frames, or switch GRO on (ethtool -K %s gro on)", name, peer)
}
