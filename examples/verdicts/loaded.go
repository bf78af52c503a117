package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// openLoaded opens a program that is loaded, by its pin or its ID.
func openLoaded(pinned string, id uint) (*program, error) {
	what := fmt.Sprintf("program %d", id)
	open := func() (*ebpf.Program, error) { return ebpf.NewProgramFromID(ebpf.ProgramID(id)) }
	if pinned != "" {
		what = pinned
		open = func() (*ebpf.Program, error) { return ebpf.LoadPinnedProgram(pinned, nil) }
	}
	prog, err := open()
	switch {
	case errors.Is(err, os.ErrNotExist) && pinned == "":
		return nil, fmt.Errorf("no program with the ID %d is loaded: bpftool prog lists those that are", id)
	case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0:
		return nil, fmt.Errorf("%s: opening a loaded program takes root, or CAP_BPF together with CAP_SYS_ADMIN", what)
	case errors.Is(err, os.ErrPermission) && pinned != "":
		return nil, fmt.Errorf("%s is no pinned program, which is a file in a BPF file system", pinned)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	p := &program{Program: prog, name: what, attach: attachType(prog.Type()), close: func() { prog.Close() }}
	if info, err := prog.Info(); err == nil && info.Name != "" {
		p.name = info.Name
	}
	if !takesPacket(prog.Type()) {
		prog.Close()
		return nil, fmt.Errorf("%s is a %s program, which takes no packets", p.name, prog.Type())
	}
	return p, nil
}

// consent refuses to run a program that could crash the kernel, or that others may use,
// unless a flag allows it. A program that cannot change any map is allowed.
func (p *program) consent(yes bool) error {
	switch {
	case yes:
		return nil
	case p.danger != "":
		return fmt.Errorf("%s %s: give -yes to run it, but better in a virtual machine", p.name, p.danger)
	case p.own:
		return nil
	}
	info, err := p.Info()
	if err != nil {
		return err
	}
	ids, ok := info.MapIDs()
	if !ok {
		return fmt.Errorf("%s runs with the maps that it has, and this kernel does not tell which: give -yes if it may change them", p.name)
	}
	if names := writable(ids); len(names) > 0 {
		return fmt.Errorf("%s runs with the maps that it has, and may change them (%s), as it does in use: give -yes to allow that",
			p.name, strings.Join(names, ", "))
	}
	return nil
}

// writable returns the names of the maps that programs can write to.
func writable(ids []ebpf.MapID) (names []string) {
	for _, id := range ids {
		name := fmt.Sprintf("map %d", id)
		if m, err := ebpf.NewMapFromID(id); err == nil {
			info, err := m.Info()
			m.Close()
			if err == nil && info.Flags&unix.BPF_F_RDONLY_PROG != 0 {
				continue
			}
			if err == nil && info.Name != "" {
				name = info.Name
			}
		}
		names = append(names, name)
	}
	return names
}
