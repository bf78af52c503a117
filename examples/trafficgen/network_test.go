//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is a namespace with interfaces of many kinds. It goes with its file.
type network struct {
	ns  *os.File
	tap *os.File // nil without /dev/net/tun
}

// receivers are the interfaces that count what arrives.
var receivers = []string{"far", "small1", "gro1"}

// newNetwork makes these veth pairs: near and far, small0 and small1 with a smaller
// MTU at the far end, gro0 and gro1 with GRO in place of a program, plain0 and plain1
// with neither, half0 and half1 with one end down, down0 and down1. There are also a
// bridge, and a tap and a tun if the kernel has them.
func newNetwork(t testing.TB) *network {
	t.Helper()
	ns, err := newNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	n := &network{ns: ns}
	if err := inNetNS(ns, func() error { return n.fill(t) }); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *network) fill(t testing.TB) error {
	for _, names := range [][2]string{{"near", "far"}, {"small0", "small1"}, {"gro0", "gro1"}, {"plain0", "plain1"}, {"half0", "half1"}, {"down0", "down1"}} {
		if err := addVeth(names[0], names[1]); err != nil {
			return err
		}
	}
	for _, name := range []string{"lo", "near", "far", "small0", "small1", "gro0", "gro1", "plain0", "plain1", "half0"} {
		if err := new(end).up(name); err != nil {
			return err
		}
	}
	small, err := netlink.LinkByName("small1")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetMTU(small, 1000), attachReceiver(t, "far"), attachReceiver(t, "small1"), gro("gro1"), addBridge("plain1"), n.addTuntap(t))
}

func addVeth(name, peer string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer})
}

// attachReceiver attaches an XDP program that drops what arrives.
func attachReceiver(t testing.TB, name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	progs, err := loadPrograms(&load{packets: [][]byte{make([]byte, minSize)}}, new(wire))
	if err != nil {
		return err
	}
	t.Cleanup(progs.close)
	at, err := link.AttachXDP(link.XDPOptions{Program: progs.Receive, Interface: l.Attrs().Index, Flags: link.XDPDriverMode})
	if err == nil {
		progs.links = append(progs.links, at)
	}
	return err
}

// gro does as ethtool -K NAME gro on.
func gro(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	on := struct{ cmd, data uint32 }{unix.ETHTOOL_SGRO, 1}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of a struct ifreq
	}{data: unsafe.Pointer(&on)}
	copy(request.name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&on)
	if errno != 0 {
		return fmt.Errorf("cannot switch GRO on: %w", errno)
	}
	return nil
}

// addBridge makes a bridge with a port.
func addBridge(port string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	l, err := netlink.LinkByName(port)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetMaster(l, bridge), new(end).up("br0"))
}

func (n *network) addTuntap(t testing.TB) error {
	if tun() != nil {
		return nil
	}
	for name, mode := range map[string]netlink.TuntapMode{"tap0": netlink.TUNTAP_MODE_TAP, "tun0": netlink.TUNTAP_MODE_TUN} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		l := &netlink.Tuntap{LinkAttrs: attrs, Mode: mode, Flags: netlink.TUNTAP_NO_PI, Queues: 1, NonPersist: true}
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		t.Cleanup(func() { l.Fds[0].Close() })
		if mode == netlink.TUNTAP_MODE_TAP {
			n.tap = l.Fds[0]
		}
		if err := new(end).up(name); err != nil {
			return err
		}
	}
	return nil
}

// arrived returns how many frames each of the receivers has counted, once no more
// arrive.
func (n *network) arrived(t testing.TB) (counts map[string]uint64) {
	t.Helper()
	for before := map[string]uint64(nil); counts == nil || !maps.Equal(before, counts); time.Sleep(20 * time.Millisecond) {
		before, counts = counts, map[string]uint64{}
		err := inNetNS(n.ns, func() error { return count(counts) })
		if err != nil {
			t.Fatal(err)
		}
	}
	return counts
}

func count(counts map[string]uint64) error {
	for _, name := range receivers {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		counts[name] = l.Attrs().Statistics.RxPackets
	}
	return nil
}

// since tells what has arrived since then: how many frames at the receivers, and
// which ones at the tap.
func (n *network) since(t testing.TB, before map[string]uint64) (text string) {
	t.Helper()
	now := n.arrived(t)
	for _, name := range receivers {
		if count := now[name] - before[name]; count > 0 {
			text += fmt.Sprintf("--- %d frames arrived at %s\n", count, name)
		}
	}
	for _, frame := range n.tapped(t) {
		text += fmt.Sprintf("--- %x\n", frame)
	}
	return text
}

// tapped returns the frames that are waiting at the tap.
func (n *network) tapped(t testing.TB) (frames [][]byte) {
	t.Helper()
	frame := make([]byte, 1<<16)
	for n.tap != nil {
		if ready, err := unix.Poll([]unix.PollFd{{Fd: int32(n.tap.Fd()), Events: unix.POLLIN}}, 0); ready == 0 || err != nil {
			break
		}
		size, err := unix.Read(int(n.tap.Fd()), frame)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, bytes.Clone(frame[:size]))
	}
	return frames
}

// tun returns an error if there are no tun devices.
func tun() error {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	return nil
}

// features returns an error if the kernel does not tell what an interface can do for
// XDP, as before Linux 6.3.
func features() error {
	_, err := xdpFeatures(1)
	return err
}

// twoCPUs returns an error if there is only one CPU.
func twoCPUs() error {
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("one CPU: %w", ebpf.ErrNotSupported)
	}
	return nil
}
