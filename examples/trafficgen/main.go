//go:build linux

// Command trafficgen sends frames as live frames of an XDP program, and tells
// what became of them.
//
//	go run -C examples ./trafficgen [flags]
//
// Without -i it makes a veth pair between two network namespaces of its own,
// counts at the far end what arrives, and removes the pair in the end, also on
// Ctrl-C. Nothing has a name that others could see, so nothing is left even of a
// command that was killed. With -i or -redirect it sends out of an interface
// that exists; before it starts, it refuses where nothing could arrive.
//
// The frames are of one packet, described by flags, whose addresses and ports
// can step through ranges, or those of a capture. The programs are those of
// trafficgen.c. The run ends after -duration, -frames or -loops, whichever is
// first, or on Ctrl-C, and none of these is an error: the totals tell. While it
// lasts, a line shows how far it is, in which the far end may be some
// milliseconds ahead: frames count as sent when the call of the kernel that
// sends them is over.
//
// With -json it prints an object for each second and one for the totals; see
// line in report.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/cilium/ebpf/rlimit"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

func main() {
	o, err := parse(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintf(os.Stderr, "trafficgen: %v (trafficgen -h lists the flags)\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends the process
	if err := run(ctx, o, os.Stdout, isTerminal(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "trafficgen:", err)
		os.Exit(1)
	}
}

// run sends what o asks for. It makes nothing before all of o is known to be
// right.
func run(ctx context.Context, o options, out io.Writer, terminal bool) (err error) {
	if err := progrun.HaveXDPLiveFrames(); err != nil {
		return permission(err)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return permission(err)
	}
	p, err := o.path()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	load, err := o.load(p)
	if err != nil {
		return err
	}
	if err := p.lookAhead(load.largest()); err != nil {
		return err
	}
	progs, err := loadPrograms(load, p)
	if err != nil {
		return permission(err)
	}
	defer progs.close()
	s := sender{options: o, load: load, path: p, programs: progs}
	if err := s.rehearse(); err != nil {
		return permission(err)
	}
	if err := p.open(max(1, len(o.cpus)), load.largest(), progs.Receive); err != nil {
		return permission(err)
	}
	if err := progs.watchLoss(); err != nil {
		return permission(err)
	}
	return s.send(ctx, newReport(out, terminal, &s))
}

// permission puts in words that the process is not allowed to do its work.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("network namespaces and BPF programs take root, or CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF: %w", err)
	}
	return err
}
