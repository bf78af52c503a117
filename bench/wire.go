package main

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire is a veth pair between two network namespaces without names, which end with
// the process, whatever happens. The far end drops every frame in a native XDP
// program, without which a veth does not accept XDP frames.
type wire struct {
	near, far int // file descriptors of the namespaces
	ifindex   int // of the near end
	drop      link.Link
}

// newWire makes a wire, and moves the calling thread into the near namespace. The
// goroutine must be locked to the thread for good.
func newWire(drop *ebpf.Program, queues int) (*wire, error) {
	w := new(wire)
	var err error
	if w.far, err = newNetNS(); err != nil {
		return nil, err
	}
	if w.near, err = newNetNS(); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "near", queues, queues
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: "far", PeerNamespace: netlink.NsFd(w.far),
		PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add a veth pair: %w", err)
	}
	if w.ifindex, err = up("near"); err != nil {
		return nil, err
	}
	if _, err := up("lo"); err != nil {
		return nil, err
	}
	err = w.inFar(func() error {
		far, err := up("far")
		if err != nil {
			return err
		}
		w.drop, err = link.AttachXDP(link.XDPOptions{Program: drop, Interface: far, Flags: link.XDPDriverMode})
		return err
	})
	return w, err
}

// newNetNS moves the calling thread into a new network namespace.
func newNetNS() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("make a network namespace: %w", err)
	}
	return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func up(name string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return 0, fmt.Errorf("set %s up: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// inFar runs f in the far namespace.
func (w *wire) inFar(f func() error) error {
	if err := unix.Setns(w.far, unix.CLONE_NEWNET); err != nil {
		return err
	}
	err := f()
	if back := unix.Setns(w.near, unix.CLONE_NEWNET); back != nil {
		return back
	}
	return err
}

// received returns how many frames have reached the far end.
func (w *wire) received() (n uint64, err error) {
	err = w.inFar(func() error {
		l, err := netlink.LinkByName("far")
		if err == nil {
			n = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n, err
}

func (w *wire) close() {
	if w.drop != nil {
		w.drop.Close()
	}
	unix.Close(w.near)
	unix.Close(w.far)
}

// onThread runs f on a thread of its own, which ends with f. It is never the process's
// first thread, which cannot end.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// allowedCPUs returns the CPUs that this process may use.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// pin binds the calling thread to a CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}
