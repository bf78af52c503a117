//go:build linux

package main

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/progrun/progrun"
)

// TestGenerate checks that every generated frame has right checksums, and that the
// flows follow one another.
func TestGenerate(t *testing.T) {
	need(t)
	for _, args := range []string{
		"",
		"-proto tcp -src 10.0.0.1-10.0.0.3 -dst 10.0.255.0/30 -src-port 5",
		"-vlan 9 -src-port 65535 -dst-port 1-3 -src 10.255.255.254-11.0.0.3",
		"-src 2001:db8::ffff:ffff -dst 2001:db8::/125 -size 100",
		"-src ::1 -dst ::2 -proto tcp -vlan 4094 -size 1000 -dst-port 80-81",
	} {
		t.Run(args, func(t *testing.T) {
			o, err := parse(strings.Fields(args), new(bytes.Buffer))
			if err != nil {
				t.Fatal(err)
			}
			w := new(wire)
			l, err := o.load(w)
			if err != nil {
				t.Fatal(err)
			}
			progs, err := loadPrograms(l, w)
			if err != nil {
				t.Fatal(err)
			}
			defer progs.close()
			flows := map[string]bool{}
			runtime.LockOSThread() // each CPU begins at a flow of its own
			defer runtime.UnlockOSThread()
			for range 200 {
				res, err := progrun.XDP{Packet: l.template.frame}.Run(progs.Generate)
				if err != nil || res.Action != progrun.XDPTX {
					t.Fatal(res.Action, err)
				}
				flows[checkFrame(t, res.Packet, o.packet.size)] = true
			}
			if want := min(int(l.flows()), 200); len(flows) < want*9/10 {
				t.Errorf("%d flows, want %d", len(flows), want)
			}
		})
	}
}

// checkFrame checks a frame's length and checksums, and returns its flow.
func checkFrame(t *testing.T, b []byte, size int) string {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
	if len(b) != size || p.ErrorLayer() != nil || p.NetworkLayer() == nil || p.TransportLayer() == nil {
		t.Fatalf("%d bytes: %v", len(b), p)
	}
	switch l4 := p.TransportLayer().(type) {
	case *layers.UDP:
		_ = l4.SetNetworkLayerForChecksum(p.NetworkLayer())
	case *layers.TCP:
		_ = l4.SetNetworkLayerForChecksum(p.NetworkLayer())
	}
	err, mismatches := p.VerifyChecksums()
	if err != nil || len(mismatches) > 0 {
		t.Fatalf("checksums: %v, %+v\n%v", err, mismatches, p)
	}
	return fmt.Sprint(p.NetworkLayer().NetworkFlow(), p.TransportLayer().TransportFlow())
}
