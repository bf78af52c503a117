//go:build !cgo

package progrun

const cgo = false
