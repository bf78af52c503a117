//go:build !race

package progruntest

const raceEnabled = false
