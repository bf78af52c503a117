package cover_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"github.com/progrun/progrun/cover"
)

// loadLines reads the object file that fits this machine, as the functions that
// bpf2go writes do.
func loadLines() (*ebpf.CollectionSpec, error) {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return ebpf.LoadCollectionSpec("testdata/lines_bpfeb.o")
	}
	return ebpf.LoadCollectionSpec("testdata/lines_bpfel.o")
}

// This finds the lines that a packet reaches whose first byte is 4.
func ExampleInstrument() {
	spec, err := loadLines()
	if err != nil {
		log.Fatal(err)
	}
	counters, err := cover.Instrument(spec, &cover.Options{Dir: "testdata"})
	if err != nil {
		log.Fatal(err)
	}
	defer counters.Close()
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		log.Fatal(counters.Explain(err))
	}
	defer coll.Close()

	packet := make([]byte, 64)
	packet[0] = 4
	if _, err := (progrun.XDP{Packet: packet}).Run(coll.Programs["lines"]); err != nil {
		log.Fatal(err)
	}

	profile, err := counters.Profile()
	if err != nil {
		log.Fatal(err)
	}
	if err := profile.WriteText(os.Stdout); err != nil {
		log.Fatal(err)
	}
	// Output:
	// testdata/lines.c: 19 of 43 lines, 44.2 %
	// 	subprogram               5 of 8 lines, 62.5 %
	// 	global                   3 of 4 lines, 75.0 %
	// 	lines                    16 of 24 lines, 66.7 %
	// 	called                   never ran
	// 	tail                     never ran
	// 	not reached: 19 31 33 38 46 61-64 73 79 85-88 97-121
	// testdata/marks.h: 5 of 6 lines, 83.3 %
	// 	not reached: 34
	// total: 24 of 49 lines, 49.0 %
}

// instrumented does what ExampleInstrument shows.
func instrumented(opts *cover.Options) (*ebpf.Collection, *cover.Counters) {
	spec, err := loadLines()
	if err != nil {
		log.Fatal(err)
	}
	counters, err := cover.Instrument(spec, opts)
	if err != nil {
		log.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		log.Fatal(counters.Explain(err))
	}
	return coll, counters
}

// Files lists the functions, lines and branches that no run has reached.
func ExampleProfile_Files() {
	coll, counters := instrumented(&cover.Options{Dir: "testdata", Branches: true})
	defer coll.Close()
	defer counters.Close()
	packet := make([]byte, 64)
	packet[0] = 13
	if _, err := (progrun.XDP{Packet: packet}).Run(coll.Programs["tail"]); err != nil {
		log.Fatal(err)
	}

	profile, err := counters.Profile()
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range profile.Files() {
		for _, function := range file.Functions {
			fmt.Println(filepath.Base(file.Name), function.Name, function.State)
		}
		for _, branch := range file.Branches {
			if branch.Function == "tail" && branch.Jump.State == cover.NotReached {
				fmt.Printf("%s:%d never jumped\n", filepath.Base(file.Name), branch.Line)
			}
		}
	}
	// Output:
	// lines.c subprogram not reached
	// lines.c global not reached
	// lines.c lines not reached
	// lines.c called not reached
	// lines.c tail reached
	// lines.c:107 never jumped
	// lines.c:117 never jumped
}

// Reset begins anew, here for the second of two packets. Merge adds up the profiles.
func ExampleCounters_Reset() {
	coll, counters := instrumented(nil)
	defer coll.Close()
	defer counters.Close()

	total := &cover.Profile{}
	for _, first := range []byte{4, 13} {
		packet := make([]byte, 64)
		packet[0] = first
		if _, err := (progrun.XDP{Packet: packet}).Run(coll.Programs["lines"]); err != nil {
			log.Fatal(err)
		}
		profile, err := counters.Profile()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("packet", first, lines(profile))
		total.Merge(profile)
		if err := counters.Reset(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("both", lines(total))
	// total.WriteLCOV writes a report for genhtml.

	// Output:
	// packet 4 19 of 43 lines, 44.2 %
	// packet 13 19 of 43 lines, 44.2 %
	// both 21 of 43 lines, 48.8 %
}

// lines returns the coverage of lines.c.
func lines(p *cover.Profile) cover.Count {
	for _, file := range p.Files() {
		if filepath.Base(file.Name) == "lines.c" {
			return file.Count()
		}
	}
	return cover.Count{}
}

// Each process of a test suite leaves its profile in a folder. ReadDir merges them,
// as the command bpfcover does.
func ExampleReadDir() {
	dir, err := os.MkdirTemp("", "cover")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := (&cover.Profile{}).WriteDir(dir); err != nil {
		log.Fatal(err)
	}

	profile, err := cover.ReadDir(dir)
	if err != nil {
		log.Fatal(err)
	}
	if err := profile.WriteGo(os.Stdout); err != nil {
		log.Fatal(err)
	}
	// Output: mode: set
}
