//go:build cgo

package progrun

// cgo reports whether the test binary uses cgo.
const cgo = true
