package progrun

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetfilter(t *testing.T) {
	v4, v6 := udp4(somewhere, 53, 1, 2, 3), udp6(53, 1, 2, 3)
	for _, c := range []struct {
		name string
		req  Netfilter
		want NFVerdict
		hook NFHook
		pf   NFFamily
	}{
		{"IPv4", Netfilter{Packet: v4}, NFAccept, NFPreRouting, NFIPv4},
		{"IPv4 to a socket", Netfilter{Packet: v4, Hook: NFLocalIn}, NFDrop, NFLocalIn, NFIPv4},
		{"IPv4, forwarded", Netfilter{Packet: v4, Hook: NFForward}, NFAccept, NFForward, NFIPv4},
		{"IPv4 from a socket begins with its IP header", Netfilter{Packet: v4[14:], Hook: NFLocalOut}, NFAccept, NFLocalOut, NFIPv4},
		{"IPv4 on its way out", Netfilter{Packet: v4, Hook: NFPostRouting}, NFAccept, NFPostRouting, NFIPv4},
		{"IPv4 of choice", Netfilter{Packet: v4, Family: NFIPv4}, NFAccept, NFPreRouting, NFIPv4},
		{"IPv6", Netfilter{Packet: v6}, NFDrop, NFPreRouting, NFIPv6},
		{"IPv6 of choice", Netfilter{Packet: v6, Family: NFIPv6, Hook: NFForward}, NFDrop, NFForward, NFIPv6},
		{"IPv6 from a socket", Netfilter{Packet: v6[14:], Hook: NFLocalOut}, NFDrop, NFLocalOut, NFIPv6},
		{"from a socket the family is the caller's choice", Netfilter{Packet: v4[14:], Hook: NFLocalOut, Family: NFIPv6}, NFDrop, NFLocalOut, NFIPv6},
		{"the shortest packet", Netfilter{Packet: v4[14:34], Hook: NFLocalOut}, NFAccept, NFLocalOut, NFIPv4},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, "netfilter", "netfilter_hook")
			res, err := c.req.Run(o.Program)
			if err != nil || res.Verdict != c.want {
				t.Fatalf("got %s, %v, want %s", res.Verdict, err, c.want)
			}
			n := len(c.req.Packet)
			if c.hook != NFLocalOut {
				n -= ethHLen
			}
			for i, want := range []int{int(c.hook), int(c.pf), n} {
				if got := get[uint32](t, o, "seen", uint32(i)); int(got) != want {
					t.Errorf("the program saw %s %d, want %d", []string{"hook", "pf", "len"}[i], got, want)
				}
			}
			if n := runs(t, o); n != 1 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}

func TestNetfilterRepeat(t *testing.T) {
	o := load(t, "netfilter", "netfilter_hook")
	res, err := Netfilter{Packet: udp4(somewhere, 53), Repeat: 1000}.Run(o.Program)
	if err != nil || res.PerRun <= 0 || res.Verdict != NFAccept {
		t.Errorf("got %+v, %v", res, err)
	}
	if n := runs(t, o); n != 1000 {
		t.Errorf("ran %d times, want 1000", n)
	}
}

func TestNetfilterRefusals(t *testing.T) {
	v4, v6 := udp4(somewhere, 53), udp6(53)
	most := skbLinear
	long := append(udp4(somewhere, 53), make([]byte, most)...)
	for _, c := range []struct {
		name string
		req  Netfilter
		text string
		is   error
	}{
		{"no packet", Netfilter{}, "Packet: 0 bytes: it must have at least the 20 bytes of an IP header: invalid argument", unix.EINVAL},
		{"13 bytes", Netfilter{Packet: v4[:13]}, "Packet: 13 bytes: it must have at least the 20 bytes of an IP header: invalid argument", unix.EINVAL},
		{"19 bytes from a socket", Netfilter{Packet: v4[14:33], Hook: NFLocalOut}, "Packet: 19 bytes: it must have at least the 20 bytes of an IP header: invalid argument", unix.EINVAL},
		{"33 bytes", Netfilter{Packet: v4[:33]}, "Packet: 33 bytes: a packet on this hook begins with an Ethernet and an IPv4 header, 34 bytes: invalid argument", unix.EINVAL},
		{"53 bytes of IPv6", Netfilter{Packet: v6[:53]}, "Packet: 53 bytes: an IPv6 packet on this hook begins with 54 bytes of headers: invalid argument", unix.EINVAL},
		{"neither IPv4 nor IPv6", Netfilter{Packet: frame(64)}, "Packet: EtherType 0x88b5: the packet is neither IPv4 nor IPv6: protocol error", unix.EPROTO},
		{"IPv4 on a hook of IPv6", Netfilter{Packet: v4, Family: NFIPv6}, "Family: 10: the packet is of the other family: invalid argument", unix.EINVAL},
		{"IPv6 on a hook of IPv4", Netfilter{Packet: v6, Family: NFIPv4}, "Family: 2: the packet is of the other family: invalid argument", unix.EINVAL},
		{"a family that there is not", Netfilter{Packet: v4, Family: 7}, "Family: 7: must be NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10): invalid argument", unix.EINVAL},
		{"a hook that there is not", Netfilter{Packet: v4, Hook: 5}, "Hook: 5: it must be one of the hooks 0 to 4: invalid argument", unix.EINVAL},
		{"the last hook that there is not", Netfilter{Packet: v4, Hook: 255}, "Hook: 255: it must be one of the hooks 0 to 4: invalid argument", unix.EINVAL},
		{"one byte over the limit", Netfilter{Packet: long[:most+1]},
			fmt.Sprintf("Packet: %d bytes: the packet is too large: it must fit in a page, %d bytes here: invalid argument", most+1, most), unix.EINVAL},
		{"larger than any kernel takes", Netfilter{Packet: make([]byte, maxPacket+1)}, "must fit in one page with its skb: invalid argument", unix.EINVAL},
		{"negative repeat", Netfilter{Packet: v4, Repeat: -1}, "Repeat: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large repeat", Netfilter{Packet: v4, Repeat: overLarge(1 << 32)}, "Repeat: 4294967296: it can be at most 4294967295: invalid argument", unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "over-large repeat" && c.req.Repeat == 0 {
				t.Skip("an int of 32 bits cannot be that large")
			}
			o := load(t, "netfilter", "netfilter_hook")
			_, err := c.req.Run(o.Program)
			wantError(t, err, c.text, c.is, RanNo)
			wantError(t, err, "progrun: Netfilter.", c.is, RanNo)
			if n := runs(t, o); n != 0 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}
