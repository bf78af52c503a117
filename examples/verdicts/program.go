package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// takesPackets are the types of programs for which there is a request with a
// packet.
var takesPackets = []ebpf.ProgramType{
	ebpf.XDP, ebpf.SchedCLS, ebpf.SchedACT, ebpf.SocketFilter, ebpf.CGroupSKB,
	ebpf.LWTIn, ebpf.LWTOut, ebpf.LWTXmit, ebpf.LWTSeg6Local, ebpf.FlowDissector, ebpf.Netfilter,
}

// choose finds the program to run: the one of that name, or the only one.
func choose(spec *ebpf.CollectionSpec, name string) (string, error) {
	var names, list []string
	for _, n := range slices.Sorted(maps.Keys(spec.Programs)) {
		if t := spec.Programs[n].Type; slices.Contains(takesPackets, t) {
			names = append(names, n)
			list = append(list, fmt.Sprintf("%s (%s)", n, t))
		}
	}
	has := "none of the object's programs takes packets"
	if len(list) > 0 {
		has = "the object has " + strings.Join(list, ", ")
	}
	switch {
	case slices.Contains(names, name):
		return name, nil
	case name != "" && spec.Programs[name] != nil:
		return "", fmt.Errorf("%s is a %s program, which takes no packets; %s", name, spec.Programs[name].Type, has)
	case name != "":
		return "", fmt.Errorf("there is no program %s; %s", name, has)
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", errors.New(has)
	}
	return "", fmt.Errorf("choose a program with -program: %s", has)
}

// load loads the program and all maps, with nothing pinned and nothing
// attached.
func load(spec *ebpf.CollectionSpec, name string) (*ebpf.Collection, error) {
	spec = spec.Copy()
	keep := map[string]bool{name: true}
	for n, m := range spec.Maps {
		m.Pinning = ebpf.PinNone // maps of that name may be in use on this machine
		switch m.Type {
		case ebpf.StructOpsMap: // would take effect by being loaded
			delete(spec.Maps, n)
		case ebpf.ProgramArray: // may hold the programs of tail calls, by name
			for _, entry := range m.Contents {
				if called, ok := entry.Value.(string); ok {
					keep[called] = true
				}
			}
		}
	}
	maps.DeleteFunc(spec.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return !keep[n] })
	return ebpf.NewCollection(spec)
}
