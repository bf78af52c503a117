package carrier_test

import (
	"fmt"
	"testing"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/internal/carrier"
)

// BenchmarkCarry measures one carried packet: adding it, running it, and copying its
// output.
func BenchmarkCarry(b *testing.B) {
	for _, output := range []bool{false, true} {
		for _, size := range []int{64, 512, 1500} {
			b.Run(fmt.Sprintf("output=%t/%d", output, size), func(b *testing.B) {
				target := program(b, "xdp", "xdp_filter").Programs["xdp_filter"]
				c := carry(b, target, carrier.Options{Chunks: 1, Packets: 512, Output: output})
				p := udp(size, 7)
				k := c.Chunk(0)
				var results carrier.Results
				var r carrier.Result
				b.ResetTimer()
				n := 0
				for n < b.N {
					k.Reset()
					for n+k.Len() < b.N && k.Add(p, 0) {
					}
					for results.Reset(); results.Len() < k.Len(); {
						ran, err := k.Run(call, &results)
						if err != nil || ran == 0 {
							b.Fatal(ran, err)
						}
					}
					for i := range k.Len() {
						results.Read(i, &r)
					}
					n += k.Len()
				}
			})
		}
	}
}

// BenchmarkSingle measures one packet in a run of its own.
func BenchmarkSingle(b *testing.B) {
	for _, output := range []bool{false, true} {
		for _, size := range []int{64, 512, 1500} {
			b.Run(fmt.Sprintf("output=%t/%d", output, size), func(b *testing.B) {
				target := program(b, "xdp", "xdp_filter").Programs["xdp_filter"]
				r := progrun.XDP{Packet: udp(size, 7), NoOutput: !output, Out: make([]byte, 1<<17)}
				for b.Loop() {
					if _, err := r.Run(target); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// udp returns a frame of n bytes: UDP over IPv4, to a port.
func udp(n int, port uint16) []byte {
	p := make([]byte, n)
	p[12], p[13] = 8, 0
	p[14] = 0x45
	p[16], p[17] = byte((n-14)>>8), byte(n-14)
	p[22], p[23] = 64, 17
	p[36], p[37] = byte(port>>8), byte(port)
	p[38], p[39] = byte((n-34)>>8), byte(n-34)
	for i := 42; i < n; i++ {
		p[i] = byte(i)
	}
	return p
}
