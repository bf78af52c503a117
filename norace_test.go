//go:build !race

package progrun

const raceEnabled = false
