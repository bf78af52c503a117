//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// path is where frames go: out of existing interfaces, or over a wire of the
// command's own.
type path interface {
	// lookAhead returns an error if no frame of that many bytes could arrive.
	lookAhead(size int) error
	// open makes what the path needs.
	open(queues, size int, receive *ebpf.Program) error
	close() error

	// namespace returns the namespace of the interfaces, or 0 for the thread's own.
	namespace() int
	// entry returns the interface on which frames seem to arrive.
	entry() int
	// redirectTo returns the interface to which they are redirected, or 0.
	redirectTo() int
	// macs returns the addresses of the two ends, as far as they are known.
	macs() (src, dst net.HardwareAddr)
	String() string
}

// path finds the interfaces that the flags name.
func (o *options) path() (path, error) {
	if o.iface == "" && o.redirect == "" {
		return new(wire), nil
	}
	t := &target{}
	if o.netns != "" {
		name := o.netns
		if !strings.Contains(name, "/") {
			name = filepath.Join("/run/netns", name)
		}
		ns, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("no network namespace %s: %w", o.netns, err)
		}
		t.ns = ns
	}
	err := t.inside(func() error { return t.find(o) })
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// target is one or two existing interfaces.
type target struct {
	ns       *os.File // nil means the namespace of the command
	in       netlink.Link
	redirect netlink.Link // nil means that frames leave by in
}

// find looks up the interfaces.
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
	return nil
}

func (t *target) inside(f func() error) error {
	if t.ns == nil {
		return f()
	}
	return (&end{ns: t.ns}).inside(f)
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

// lookAhead checks for what makes the kernel lose every frame without an error.
func (t *target) lookAhead(size int) error {
	out := t.out().Attrs()
	const vlan = 4 // the kernel leaves room for a tag
	switch {
	case out.Flags&net.FlagUp == 0:
		return fmt.Errorf("%s is down, so no frame could leave by it: ip link set %s up", out.Name, out.Name)
	case out.OperState == netlink.OperDown || out.OperState == netlink.OperLowerLayerDown:
		return fmt.Errorf("%s has no carrier, so no frame could arrive: is its other end up?", out.Name)
	case size > out.MTU+ethernetHeader+vlan:
		return fmt.Errorf("a frame of %d bytes does not fit the MTU of %s, %d: at most %d bytes", size, out.Name, out.MTU, out.MTU+ethernetHeader+vlan)
	}
	return t.inside(func() error { return sendsXDPFrames(t.out()) })
}

// sendsXDPFrames returns an error if an interface is known not to take frames of XDP
// programs. Kernels before 6.3 do not say.
func sendsXDPFrames(l netlink.Link) error {
	features, err := xdpFeatures(l.Attrs().Index)
	const ndoXmit = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT
	if err != nil || features&ndoXmit != 0 {
		return nil
	}
	if l.Type() == "veth" {
		return fmt.Errorf("the peer of %s does not accept XDP frames, so all would be lost: attach a native XDP program to it, such as one that passes all frames, or switch GRO on (ethtool -K PEER gro on)", l.Attrs().Name)
	}
	return fmt.Errorf("the driver of %s (%s) sends no XDP frames, or only while an XDP program is attached to it", l.Attrs().Name, l.Type())
}

// genlHeader is struct genlmsghdr: command, version, and two bytes that must be 0. The
// kernel rejects nl.Genlmsg, whose serialization has stray memory in the two bytes.
type genlHeader [nl.SizeofGenlmsg]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

// xdpFeatures asks the kernel what an interface can do for XDP: enum
// netdev_xdp_act of linux/netdev.h.
func xdpFeatures(ifindex int) (uint64, error) {
	const (
		cmdDevGet   = 1 // NETDEV_CMD_DEV_GET
		attrIfindex = 1 // NETDEV_A_DEV_IFINDEX
		attrXDP     = 3 // NETDEV_A_DEV_XDP_FEATURES
	)
	family, err := netlink.GenlFamilyGet("netdev")
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
	return 0, errors.New("the kernel does not tell")
}
