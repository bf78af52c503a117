//go:build mips || mips64 || ppc64 || s390x

package main

import _ "embed"

// filterObject is the filter for big-endian machines.
//
//go:embed filter_bpfeb.o
var filterObject []byte
