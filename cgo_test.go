//go:build cgo

package progrun

// cgo is whether the test binary may call C.
const cgo = true
