//go:build linux && (mips || mips64 || ppc64 || s390x)

package main

import _ "embed"

// object holds the programs of trafficgen.c for big-endian machines.
//
//go:embed trafficgen_bpfeb.o
var object []byte
