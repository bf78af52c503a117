//go:build !linux

package carrier

import "github.com/cilium/ebpf"

func mapMemory(fd, size int) ([]byte, error) { return nil, ebpf.ErrNotSupported }

func unmapMemory([]byte) error { return nil }
