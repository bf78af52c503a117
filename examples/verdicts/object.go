package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

// programTypes has the names of -type. A section whose name is or begins with one of
// them has that type.
var programTypes = map[string]ebpf.ProgramType{
	"xdp": ebpf.XDP, "xdp.frags": ebpf.XDP, "tc": ebpf.SchedCLS, "action": ebpf.SchedACT, "socket": ebpf.SocketFilter,
	"cgroup_skb": ebpf.CGroupSKB, "lwt_in": ebpf.LWTIn, "lwt_out": ebpf.LWTOut, "lwt_xmit": ebpf.LWTXmit,
	"lwt_seg6local": ebpf.LWTSeg6Local, "flow_dissector": ebpf.FlowDissector, "netfilter": ebpf.Netfilter,
}

// takesPacket reports whether programs of a type take packets.
func takesPacket(t ebpf.ProgramType) bool {
	for _, packet := range programTypes {
		if t == packet {
			return true
		}
	}
	return false
}

// returnsPacket reports whether the packet comes back from programs of a type.
func returnsPacket(t ebpf.ProgramType) bool { return t != ebpf.FlowDissector && t != ebpf.Netfilter }

// object is a program of an object file.
type object struct {
	spec *ebpf.CollectionSpec
	name string // name of the program
	// optional lets a config name maps and variables that the program does not use.
	optional bool
}

// openObject reads an object file and finds the program to run in it.
func openObject(file, program, typ string) (*object, error) {
	spec, err := readObject(file)
	if err != nil {
		return nil, err
	}
	return newObject(spec, program, typ)
}

func readObject(file string) (*ebpf.CollectionSpec, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if n, _ := f.ReadAt(magic, 0); !bytes.Equal(magic[:n], []byte("\x7fELF")) {
		return nil, fmt.Errorf("%s is no BPF object file: it does not begin as an ELF file does", file)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s is no BPF object file that can be read: %w", file, ended(err))
	}
	if (spec.ByteOrder == binary.LittleEndian) != littleEndian {
		return nil, fmt.Errorf("%s is for machines of the other byte order, %s", file, spec.ByteOrder)
	}
	return spec, nil
}

func newObject(spec *ebpf.CollectionSpec, program, typ string) (*object, error) {
	if typ != "" {
		if err := setType(spec, program, typ); err != nil {
			return nil, err
		}
	}
	name, err := choose(spec, program)
	if err != nil {
		return nil, err
	}
	return &object{spec: spec, name: name}, nil
}

// setType sets the type of the program of that name, or of all programs whose section
// does not tell.
func setType(spec *ebpf.CollectionSpec, name, typ string) error {
	t, ok := programTypes[typ]
	if !ok {
		return fmt.Errorf("-type %s: the types are %s", typ, strings.Join(slices.Sorted(maps.Keys(programTypes)), ", "))
	}
	for n, p := range spec.Programs {
		if n != name && (name != "" || p.Type != ebpf.UnspecifiedProgram) {
			continue
		}
		p.Type, p.AttachType = t, attachType(t)
		if typ == "xdp.frags" {
			p.Flags |= unix.BPF_F_XDP_HAS_FRAGS
		}
	}
	return nil
}

// attachType returns the default attach type of programs of a type.
func attachType(t ebpf.ProgramType) ebpf.AttachType {
	if t == ebpf.Netfilter {
		return ebpf.AttachNetfilter
	}
	return ebpf.AttachNone
}

// choose finds the program to run: the one of that name, or the only one.
func choose(spec *ebpf.CollectionSpec, name string) (string, error) {
	names, has := candidates(spec)
	p := spec.Programs[name]
	switch {
	case slices.Contains(names, name):
		return name, nil
	case p != nil && p.Type == ebpf.UnspecifiedProgram:
		return "", fmt.Errorf("%s is in the section %q, which does not tell its type: give it with -type, such as -type xdp", name, p.SectionName)
	case p != nil:
		return "", fmt.Errorf("%s is a %s program, which takes no packets; %s", name, p.Type, has)
	case name != "":
		return "", fmt.Errorf("there is no program %s; %s", name, has)
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", errors.New(has)
	}
	return "", fmt.Errorf("choose a program with -program: %s", has)
}

// candidates returns the programs that take packets, and a sentence that lists them.
func candidates(spec *ebpf.CollectionSpec) (names []string, has string) {
	var list, unknown, others []string
	for _, n := range slices.Sorted(maps.Keys(spec.Programs)) {
		switch p := spec.Programs[n]; {
		case p.Type == ebpf.UnspecifiedProgram:
			unknown = append(unknown, fmt.Sprintf("%s (section %q)", n, p.SectionName))
		case takesPacket(p.Type):
			names = append(names, n)
			list = append(list, fmt.Sprintf("%s (%s)", n, p.Type))
		case !slices.Contains(others, p.Type.String()):
			others = append(others, p.Type.String())
		}
	}
	switch {
	case len(list) > 0:
		return names, "the object has " + strings.Join(list, ", ")
	case len(unknown) > 0:
		return nil, "the sections do not tell the types of " + strings.Join(unknown, ", ") + ": give it with -type, such as -type xdp"
	case len(others) > 0:
		return nil, "none of the object's programs takes packets: they are of the type " + strings.Join(others, ", ")
	}
	return nil, "the object has no programs"
}

// load loads the program and what it refers to, and fills maps as cfg says. It pins and
// attaches nothing.
func (o *object) load(cfg config) (*program, error) {
	spec := o.spec.Copy()
	if err := cfg.prepare(spec); err != nil {
		return nil, err
	}
	prune(spec, o.name)
	if err := cfg.check(spec, o.name); err != nil && !o.optional {
		return nil, err
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone // this machine may use a pinned map of that name
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, refused(spec.Programs[o.name], err)
	}
	if err := cfg.fill(spec, coll); err != nil {
		coll.Close()
		return nil, err
	}
	p := spec.Programs[o.name]
	return &program{Program: coll.Programs[o.name], name: o.name, attach: p.AttachType, own: true, danger: danger(p), close: coll.Close}, nil
}

// danger returns what a run of a program could do to the kernel, or "".
func danger(p *ebpf.ProgramSpec) string {
	for _, ins := range p.Instructions {
		if p.Type == ebpf.LWTXmit && ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == asm.FnLwtPushEncap {
			return "calls bpf_lwt_push_encap, which crashes kernels before 7.1 that have no backport of the commit 972787479ee7"
		}
	}
	return ""
}

// prune removes from spec what the program of that name does not refer to.
func prune(spec *ebpf.CollectionSpec, name string) {
	r := references{spec: spec, programs: map[string]bool{}, maps: map[string]bool{}}
	r.program(name)
	maps.DeleteFunc(spec.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return !r.programs[n] })
	maps.DeleteFunc(spec.Maps, func(n string, _ *ebpf.MapSpec) bool { return !r.maps[n] })
	maps.DeleteFunc(spec.Variables, func(_ string, v *ebpf.VariableSpec) bool { return !r.maps[v.SectionName] })
}

// references has what a program refers to, directly or not.
type references struct {
	spec           *ebpf.CollectionSpec
	programs, maps map[string]bool
}

func (r *references) program(name string) {
	p := r.spec.Programs[name]
	if p == nil || r.programs[name] {
		return
	}
	r.programs[name] = true
	for _, ins := range p.Instructions {
		if ins.IsLoadFromMap() {
			r.mapSpec(ins.Reference())
		}
	}
}

// mapSpec follows a map to the maps and programs that it holds from the start.
func (r *references) mapSpec(name string) {
	m := r.spec.Maps[name]
	if m == nil || r.maps[name] {
		return
	}
	r.maps[name] = true
	for _, entry := range m.Contents {
		if held, ok := entry.Value.(string); ok {
			r.program(held)
			r.mapSpec(held)
		}
	}
}

// refused returns the error of a load, with what the kernel lacks or the end of what the
// verifier said.
func refused(p *ebpf.ProgramSpec, err error) error {
	var v *ebpf.VerifierError
	switch {
	case errors.As(err, &v) && len(v.Log) > 0:
		return fmt.Errorf("%s%-20v", strings.TrimSuffix(err.Error(), v.Error()), v)
	case errors.Is(features.HaveProgramType(p.Type), ebpf.ErrNotSupported):
		return fmt.Errorf("this kernel has no %s programs: %w", p.Type, err)
	case p.Flags&unix.BPF_F_XDP_HAS_FRAGS != 0 && errors.Is(progrun.HaveXDPMultiBuffer(), ebpf.ErrNotSupported):
		return fmt.Errorf("this kernel has no XDP programs that see fragments (xdp.frags): %w", err)
	}
	return permission(err)
}

// permission returns err, or a clearer error if the process may not load programs.
func permission(err error) error {
	if os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
		return errors.New("loading a BPF program takes root, or CAP_BPF together with CAP_NET_ADMIN")
	}
	return err
}
