//go:build linux && (386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm)

package main

import _ "embed"

// object holds the programs of trafficgen.c for little-endian machines.
//
//go:embed trafficgen_bpfel.o
var object []byte
