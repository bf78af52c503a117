// Command verdicts runs a BPF program on every packet of a capture, and prints the
// verdict and the changes for each packet.
//
//	go install github.com/progrun/progrun/examples/verdicts@latest
//	verdicts -object filter.o -pcap traffic.pcap
//
// Without flags it runs an XDP filter of its own on a small capture of its own.
// verdicts -h lists the flags, with examples.
//
// The program may be of any type that takes packets: XDP, sched_cls and
// sched_act, socket filter, cgroup_skb, lwt_*, flow dissector and netfilter.
// It runs for real, but nothing is attached, and no packet leaves the machine
// unless the program clones it with bpf_clone_redirect. A program of an object
// file has maps of its own, which -map and -maps fill.
//
// Packets that could not be run are errors in the list. The exit status is 1 if no
// packet could be run, if something else failed, or if -golden or -against found a
// difference. It is 2 if a flag is wrong.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// trafficCapture is a copy of the repository's testdata/traffic.pcap, which go:embed
// cannot reach from here. The filter is a copy of testdata/xdp_bpfel.o or xdp_bpfeb.o,
// for the same reason. The Makefile there updates the copies.
//
//go:embed traffic.pcap
var trafficCapture []byte

// schema describes what -json and -time print.
//
//go:embed schema.json
var schema string

// filterProgram is the program of filterObject that runs by default.
const filterProgram = "xdp_filter"

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(help)
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "verdicts: %v\nverdicts -h lists the flags, with examples.\n", err)
		os.Exit(2)
	}
	if o.schema {
		fmt.Print(schema)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	err = run(ctx, o)
	if err != nil && !errors.Is(err, errDiffers) {
		fmt.Fprintln(os.Stderr, "verdicts:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) error {
	open, err := o.source()
	if err != nil {
		return err
	}
	c, err := o.capture()
	if err != nil {
		return err
	}
	defer c.close()
	if err := rlimit.RemoveMemlock(); err != nil {
		return permission(err)
	}
	p, err := open()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.consent(o.yes); err != nil {
		return err
	}
	if o.write != "" && !returnsPacket(p.Type()) {
		return fmt.Errorf("-write: %s programs do not return packets", p.Type())
	}
	if o.against != "" {
		return runAgainst(ctx, o, p, c)
	}
	return runList(ctx, o, p, c)
}

// source finds the program, and returns a function that opens it. So mistakes show
// before anything is loaded.
func (o *options) source() (open func() (*program, error), err error) {
	if o.pinned != "" || o.id != 0 {
		return func() (*program, error) { return openLoaded(o.pinned, o.id) }, nil
	}
	obj, err := o.object()
	if err != nil {
		return nil, err
	}
	return func() (*program, error) { return obj.load(o.config) }, nil
}

func (o *options) object() (*object, error) {
	if o.file != "" {
		return openObject(o.file, o.program, o.typ)
	}
	name := o.program
	if name == "" {
		name = filterProgram
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(filterObject))
	if err != nil {
		return nil, err
	}
	return newObject(spec, name, o.typ)
}

func (o *options) capture() (*capture, error) {
	if o.pcap != "" {
		return openCapture(o.pcap)
	}
	c := &capture{name: "traffic.pcap"}
	return c, c.start(bytes.NewReader(trafficCapture))
}
