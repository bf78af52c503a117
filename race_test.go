//go:build race

package progrun

const raceEnabled = true
