package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// options holds the values of the flags.
type options struct {
	file, program, typ string // an object file, a program of it, and its type
	pinned             string // path of a pinned program
	id                 uint
	yes                bool
	config             config

	pcap, write     string
	only            string
	context, json   bool
	golden, against string
	time, schema    bool
}

const help = `verdicts runs a BPF program on every packet of a capture and prints what it made of each.

    verdicts                                       a filter and a capture that are part of the command
    verdicts -object filter.o -pcap traffic.pcap   your own
    verdicts -object lb.o -program balancer -maps config.json -pcap traffic.pcap.gz
    tcpdump -i eth0 -w - | verdicts -object filter.o -pcap - -only XDP_DROP
    verdicts -pinned /sys/fs/bpf/filter -pcap traffic.pcap -yes
    verdicts -object filter.o -pcap traffic.pcap -json > golden.json
    verdicts -object filter.o -pcap traffic.pcap -golden golden.json
    verdicts -object new.o -pcap traffic.pcap -against old.o

The program, of any type that takes packets (XDP, tc, socket filter, cgroup_skb, lwt, flow dissector, netfilter):
  -object FILE      a BPF object file; the program in it is loaded, with maps of its own
  -program NAME     the program in the object file; not needed if only one takes packets
  -type TYPE        its type, if the name of its section does not tell: xdp, xdp.frags, tc, action, socket,
                    cgroup_skb, lwt_in, lwt_out, lwt_xmit, lwt_seg6local, flow_dissector, netfilter
  -map NAME=FILE    fills a map, or sets a variable, from a JSON file; may be given many times
  -maps FILE        fills several maps from one JSON file: {"NAME": contents, ...}
  -pinned PATH      a loaded program that is pinned at PATH; it runs with the maps that it has
  -id N             a loaded program with this ID (bpftool prog); it runs with the maps that it has
  -yes              lets a loaded program change its maps, and runs a program that may crash the kernel

The packets:
  -pcap FILE        a pcap or pcapng file, which gzip may have compressed; - is standard input. Raw IP, Linux cooked,
                    loopback and PPP packets get an Ethernet header
  -only VERDICT     prints and writes only packets with this verdict, such as XDP_DROP or drop; commas separate
                    several; "error" stands for packets that could not be run

What is printed:
  -context          in the list, also the context as the program left it
  -json             a line of JSON for each packet
  -golden FILE      the differences from the results of an earlier -json, field by field; exit status 1 if any
  -against OBJECT[:PROGRAM]
                    the differences from the results of another program; exit status 1 if any
  -time             only the times of runs, as JSON
  -schema           only the JSON Schema of what -json and -time print
  -write FILE       also writes the packets as the program left them to a capture; - is standard output

The contents of a map are a list of {"key": ..., "value": ...}, as bpftool -j map dump prints it, or an object
{"key": value, ...}, in which "0-9" stands for all keys from 0 to 9. A value is a number, an object with the names of
C's fields, a list, or text: "192.0.2.1", "2001:db8::1", "10.0.0.0/8" for an LPM trie, "02:00:00:00:00:01",
"htons(80)", a name of an enum, or "0x..." for the bytes of a struct. In a map of maps it is the contents of a map.
In a program array it is the name of a program.
`

func parse(args []string) (*options, error) {
	o := &options{}
	f := o.flags()
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return o, o.check(given)
}

// flags returns the flags that the help describes.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("verdicts", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.file, "object", "", "")
	f.StringVar(&o.program, "program", "", "")
	f.StringVar(&o.typ, "type", "", "")
	f.StringVar(&o.pinned, "pinned", "", "")
	f.UintVar(&o.id, "id", 0, "")
	f.BoolVar(&o.yes, "yes", false, "")
	f.Var(mapFlag{&o.config}, "map", "")
	f.Var(mapsFlag{&o.config}, "maps", "")
	f.StringVar(&o.pcap, "pcap", "", "")
	f.StringVar(&o.write, "write", "", "")
	f.StringVar(&o.only, "only", "", "")
	f.BoolVar(&o.context, "context", false, "")
	f.BoolVar(&o.json, "json", false, "")
	f.StringVar(&o.golden, "golden", "", "")
	f.StringVar(&o.against, "against", "", "")
	f.BoolVar(&o.time, "time", false, "")
	f.BoolVar(&o.schema, "schema", false, "")
	return f
}

// exclusive lists sets of flags. At most one flag of a set can be given.
var exclusive = [][]string{
	{"object", "pinned", "id"},
	{"json", "golden", "against", "time"},
	{"only", "golden"}, {"only", "against"}, {"only", "time"},
	{"write", "against"},
}

func (o *options) check(given map[string]bool) error {
	if o.schema && len(given) > 1 {
		return errors.New("-schema takes no other flags")
	}
	for _, flags := range exclusive {
		both := slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return !given[f] })
		if len(both) > 1 {
			return fmt.Errorf("-%s and -%s do not go together", both[0], both[1])
		}
	}
	if o.json && o.write == "-" || o.time && o.write == "-" {
		return errors.New("-write - takes standard output, and -json and -time do too")
	}
	if given["pinned"] || given["id"] {
		for _, f := range []string{"program", "type", "map", "maps"} {
			if given[f] {
				return fmt.Errorf("-%s is for object files, not for a program that is loaded", f)
			}
		}
	}
	if given["id"] && o.id == 0 {
		return errors.New("-id 0: IDs begin with 1")
	}
	return nil
}

// wants reports whether -only asks for an outcome.
func (o *options) wants(out *outcome) bool {
	if o.only == "" {
		return true
	}
	name := "error"
	if out.err == nil {
		name = out.res.Verdict.String()
	}
	for want := range strings.SplitSeq(o.only, ",") {
		if matches(name, strings.TrimSpace(want)) {
			return true
		}
	}
	return false
}

// matches reports whether want is the name of a verdict, its end after an underscore, or
// its first word.
func matches(name, want string) bool {
	first, _, _ := strings.Cut(name, " ")
	if strings.EqualFold(name, want) || strings.EqualFold(first, want) {
		return true
	}
	i := len(name) - len(want) - 1
	return i > 0 && name[i] == '_' && strings.EqualFold(name[i+1:], want)
}
