// Command bench measures progrun against its floors and its peers: the system
// call itself, made from Go and from C, and cilium/ebpf's Program.Run.
//
//	go run -C bench .
//
// prints tables. It writes them to results/, with plots, a description of the
// machine, and the figures in Go's benchmark format. It needs root and an idle
// machine, and takes some 20 minutes, or one with -quick. All packets stay in
// network namespaces that end with the command.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
)

// section is a group of points that make a table.
type section struct {
	bench       string // its part of the names of benchmarks
	title, text string
	points      func() ([]point, error)
	plots       func([]result) []picture
}

// bench is a run of the command.
type bench struct {
	plan
	c     *cLoop
	noC   error
	wire  *wire
	cpu   int // where single threads are measured
	cpus  []int
	progs []*ebpf.Program // of the section under way
	held  map[*ebpf.Program]*progrun.Hold
	atEnd []func() error // of the section under way
	files writer
	out   string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == unheldCommand {
		if err := serveUnheld(os.Args[2]); err != nil {
			fail(err)
		}
		return
	}
	var b bench
	only := flag.String("only", "", "measure only the cases whose \"Section/case\" matches this `regexp`")
	flag.IntVar(&b.rounds, "rounds", 100, "rounds of short cases; long ones get a third or a tenth")
	flag.BoolVar(&b.quick, "quick", false, "measure less, in about a minute")
	flag.StringVar(&b.out, "out", "", "`directory` for results; results/ if everything is measured, else none")
	flag.Parse()
	if err := b.prepare(*only); err != nil {
		fail(err)
	}
	if err := onThread(b.run); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// prepare checks the flags and derives the plan from them.
func (b *bench) prepare(only string) (err error) {
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	b.slice = 2 * time.Millisecond
	if b.quick {
		b.rounds, b.slice = min(b.rounds, 20), time.Millisecond
	}
	if b.rounds < 1 {
		return errors.New("-rounds must be at least 1")
	}
	if b.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if b.out == "" && only == "" && !b.quick {
		b.out = "results"
	}
	b.files.dir, b.files.machine = b.out, machine()
	return nil
}

// run measures everything on the calling thread. It moves the thread to the wire's
// namespace and to one CPU, so the thread must end afterwards.
func (b *bench) run() (err error) {
	if b.cpus, err = allowedCPUs(); err != nil {
		return err
	}
	b.cpu = b.cpus[len(b.cpus)-1] // the first has more interrupts
	drop, err := ebpf.NewProgram(returns(ebpf.XDP, xdpDrop))
	if err != nil {
		return fmt.Errorf("load a program, which takes root: %w", err)
	}
	defer drop.Close()
	if b.wire, err = newWire(drop, 2); err != nil {
		return err
	}
	defer b.wire.close()
	if err := pin(b.cpu); err != nil {
		return err
	}
	if b.c, err = startCLoop(); err != nil {
		b.c, b.noC = nil, err
	}
	b.files.begin()
	begin := time.Now()
	if err := b.runSections(); err != nil {
		return err
	}
	fmt.Printf("Measured in %v.\n", time.Since(begin).Round(time.Second))
	return errors.Join(b.c.stop(), b.files.finish())
}

func (b *bench) runSections() error {
	if b.noC != nil {
		fmt.Printf("The C loops are left out: %v.\n\n", b.noC)
	}
	var missed []string
	for _, s := range b.sections() {
		misses, err := b.runSection(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		missed = append(missed, misses...)
	}
	if len(missed) > 0 {
		fmt.Printf("Targets missed:\n  %s\n", strings.Join(missed, "\n  "))
	}
	return nil
}

// runSection measures a section, prints it, and returns the targets that it missed.
func (b *bench) runSection(s section) ([]string, error) {
	b.held = make(map[*ebpf.Program]*progrun.Hold)
	defer b.unload()
	points, err := s.points()
	if err != nil {
		return nil, err
	}
	var results []result
	var notes []string
	if b.noC != nil {
		notes = append(notes, fmt.Sprintf("The C loops are left out: %v.", b.noC))
	}
	for _, p := range points {
		if !b.only.MatchString(s.bench + "/" + p.name) {
			continue
		}
		r, err := b.measure(p)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
		if r.note != "" {
			notes = append(notes, r.note)
		}
	}
	if len(results) == 0 {
		return nil, nil
	}
	fmt.Printf("%s\n\n", s.title)
	head, rows := table(results)
	writeText(os.Stdout, head, rows)
	fmt.Printf("\n%s\n", strings.Join(append(notes, ""), "\n"))
	return misses(results), b.files.add(s, results, notes)
}

// load loads a program for the section under way.
func (b *bench) load(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load a %s program: %w", spec.Type, err)
	}
	b.progs = append(b.progs, prog)
	return prog, nil
}

// unload closes what the section loaded.
func (b *bench) unload() {
	for _, end := range b.atEnd {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	for _, h := range b.held {
		h.Close()
	}
	for _, p := range b.progs {
		p.Close()
	}
	b.progs, b.atEnd = nil, nil
}

// none returns no pictures, for sections without a plot.
func none([]result) []picture { return nil }

// sections returns all sections, in the order of the report.
func (b *bench) sections() []section {
	return []section{
		{"Call", "One call, 64-byte packet",
			"The floors make the same system call with the same sizes, the attr filled in beforehand. Run is asked for the\n" +
				"same outputs, contexts as structs; \"packet only\" leaves out the context, which progrun always hands back\n" +
				"with a packet: it costs the kernel a few hundred nanoseconds.", b.calls,
			func(r []result) []picture {
				return bars("calls.svg", "One call, 64-byte packet", "times the Go floor", r,
					[]string{byProgrun, byC, byCilium}, timesFloor)
			}},
		{"Batch", "Batches of 100,000 packets", "Time per packet. The floors are loops of the system call.",
			free(b.batches), func(r []result) []picture {
				return bars("batches.svg", "Batches of 100,000 packets", "million packets a second", r,
					[]string{byProgrun, byGo, byTwo, byGoTwo, byCilium}, millionsPerSecond)
			}},
		{"BatchAhead", "Batches that may run ahead", "Time per packet of 1,000,000 packets, which a program parses and sends back. Carriers are made and given up\n" +
			"within.", free(b.carriedBatches), none},
		{"WorkersAhead", "Batches that may run ahead, with two processors", "Time per packet of 10,000,000 packets, by two workers, and by two batches at once that have half of the packets each.",
			free(b.carriedByWorkers), none},
		{"InputsAhead", "How cost grows with the inputs of a batch that may run ahead", "Time per input, 64 bytes, verdict only.", free(b.carriedByInputs), none},
		{"Size", "How cost grows with the packet", "Time of one call.", b.bySize, func(r []result) []picture {
			return lines("size.svg", "How cost grows with the packet", "bytes", "ns a call", r)
		}},
		{"Inputs", "How cost grows with the inputs of a batch", "Time per input, verdict only. The floor is one loop of the system call. Two workers are compared with one.", free(b.byInputs), func(r []result) []picture {
			return lines("inputs.svg", "How cost grows with the inputs of a batch", "inputs", "ns an input", r)
		}},
		{"Goroutines", "How cost grows with goroutines", "Time per call, over all goroutines; verdict only.",
			free(b.byGoroutines), func(r []result) []picture {
				return lines("goroutines.svg", "How cost grows with goroutines", "goroutines", "ns a call", r)
			}},
		{"Repeat", "Repeat", "Time of one call. Calls of XDP that repeat pay for the kernel's XDP dispatcher unless the program is held.\n" +
			"progrun blocks the signals of its thread for each such call, the floor for many at once. Where the caller\n" +
			"has blocked them, progrun saves one system call of its two.",
			b.repeats, func(r []result) []picture {
				return lines("repeat.svg", "What a call with Repeat costs", "Repeat", "ns a call", r)
			}},
		{"Live", "Live frames, one CPU", "Time per frame. XDP_TX and XDP_REDIRECT go into a veth, XDP_PASS takes a frame for another host.\n" +
			"The C loop and Run make calls of 1<<20 frames; each pays for the dispatcher unless the program is held.\n" +
			"The time of progrun includes making its own hold and giving it up.",
			b.live, func(r []result) []picture {
				return bars("live.svg", "Live frames, one CPU", "million frames a second", r,
					[]string{byProgrun, byC, byCilium, byHeld, byCHeld}, millionsPerSecond)
			}},
		{"LiveUnheld", "Live frames without CAP_SYS_ADMIN, one CPU", "Time per frame. The C loop makes calls of 1<<20 frames.", b.liveUnheld, none},
		{"LiveRate", "Live frames at a rate, one CPU", "Time of a CPU per frame at rates that are kept; the floor sleeps before each system call. Time per frame at a rate\n" +
			"that is out of reach.", b.rates, none},
		{"LiveWorkers", "Live frames, two workers on two queues", "Time per frame, held. The floors are loops of calls of 1<<19 frames.", b.liveWorkers,
			func(r []result) []picture {
				return bars("live-workers.svg", "Live frames, workers", "million frames a second", r,
					[]string{byOne, byGoOne, byTwo, byGoTwo}, millionsPerSecond)
			}},
		{"LiveCarried", "Live frames with a carrier, one CPU", "Time per frame. The capture has 46 packets of 60 to 1,455 bytes, each written anew.", b.carriedLive, none},
		{"LiveCall", "Live frames, a held call", "Time per call.", b.heldCalls, none},
	}
}

// free makes the contenders of a section run on goroutines that are free to move.
func free(points func() ([]point, error)) func() ([]point, error) {
	return func() ([]point, error) {
		all, err := points()
		return elsewhere(all), err
	}
}

// timesFloor returns the ratio to the Go floor.
func timesFloor(r result, by string) float64 {
	ratio, _, ok := r.ratio(claim{of: by, over: byGo})
	if !ok {
		return 0
	}
	return ratio
}

// millionsPerSecond returns the rate of operations, in millions per second.
func millionsPerSecond(r result, by string) float64 {
	ns, ok := r.nsPerOp(by)
	if !ok {
		return 0
	}
	return 1e3 / ns
}
