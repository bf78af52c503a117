package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// Reading a file ends, whatever it holds, and its packets have summaries.
func FuzzCapture(f *testing.F) {
	names, err := filepath.Glob("testdata/*.pcap")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(names, "traffic.pcap") {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &capture{name: "fuzz"}
		if c.start(bytes.NewReader(b)) != nil {
			return
		}
		var last []byte
		for in := range c.inputs(context.Background()) {
			in.summary()
			if len(last) >= ethernet && len(in.packet) >= ethernet {
				change(last, in.packet)
				packetDifferences(last, in.packet)
			}
			last = in.packet
		}
	})
}
