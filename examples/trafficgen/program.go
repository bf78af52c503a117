//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// programs holds the programs of trafficgen.c, and the links of those attached.
type programs struct {
	Generate    *ebpf.Program `ebpf:"generate"`
	Replay      *ebpf.Program `ebpf:"replay"`
	Receive     *ebpf.Program `ebpf:"receive"`
	RedirectErr *ebpf.Program `ebpf:"redirect_err"`
	DevmapXmit  *ebpf.Program `ebpf:"devmap_xmit"`
	Generated   *ebpf.Map     `ebpf:"generated"`
	Received    *ebpf.Map     `ebpf:"received"`
	Lost        *ebpf.Map     `ebpf:"lost"`

	links []link.Link
}

// maxSteps is STEPS of trafficgen.c.
const maxSteps = 4

// loadPrograms loads the programs for a load and a path.
func loadPrograms(l *load, p path) (*programs, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, err
	}
	values, err := l.variables()
	if err != nil {
		return nil, err
	}
	values["redirect_to"] = uint32(p.redirectTo())
	for name, v := range values {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	progs := new(programs)
	if err := spec.LoadAndAssign(progs, nil); err != nil {
		return nil, err
	}
	return progs, progs.spread(l.flows())
}

// variables returns the values of the constants of trafficgen.c.
func (l *load) variables() (map[string]any, error) {
	var ns syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &ns); err != nil {
		return nil, err
	}
	v := map[string]any{"tgid": uint32(os.Getpid()), "pidns_dev": uint64(ns.Dev), "pidns_ino": ns.Ino}
	if t := l.template; t != nil {
		var steps [maxSteps]step
		v["n_steps"] = uint32(copy(steps[:], t.steps))
		v["steps"] = steps
		v["ip_checksum"], v["ip_sum"] = t.ipChecksum, t.ipSum
		v["l4_checksum"], v["l4_sum"] = t.l4Checksum, t.l4Sum
	}
	return v, nil
}

// spread makes each CPU begin at a different flow.
func (p *programs) spread(flows uint64) error {
	first := make([]uint64, ebpf.MustPossibleCPU())
	for cpu := range first {
		first[cpu] = flows / uint64(len(first)) * uint64(cpu)
	}
	return p.Generated.Put(uint32(0), first)
}

// watchLoss attaches the programs that count lost frames.
func (p *programs) watchLoss() error {
	for name, prog := range map[string]*ebpf.Program{"xdp_redirect_err": p.RedirectErr, "xdp_devmap_xmit": p.DevmapXmit} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: prog})
		if err != nil {
			return fmt.Errorf("cannot count lost frames: %w", err)
		}
		p.links = append(p.links, l)
	}
	return nil
}

func (p *programs) close() {
	for _, l := range p.links {
		l.Close()
	}
	for _, prog := range []*ebpf.Program{p.Generate, p.Replay, p.Receive, p.RedirectErr, p.DevmapXmit} {
		prog.Close()
	}
	for _, m := range []*ebpf.Map{p.Generated, p.Received, p.Lost} {
		m.Close()
	}
}

// sum returns the sum of a map's entry over all CPUs.
func sum(m *ebpf.Map, key uint32) int64 {
	var perCPU []uint64
	if err := m.Lookup(key, &perCPU); err != nil {
		return 0
	}
	var total uint64
	for _, n := range perCPU {
		total += n
	}
	return int64(total)
}

// settled returns how many frames the far end has counted once no more arrive. The
// veth delivers frames with a delay, the last ones after the run.
func (p *programs) settled(sent int64) int64 {
	const quiet = 200 * time.Millisecond
	n, since := sum(p.Received, 0), time.Now()
	for n < sent && time.Since(since) < quiet {
		time.Sleep(5 * time.Millisecond)
		if now := sum(p.Received, 0); now != n {
			n, since = now, time.Now()
		}
	}
	return n
}

// lost returns how many frames were lost, by reason.
func (p *programs) lost() map[string]int64 {
	reasons := map[string]int64{}
	for errno := range p.Lost.MaxEntries() {
		if n := sum(p.Lost, errno); n > 0 {
			reasons[lossReason(syscall.Errno(errno))] += n
		}
	}
	return reasons
}

// lossReason returns the reason for which a frame was lost, in words.
func lossReason(errno syscall.Errno) string {
	switch {
	case errno == 0:
		return "the target's ring was full, or its peer takes only smaller frames"
	case errors.Is(errno, syscall.ENETDOWN):
		return "the target is down"
	case errors.Is(errno, syscall.EMSGSIZE):
		return "larger than the target's MTU"
	case errors.Is(errno, syscall.EOPNOTSUPP), errors.Is(errno, syscall.ENXIO):
		return "the target takes no XDP frames, or its peer does not"
	case errors.Is(errno, syscall.ENOSPC), errors.Is(errno, syscall.ENOBUFS):
		return "the target had no room"
	}
	return errno.Error()
}
