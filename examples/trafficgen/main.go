//go:build linux

// Command trafficgen sends frames as live frames of an XDP program, and reports what
// became of them.
//
//	go install github.com/progrun/progrun/examples/trafficgen@latest
//	trafficgen -cpus 0,1 -duration 3s
//
// Without -i and -redirect it makes a veth pair between two network namespaces of its
// own, counts what arrives at the far end, and removes the pair when it ends, also on
// Ctrl-C. The namespaces have no names, so even a killed command leaves nothing behind.
// With -i or -redirect it sends out of an existing interface. It makes nothing before it
// has checked all flags, and refuses to start if no frame could arrive.
//
// The frames are copies of one packet, which flags describe and whose addresses and
// ports can step through ranges, or the packets of a capture. The XDP programs are
// those of trafficgen.c. The run ends after -duration, -frames or -loops, whichever
// comes first, or on Ctrl-C. None of these is an error. Meanwhile a line shows the
// progress. The far end may be some milliseconds ahead in it, since frames count as
// sent only when the kernel's call that sends them returns.
//
// trafficgen -h lists the flags, with examples, and describes the output of -json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

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

// run sends what o asks for.
func run(ctx context.Context, o options, out io.Writer, terminal bool) (err error) {
	s, err := prepare(o)
	if err != nil {
		return permission(err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.send(ctx, newReport(out, terminal, s))
}

// permission adds to an error of missing privilege what the command needs.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("network namespaces and BPF programs take root, or CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF: %w", err)
	}
	return err
}
