//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64 || wasm

package main

import _ "embed"

// filterObject is the filter for little-endian machines.
//
//go:embed filter_bpfel.o
var filterObject []byte
