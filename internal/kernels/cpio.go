package main

import (
	"bytes"
	"fmt"
	"path"
)

// A cpio is an archive in the format of the kernel's initial file systems
// ("newc"). It is not compressed, since emulated machines are slow to decompress.
type cpio struct {
	buf  bytes.Buffer
	dirs map[string]bool
}

// The types of a file in the mode of stat.
const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
)

// dir adds a directory, and those above it, unless they are there already.
func (a *cpio) dir(name string) {
	if name == "." || a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	if a.dirs == nil {
		a.dirs = map[string]bool{}
	}
	a.dirs[name] = true
	a.entry(name, cpioDir|0o755, nil)
}

func (a *cpio) file(name string, perm uint32, content []byte) {
	a.entry(name, cpioFile|perm, content)
}

// finish returns the archive with its end mark.
func (a *cpio) finish() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}

func (a *cpio) entry(name string, mode uint32, content []byte) {
	// Magic, inode, mode, owner, group, links, time, size, the device and the
	// device's own number in two parts each, length of the name, checksum.
	a.buf.WriteString("070701")
	for _, field := range []uint32{0, mode, 0, 0, 1, 0, uint32(len(content)), 0, 0, 0, 0, uint32(len(name) + 1), 0} {
		fmt.Fprintf(&a.buf, "%08X", field)
	}
	a.buf.WriteString(name + "\x00")
	a.pad()
	a.buf.Write(content)
	a.pad()
}

func (a *cpio) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}
