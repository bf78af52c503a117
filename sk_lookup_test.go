package progrun

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listen puts a listening TCP socket into the map from which the program picks, and
// returns its cookie. By default Go's listeners speak MPTCP, which a sockmap does not
// take.
func listen(t *testing.T, o *object, address string, reuseport bool) (cookie uint64) {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	config.Control = func(_, _ string, conn syscall.RawConn) (err error) {
		if reuseport {
			conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}
		return err
	}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conn, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		if cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			err = o.maps["sockets"].Put(uint32(0), uint64(fd))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

func TestSkLookup(t *testing.T) {
	o := load(t, "sk_lookup", "sk_lookup")
	cookie := listen(t, o, "127.0.0.1:0", false)
	if cookie == 0 {
		t.Fatal("the socket has no cookie")
	}
	for _, c := range []struct {
		name   string
		req    SkLookup
		want   SkVerdict
		cookie uint64
	}{
		{"picks the socket", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:7777"), Remote: addrPort("198.51.100.1:1234")}, SkPass, cookie},
		{"without a remote end", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:7777")}, SkPass, cookie},
		{"another protocol", SkLookup{Protocol: unix.IPPROTO_UDP, Local: addrPort("192.0.2.1:7777")}, SkPass, 0},
		{"another port", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:80")}, SkPass, 0},
		{"the same port on the other end", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:80"), Remote: addrPort("192.0.2.2:7777")}, SkPass, 0},
		{"no local end", SkLookup{Protocol: unix.IPPROTO_TCP, Remote: addrPort("192.0.2.2:7777")}, SkPass, 0},
		{"dropped", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:7778")}, SkDrop, 0},
		{"dropped, IPv6", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("[2001:db8::1]:7778")}, SkDrop, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := runs(t, o)
			res, err := c.req.Run(o.Program)
			if err != nil || res.Verdict != c.want || res.Cookie != c.cookie {
				t.Errorf("got %s, cookie %d, %v, want %s, cookie %d", res.Verdict, res.Cookie, err, c.want, c.cookie)
			}
			if n := runs(t, o) - before; n != 1 {
				t.Errorf("ran %d times", n)
			}
		})
	}
	res, err := SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:7777"), Repeat: 1000}.Run(o.Program)
	if err != nil || res.Cookie != cookie || res.PerRun <= 0 {
		t.Errorf("1000 times: %+v, %v", res, err)
	}
}

// TestSkLookupIPv6 picks an IPv6 socket.
func TestSkLookupIPv6(t *testing.T) {
	o := load(t, "sk_lookup", "sk_lookup")
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("there is no IPv6 here: %v", err)
	}
	probe.Close()
	cookie := listen(t, o, "[::1]:0", false)
	res, err := SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("[2001:db8::1]:7777"), Remote: addrPort("[2001:db8::2]:1")}.Run(o.Program)
	if err != nil || res.Verdict != SkPass || res.Cookie != cookie {
		t.Errorf("got %+v, %v, want cookie %d", res, err, cookie)
	}
}

// TestSkLookupReuseport picks a socket of a reuseport group. The run fails after the
// program ran, since the kernel would have to choose among the sockets.
func TestSkLookupReuseport(t *testing.T) {
	o := load(t, "sk_lookup", "sk_lookup")
	listen(t, o, "127.0.0.1:0", true)
	_, err := SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:7777")}.Run(o.Program)
	wantError(t, err, "progrun: SkLookup: the program picked a socket of a reuseport group without BPF_SK_LOOKUP_F_NO_REUSEPORT: operation not supported", unix.EOPNOTSUPP, RanYes)
	if n := runs(t, o); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// TestSkLookupSeen checks what the program sees: addresses and the remote port in
// network byte order, and the local port in the byte order of the machine.
func TestSkLookupSeen(t *testing.T) {
	o := load(t, "sk_lookup", "sk_lookup_seen")
	for _, c := range []struct {
		name string
		req  SkLookup
	}{
		{"IPv4", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:80"), Remote: addrPort("198.51.100.2:4660")}},
		{"IPv6", SkLookup{Protocol: unix.IPPROTO_UDP, Local: addrPort("[2001:db8::1]:53"), Remote: addrPort("[2001:db8::2]:65535")}},
		{"no remote", SkLookup{Protocol: unix.IPPROTO_TCP, Local: addrPort("192.0.2.1:80")}},
		{"no local", SkLookup{Protocol: unix.IPPROTO_TCP, Remote: addrPort("192.0.2.1:80")}},
		{"no local, IPv6", SkLookup{Protocol: 65535, Remote: addrPort("[2001:db8::1]:80")}},
		{"a mapped address stays IPv6", SkLookup{Protocol: 6, Local: addrPort("[::ffff:192.0.2.1]:80")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.req.Run(o.Program); err != nil {
				t.Fatal(err)
			}
			want := [14]uint32{unix.AF_INET6, uint32(c.req.Protocol)}
			if c.req.Local.Addr().Is4() || c.req.Remote.Addr().Is4() {
				want[0] = unix.AF_INET
			}
			words := func(at int, a netip.Addr) {
				b := a.AsSlice()
				if len(b) == 16 {
					at++
				}
				for i := 0; i < len(b); i += 4 {
					want[at+i/4] = binary.NativeEndian.Uint32(b[i:])
				}
			}
			words(2, c.req.Remote.Addr())
			words(8, c.req.Local.Addr())
			want[7] = uint32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, c.req.Remote.Port())))
			want[13] = uint32(c.req.Local.Port())
			for i, w := range want {
				if got := get[uint32](t, o, "seen", uint32(i)); got != w {
					t.Errorf("field %d: the program saw %#x, want %#x", i, got, w)
				}
			}
		})
	}
}

func TestSkLookupRefusals(t *testing.T) {
	v4, v6 := addrPort("192.0.2.1:80"), addrPort("[2001:db8::1]:80")
	zone := addrPort("[fe80::1%lo]:80")
	for _, c := range []struct {
		name string
		req  SkLookup
		text string
		is   error
	}{
		{"neither end", SkLookup{Protocol: 6}, "Local: neither Local nor Remote is set: one must tell the address family: address family not supported by protocol", unix.EAFNOSUPPORT},
		{"ports alone", SkLookup{Local: netip.AddrPortFrom(netip.Addr{}, 80)}, "Local: neither Local nor Remote is set", unix.EAFNOSUPPORT},
		{"two families", SkLookup{Local: v4, Remote: v6}, "Remote: [2001:db8::1]:80: its address family differs from that of Local, 192.0.2.1:80: address family not supported by protocol", unix.EAFNOSUPPORT},
		{"two families, reversed", SkLookup{Local: v6, Remote: v4}, "Remote: 192.0.2.1:80: its address family differs from that of Local, [2001:db8::1]:80", unix.EAFNOSUPPORT},
		{"local zone", SkLookup{Local: zone}, "Local: [fe80::1%lo]:80: an address cannot have a zone here, since the run has no ingress interface: invalid argument", unix.EINVAL},
		{"remote zone", SkLookup{Remote: zone}, "Remote: [fe80::1%lo]:80: an address cannot have a zone here, since the run has no ingress interface: invalid argument", unix.EINVAL},
		{"negative protocol", SkLookup{Local: v4, Protocol: -1}, "Protocol: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large protocol", SkLookup{Local: v4, Protocol: 65536}, "Protocol: 65536: it can be at most 65535: invalid argument", unix.EINVAL},
		{"negative repeat", SkLookup{Local: v4, Repeat: -1}, "Repeat: -1: it cannot be negative: invalid argument", unix.EINVAL},
		{"over-large repeat", SkLookup{Local: v4, Repeat: overLarge(1 << 32)}, "Repeat: 4294967296: it can be at most 4294967295: invalid argument", unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "over-large repeat" && c.req.Repeat == 0 {
				t.Skip("an int of 32 bits cannot be that large")
			}
			o := load(t, "sk_lookup", "sk_lookup")
			_, err := c.req.Run(o.Program)
			wantError(t, err, "progrun: SkLookup."+c.text, c.is, RanNo)
			if n := runs(t, o); n != 0 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}
