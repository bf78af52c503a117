package cover

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Options configures [Instrument]. The zero value suits most programs.
type Options struct {
	// Skip names programs that get no probes. Their lines are [Unknown], unless
	// another program reaches them.
	Skip []string

	// Branches makes profiles record, for each condition, whether it jumped and
	// whether it went on. This takes more probes.
	Branches bool

	// Dir is the directory of the sources, to which relative file names refer. An
	// absolute name that does not exist is looked up in Dir too: first the whole
	// name, then without its first directory, and so on. If Dir is empty, relative
	// names refer to the current directory, and absolute names stay as they are.
	Dir string
}

// Counters records which probes of a collection have run, from [Instrument] until
// Close. Programs count while they are loaded, both by BPF_PROG_RUN and attached.
// Its methods may be called at any time, by several goroutines at once.
type Counters struct {
	mu       sync.Mutex // guards seen, which Close closes, and refused
	seen     *ebpf.Map  // a single value with a byte for each probe
	refused  bool       // whether the collection did not load
	programs []program
}

// A program is what the instructions of a program tell, and where its probes go.
type program struct {
	name    string
	skipped bool
	plans   []*plan   // one for each function
	records []*record // one for each function, or for the whole program if it is skipped
}

// ErrInstrumented is wrapped by the error that [Instrument] returns if programs of the
// collection have probes already.
var ErrInstrumented = errors.New("has probes already")

// Instrument adds probes to the programs of spec, in place, and returns their
// counters. Call it once, before the collection is loaded. A spec that is then
// copied, or loaded several times, uses the same counters each time. Programs
// without line information stay as they are. opts may be nil.
//
// Instrument creates a map. That takes Linux 5.2, and the privileges and the memory
// limit that loading the collection takes. If Instrument returns an error, spec is
// unchanged.
func Instrument(spec *ebpf.CollectionSpec, opts *Options) (*Counters, error) {
	if opts == nil {
		opts = &Options{}
	}
	sources := newSources(opts.Dir)
	c := &Counters{}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p, err := newProgram(spec.Programs[name], slices.Contains(opts.Skip, name), opts.Branches, sources)
		if err != nil {
			return nil, fmt.Errorf("cover: program %s: %w", name, err)
		}
		p.name = name
		c.programs = append(c.programs, p)
		total += p.probes()
	}

	var err error
	c.seen, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "progrun_cover", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(max(total, 1)), MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("cover: create the map of %d probes: %w", total, err)
	}
	if err := c.insert(spec); err != nil {
		c.seen.Close()
		return nil, fmt.Errorf("cover: %w", err)
	}
	return c, nil
}

// newProgram plans the probes of a program.
func newProgram(spec *ebpf.ProgramSpec, skip, branches bool, sources *sources) (program, error) {
	p := program{skipped: skip}
	if !slices.ContainsFunc(spec.Instructions, hasLine) {
		return p, nil
	}
	if skip {
		p.records = []*record{unknownRecord(spec, sources)}
		return p, nil
	}
	if spec.Instructions[0].Metadata.Get(instrumentedKey{}) != nil {
		return p, ErrInstrumented
	}
	list, err := functions(spec.Instructions)
	if err != nil {
		return p, fmt.Errorf("%w: leave the program out with Options.Skip", err)
	}
	liveness(list)
	clears := slices.ContainsFunc(spec.Instructions, comparesDead)
	for _, f := range list {
		g := newGraph(f, branches)
		plan := choose(g, reported(g, branches), clears)
		p.plans = append(p.plans, plan)
		p.records = append(p.records, newRecord(plan, branches, sources))
	}
	return p, nil
}

// comparesDead reports whether ins makes the verifier of some kernels compare dead
// registers to find the end of a loop. A probe in a loop must then clear its
// register.
func comparesDead(ins asm.Instruction) bool {
	return ins.IsKfuncCall() || ins.OpCode.JumpOp() == asm.JCOND || ins.IsLoadOfFunctionPointer()
}

func (p *program) probes() (n int) {
	for _, plan := range p.plans {
		n += len(plan.probes)
	}
	return n
}

// insert adds the probes to all programs of a collection, or to none.
func (c *Counters) insert(spec *ebpf.CollectionSpec) error {
	instrumented := map[string]asm.Instructions{}
	offset := 0
	for _, p := range c.programs {
		if len(p.plans) == 0 {
			continue
		}
		insns, err := insertAll(p.plans, c.seen, offset)
		if err != nil {
			return fmt.Errorf("program %s: %w", p.name, err)
		}
		instrumented[p.name] = insns
		offset += p.probes()
	}
	for name, insns := range instrumented {
		spec.Programs[name].Instructions = insns
	}
	return nil
}

// Profile returns what has run since [Instrument], or since the last Reset.
func (c *Counters) Profile() (*Profile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.profile()
}

func (c *Counters) profile() (*Profile, error) {
	var seen []byte
	if err := c.seen.Lookup(uint32(0), &seen); err != nil {
		return nil, fmt.Errorf("cover: read the probes: %w", err)
	}
	profile := &Profile{}
	for _, p := range c.programs {
		if p.skipped {
			for _, r := range p.records {
				profile.add(r, []State{Unknown})
			}
			continue
		}
		for i, plan := range p.plans {
			profile.add(p.records[i], plan.states(seen))
			seen = seen[len(plan.probes):]
		}
	}
	return profile, nil
}

// Reset discards what has run. It may discard or keep what runs at the same time.
func (c *Counters) Reset() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.seen.Put(uint32(0), make([]byte, c.seen.ValueSize())); err != nil {
		return fmt.Errorf("cover: reset the probes: %w", err)
	}
	return nil
}

// Close releases the counters. If PROGRUN_COVERDIR names a folder, Close first writes
// the profile there, as [Profile.WriteDir] does. Loaded programs keep running, but
// the collection cannot be loaded again. Close does nothing if c is nil or closed.
func (c *Counters) Close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen.FD() < 0 {
		return nil
	}
	var err error
	if dir := os.Getenv(DirVariable); dir != "" && !c.refused {
		var p *Profile
		if p, err = c.profile(); err == nil {
			err = p.WriteDir(dir)
		}
	}
	return errors.Join(err, c.seen.Close())
}

// Explain explains an error that loading the collection returned. If a program has
// become too complex for the verifier, the result wraps err and names the program to
// leave out. Explain returns other errors, and nil, as they are. After an error,
// Close writes no profile, since none of the programs can run.
func (c *Counters) Explain(err error) error {
	if c == nil || err == nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = true
	if !tooMuch(err) {
		return err
	}
	for _, p := range c.programs {
		if len(p.plans) > 0 && strings.Contains(err.Error(), "program "+p.name+":") {
			return fmt.Errorf("cover: with %d probes, program %s may be too much for the verifier: leave it out with Options.Skip: %w", p.probes(), p.name, err)
		}
	}
	return err
}

// tooMuch reports whether err says that a program is too large or too complex.
func tooMuch(err error) bool {
	var refusal *ebpf.VerifierError
	return errors.Is(err, syscall.E2BIG) || errors.As(err, &refusal) && slices.ContainsFunc(refusal.Log, func(line string) bool {
		return strings.Contains(line, "program is too large") || strings.Contains(line, "is too complex")
	})
}
