//go:build linux

package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rate is a number of frames or bits a second.
type rate struct {
	frames int64
	bits   float64
}

// of returns the rate in frames a second, for frames of a size in bytes.
func (r rate) of(size float64) int {
	if r.bits > 0 {
		return int(max(1, math.Round(r.bits/(8*size))))
	}
	return int(r.frames)
}

// parseRate parses a rate in frames, such as 1M or 1Mpps, or in bits, such as 10Gbit,
// 10Gbit/s or 10Gbps.
func parseRate(s string) (rate, error) {
	text := strings.TrimSuffix(strings.ToLower(s), "/s")
	for _, unit := range []string{"bit", "bps"} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			return parseBits(number)
		}
	}
	n, err := parseCount(strings.TrimSuffix(text, "pps"))
	if err == nil && n > 1e9 {
		err = fmt.Errorf("%s is more than 1,000,000,000 frames a second", s)
	}
	return rate{frames: n}, err
}

func parseBits(number string) (rate, error) {
	bits, err := parseNumber(number)
	if err == nil && bits <= 0 {
		err = fmt.Errorf("a rate in bits must be more than 0, not %s", number)
	}
	return rate{bits: bits}, err
}

// parseNumber parses a number as people write it: 1000000, 1e6, 1M, 1.5G.
func parseNumber(s string) (float64, error) {
	digits, factor := strings.TrimSpace(s), 1.0
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("kmgt", digits[n-1]|0x20); i >= 0 {
			digits, factor = digits[:n-1], math.Pow(1000, float64(i+1))
		}
	}
	x, err := strconv.ParseFloat(strings.ReplaceAll(digits, ",", ""), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("%q is not a number such as 1000000, 1e6 or 1M", s)
	}
	return x * factor, nil
}

// parseCount parses a whole number that is not negative.
func parseCount(s string) (int64, error) {
	x, err := parseNumber(s)
	switch {
	case err != nil:
		return 0, err
	case x < 0:
		return 0, fmt.Errorf("%s is negative", s)
	case x != math.Trunc(x) || x >= 1<<63:
		return 0, fmt.Errorf("%s is not a whole number", s)
	}
	return int64(x), nil
}

// parseInt parses a small number that is not negative.
func parseInt(s string) (int, error) {
	n, err := parseCount(s)
	if err == nil && n > math.MaxInt32 {
		err = fmt.Errorf("%s is too large", s)
	}
	return int(n), err
}

// parseDuration parses a duration, in seconds if it has no unit.
func parseDuration(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(seconds) < 1e9 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 5, 1m or 500ms", s)
	}
	return d, nil
}

// parseCPUs parses a list of CPUs and ranges of CPUs, such as 0-3,6.
func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(low, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || last < first {
			return nil, fmt.Errorf("%q is neither a CPU nor a range of CPUs such as 0-3", part)
		}
		for cpu := int(first); cpu <= int(last); cpu++ {
			if slices.Contains(cpus, cpu) {
				return nil, fmt.Errorf("CPU %d is listed twice", cpu)
			}
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// parseMAC parses a MAC address of an Ethernet.
func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("%q is not a MAC address such as 02:00:00:00:00:02", s)
	}
	return mac, nil
}

// addrRange is a range of consecutive addresses.
type addrRange struct {
	first netip.Addr
	count uint32
}

// parseAddrRange parses an address, a prefix, or a range of addresses that differ at
// most in the last 32 bits.
func parseAddrRange(s string) (addrRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return prefixRange(prefix)
	}
	first, err := netip.ParseAddr(low)
	last := first
	if err == nil && isRange {
		last, err = netip.ParseAddr(high)
	}
	if err != nil || first.Zone() != "" || first.Is4In6() {
		return addrRange{}, fmt.Errorf("%q is neither an address nor a range such as 10.0.0.1-10.0.0.9 or 10.0.0.0/24", s)
	}
	if first.BitLen() != last.BitLen() || last.Less(first) || high32(first) != high32(last) || low32(last)-low32(first) == math.MaxUint32 {
		return addrRange{}, fmt.Errorf("%q is not a range of less than 2^32 addresses that differ in their last 32 bits", s)
	}
	return addrRange{first, low32(last) - low32(first) + 1}, nil
}

func prefixRange(p netip.Prefix) (addrRange, error) {
	host := p.Addr().BitLen() - p.Bits()
	if host > 31 {
		return addrRange{}, fmt.Errorf("%v has more than 2^31 addresses", p)
	}
	return addrRange{p.Masked().Addr(), 1 << host}, nil
}

// low32 returns the last 32 bits of an address.
func low32(a netip.Addr) uint32 {
	b := a.AsSlice()
	b = b[len(b)-4:]
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// high32 returns all but the last 32 bits.
func high32(a netip.Addr) string {
	b := a.AsSlice()
	return string(b[:len(b)-4])
}

// portRange is a range of consecutive ports.
type portRange struct{ first, count uint32 }

func parsePortRange(s string) (portRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	first, err := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
	last := first
	if err == nil && isRange {
		last, err = strconv.ParseUint(strings.TrimSpace(high), 10, 16)
	}
	if err != nil || last < first {
		return portRange{}, fmt.Errorf("%q is neither a port nor a range of ports such as 1024-2047", s)
	}
	return portRange{uint32(first), uint32(last - first + 1)}, nil
}
