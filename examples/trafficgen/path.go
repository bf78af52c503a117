//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// path is where frames go: out of existing interfaces, or over a wire of the
// command's own.
type path interface {
	// limit returns the size of the largest frame that can arrive.
	limit() limit
	// open makes what the path needs for frames of up to size bytes. receive counts
	// what arrives at the far end of a wire.
	open(queues, size int, receive *ebpf.Program) error
	close() error

	// namespace returns the namespace of the interfaces, or 0 for the thread's own.
	namespace() int
	// entry returns the interface on which frames seem to arrive.
	entry() int
	// redirectTo returns the interface to which they are redirected, or 0.
	redirectTo() int
	// macs returns the addresses of the two ends, as far as they are known.
	macs() (src, dst net.HardwareAddr)
	String() string
}

// path finds the interfaces that the flags name. It returns an error if no frame
// could leave by them.
func (o *options) path() (path, error) {
	if o.iface == "" && o.redirect == "" {
		return new(wire), nil
	}
	t := &target{}
	if o.netns != "" {
		ns, err := openNetNS(o.netns)
		if err != nil {
			return nil, err
		}
		t.ns = ns
	}
	err := t.inside(func() error { return t.find(o) })
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openNetNS opens a network namespace by its name or path.
func openNetNS(name string) (*os.File, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join("/run/netns", name)
	}
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("no network namespace %s: %w", name, err)
	}
	return ns, nil
}
