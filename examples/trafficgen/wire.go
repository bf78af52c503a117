//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// wire is a veth pair between two network namespaces. These have no names, and exist
// only while their files are open. So the kernel removes them, with what is in them,
// when the process ends at the latest.
type wire struct {
	near, far end
	made      bool
	receiver  link.Link
}

// end is one end of a wire.
type end struct {
	ns      *os.File
	ifindex int
}

// The names of the two interfaces, each in its namespace.
const (
	nearName = "trafficgen0"
	farName  = "trafficgen1"
)

// The addresses of the two ends.
var (
	nearMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	farMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 2}
)

// limit returns what fits the largest MTU.
func (w *wire) limit() limit {
	return limit{largestMTU + ethernetHeader + vlanTag, "the veth pair"}
}

func (w *wire) namespace() int { return int(w.near.ns.Fd()) }

func (w *wire) entry() int { return w.near.ifindex }

func (w *wire) redirectTo() int { return 0 }

func (w *wire) macs() (src, dst net.HardwareAddr) { return nearMAC, farMAC }

func (w *wire) String() string { return "over a veth pair" }

// open makes the pair, with a number of queues on either side, for frames of up to
// size bytes. receive counts what arrives.
func (w *wire) open(queues, size int, receive *ebpf.Program) (err error) {
	if w.near.ns, err = newNetNS(); err != nil {
		return err
	}
	if w.far.ns, err = newNetNS(); err != nil {
		return err
	}
	if err := w.near.inside(func() error { return w.addPair(queues, mtu(size)) }); err != nil {
		return err
	}
	if err := w.far.inside(func() error { return w.far.up(farName) }); err != nil {
		return err
	}
	return w.attach(receive)
}

// addPair makes the pair from the near namespace.
func (w *wire) addPair(queues, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues, attrs.MTU = nearName, queues, queues, mtu
	attrs.HardwareAddr = nearMAC
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: farName, PeerNamespace: netlink.NsFd(w.far.ns.Fd()), PeerMTU: uint32(mtu),
		PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues), PeerHardwareAddr: farMAC,
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("cannot make a veth pair: %w", err)
	}
	w.made = true
	return w.near.up(nearName)
}

// largestMTU is the largest one with which an XDP program can be attached to a veth,
// in round numbers.
const largestMTU = 3400

// mtu returns the MTU of an interface for frames of a size.
func mtu(size int) int {
	const usual = 1500
	return min(max(size-ethernetHeader, usual), largestMTU)
}

// up sets the interface of that name up, and remembers it. The interface has no ARP
// and no address, so that the kernel sends nothing by itself.
func (e *end) up(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetARPOff(l)
	}
	if err == nil {
		_ = netlink.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE) // fails without IPv6, where there is no need
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("cannot set %s up: %w", name, err)
	}
	e.ifindex = l.Attrs().Index
	return nil
}

// inside runs f on a thread in the end's namespace.
func (e *end) inside(f func() error) error { return inNetNS(e.ns, f) }

// attach makes the far end pass its frames to prog. A veth takes XDP frames only if
// its peer has a native XDP program, or GRO. Otherwise they are lost without an error.
func (w *wire) attach(prog *ebpf.Program) error {
	return w.far.inside(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: w.far.ifindex, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("cannot attach a program to the far end: %w", err)
		}
		w.receiver = l
		return nil
	})
}

// close removes everything. It removes the pair itself, since the kernel would do so
// a moment later.
func (w *wire) close() error {
	var err error
	if w.receiver != nil {
		err = w.receiver.Close()
	}
	if w.made {
		err = errors.Join(err, w.near.inside(func() error { return remove(w.near.ifindex) }))
	}
	for _, e := range []end{w.near, w.far} {
		if e.ns != nil {
			err = errors.Join(err, e.ns.Close())
		}
	}
	return err
}

// remove removes an interface, and its peer with it.
func remove(ifindex int) error {
	l, err := netlink.LinkByIndex(ifindex)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the veth pair: %w", err)
	}
	return nil
}
