package carrier

import "golang.org/x/sys/unix"

func mapMemory(fd, size int) ([]byte, error) {
	return unix.Mmap(fd, 0, roundUp(size, unix.Getpagesize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func unmapMemory(mem []byte) error {
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
