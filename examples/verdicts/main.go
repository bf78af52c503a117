// Command verdicts runs a BPF program on every packet of a capture and prints
// what the program made of each: its verdict, and what it changed.
//
//	go run -C examples ./verdicts [-object file] [-program name] [-pcap file]
//
// Without flags it runs an XDP filter on a small capture; both are part of the
// command. The flags name a BPF object file, one of its programs, and a pcap
// or pcapng file of Ethernet frames instead. Relative names count from the
// directory that the command runs in, which under go run -C is examples.
//
// The program may be of any type that takes packets: XDP, sched_cls and
// sched_act, socket filter, cgroup_skb, lwt_*, flow dissector and netfilter.
// It runs for real, with maps of its own, but nothing is attached, and no
// packet leaves the machine unless the program clones it with
// bpf_clone_redirect.
//
// Packets that could not be run are errors in the list. The exit status is 1
// if that is true of all, or if something else failed.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// trafficCapture is testdata/traffic.pcap of the repository, which go:embed cannot
// reach from here. Nor can it reach testdata/xdp_bpfel.o and xdp_bpfeb.o: the
// filter is one of these. The Makefile there renews the copies.
//
//go:embed traffic.pcap
var trafficCapture []byte

// filterProgram is the program of filterObject that runs by default.
const filterProgram = "xdp_filter"

type options struct {
	object, program, pcap string
}

func main() {
	var o options
	flag.StringVar(&o.object, "object", "", "BPF object `file` (default: a filter that is part of this command)")
	flag.StringVar(&o.program, "program", "", "`name` of the program; may be left out if only one in the object takes packets")
	flag.StringVar(&o.pcap, "pcap", "", "pcap or pcapng `file` (default: a capture that is part of this command)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "verdicts: unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "verdicts:", err)
		os.Exit(1)
	}
}

func run(o options, w io.Writer) error {
	spec, err := o.spec()
	if err != nil {
		return err
	}
	name, err := choose(spec, o.program)
	if err != nil {
		return err
	}
	frames, err := o.capture()
	if err != nil {
		return err
	}
	defer frames.close()

	if err := rlimit.RemoveMemlock(); err != nil {
		return permission(err)
	}
	coll, err := load(spec, name)
	if err != nil {
		return permission(err)
	}
	defer coll.Close()
	prog := coll.Programs[name]
	fmt.Fprintf(w, "%s (%s) on %s\n\n", name, prog.Type(), frames.name)
	return judge(w, prog, spec.Programs[name].AttachType, frames)
}

func (o *options) spec() (*ebpf.CollectionSpec, error) {
	if o.object != "" {
		return ebpf.LoadCollectionSpec(o.object)
	}
	if o.program == "" {
		o.program = filterProgram
	}
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(filterObject))
}

func (o *options) capture() (*capture, error) {
	if o.pcap != "" {
		return openCapture(o.pcap)
	}
	return newCapture("traffic.pcap", bytes.NewReader(trafficCapture))
}

// permission puts in words that the process is not allowed to load programs.
func permission(err error) error {
	if os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
		return errors.New("loading a BPF program takes root, or CAP_BPF together with CAP_NET_ADMIN")
	}
	return err
}
