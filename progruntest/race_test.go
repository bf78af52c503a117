//go:build race

package progruntest

const raceEnabled = true
