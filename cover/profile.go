package cover

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// State says whether a line, a function, a condition or a way out of it was reached.
type State uint8

// The states. Where several states of the same thing are merged, the greatest one wins.
const (
	NotReached State = iota // it never ran
	Unknown                 // it has no probe, and its program may have run
	Reached                 // it ran
)

// String returns the state in words.
func (s State) String() string {
	switch s {
	case NotReached:
		return "not reached"
	case Unknown:
		return "unknown"
	case Reached:
		return "reached"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText returns what String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses what String returns for the three states.
func (s *State) UnmarshalText(text []byte) error {
	for state := NotReached; state <= Reached; state++ {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("cover: there is no state %q", text)
}

// states are the states of classes. As text, each is a digit.
type states []State

func (s states) MarshalText() ([]byte, error) {
	text := make([]byte, len(s))
	for c := range s {
		text[c] = '0' + byte(s[c])
	}
	return text, nil
}

func (s *states) UnmarshalText(text []byte) error {
	*s = make(states, len(text))
	for c := range text {
		(*s)[c] = State(text[c] - '0')
	}
	return nil
}

// Profile records which lines, functions and branches of programs ran. The zero
// value is empty and ready for Merge.
type Profile struct {
	functions map[recordKey]*covered
}

// covered is a function and the state of each of its classes.
type covered struct {
	Record *record
	States states
}

// A recordKey identifies the code of a function.
type recordKey [sha256.Size]byte

// A record is what a function's instructions tell about its source. Parts that
// always run together have the same class, which is a number.
type record struct {
	key      recordKey
	Name     string
	Classes  int
	Files    []string // paths; "" is the path of what has no line
	Start    recordLine
	Lines    []recordLine // in the order of the instructions, without duplicates
	Branches []recordBranch
}

// A recordLine is a line in one of a record's files.
type recordLine struct {
	File  int `json:"f"` // index in Files
	Line  int `json:"l"`
	Class int `json:"c"`
}

// A recordBranch is a condition, where it stands and where it leads.
type recordBranch struct {
	At         recordLine
	Column     int
	Jump, Next recordLine
}

// line returns the record of a line, which has no place if line is nil.
func (r *record) line(line *btf.Line, class int, sources *sources) recordLine {
	path, n := "", 0
	if line != nil {
		path, n = sources.locate(line.FileName()), int(line.LineNumber())
	}
	file := slices.Index(r.Files, path)
	if file < 0 {
		file = len(r.Files)
		r.Files = append(r.Files, path)
	}
	return recordLine{file, n, class}
}

func hasLine(ins asm.Instruction) bool { return lineOf(&ins) != nil }

// lineOf returns the line that begins at an instruction, or nil. The instructions up
// to the next line may belong to it, or to a line that the compiler has lost. So
// only the block of the instruction itself tells that the line ran.
func lineOf(ins *asm.Instruction) *btf.Line {
	line, ok := ins.Source().(*btf.Line)
	if !ok || line.FileName() == "" || line.LineNumber() == 0 {
		return nil
	}
	return line
}

// reported returns a function that reports whether a record has a node: the start, the
// blocks with lines and, if branches is set, the conditions in them.
func reported(g *graph, branches bool) func(node int) bool {
	told := map[int]bool{0: true}
	for n, b := range g.blocks {
		if !slices.ContainsFunc(g.insns[b.first:b.end], hasLine) {
			continue
		}
		told[n] = true
		if branches && g.decides(n) {
			told[g.node(edge{n, true})] = true
			told[g.node(edge{n, false})] = true
		}
	}
	return func(node int) bool { return told[node] }
}

// newRecord returns the record of a function.
func newRecord(p *plan, branches bool, sources *sources) *record {
	r := &record{Name: p.name, Classes: len(p.known)}
	var end *btf.Line
	for n, b := range p.blocks {
		var last *btf.Line
		for i := b.first; i < b.end; i++ {
			if line := lineOf(&p.insns[i]); line != nil {
				last = line
				r.Lines = append(r.Lines, r.line(line, p.class[n], sources))
			}
		}
		if last == nil {
			continue
		}
		if p.insns[b.end-1].OpCode.JumpOp() == asm.Exit {
			end = last
		}
		if branches && p.decides(n) {
			r.addBranch(p, n, last, sources)
		}
	}
	r.setStart(end, p.class[0], sources)
	return r.finish()
}

// addBranch adds the condition at the end of a block.
func (r *record) addBranch(p *plan, n int, line *btf.Line, sources *sources) {
	way := func(jump bool) recordLine {
		e := edge{n, jump}
		first := p.blocks[p.target(e)].first
		return r.line(lineOf(&p.insns[first]), p.class[p.node(e)], sources)
	}
	r.Branches = append(r.Branches, recordBranch{
		At:     r.line(line, p.class[n], sources),
		Column: int(line.LineColumn()),
		Jump:   way(true),
		Next:   way(false),
	})
}

// unknownRecord returns the record of a program that is left out.
func unknownRecord(spec *ebpf.ProgramSpec, sources *sources) *record {
	r := &record{Name: spec.Name, Classes: 1}
	var last, end *btf.Line
	for i := range spec.Instructions {
		ins := &spec.Instructions[i]
		if line := lineOf(ins); line != nil {
			last = line
			r.Lines = append(r.Lines, r.line(line, 0, sources))
		}
		if end == nil && ins.OpCode.JumpOp() == asm.Exit {
			end = last // what follows may be subprograms
		}
	}
	r.setStart(end, 0, sources)
	return r.finish()
}

// setStart sets where the function begins. It searches from the line where the
// function ends. If it finds no definition, the function begins with its first line
// in that file.
func (r *record) setStart(end *btf.Line, class int, sources *sources) {
	if len(r.Lines) == 0 {
		r.Files = []string{""}
		return
	}
	r.Start = r.Lines[0]
	if end != nil {
		last := r.line(end, class, sources)
		i := slices.IndexFunc(r.Lines, func(l recordLine) bool { return l.File == last.File })
		r.Start = r.Lines[i]
		if n, ok := sources.definition(r.Name, r.Files[last.File], last.Line); ok {
			r.Start.Line = n
		}
	}
	r.Start.Class = class
}

// finish removes duplicate lines, and sets the key.
func (r *record) finish() *record {
	seen := map[recordLine]bool{}
	r.Lines = slices.DeleteFunc(r.Lines, func(l recordLine) bool {
		twice := seen[l]
		seen[l] = true
		return twice
	})
	r.key = sha256.Sum256(fmt.Appendf(nil, "%q %q %d %v %v %v", r.Name, r.Files, r.Classes, r.Start, r.Lines, r.Branches))
	return r
}

// states returns the state of each class, from the bytes of the probes.
func (p *plan) states(seen []byte) states {
	states := make(states, len(p.known))
	done := make([]bool, len(p.known))
	for c, known := range p.known {
		if known == nil {
			states[c], done[c] = Unknown, true
		}
	}
	for i, probe := range p.probes {
		states[probe.class] = NotReached
		if seen[i] != 0 {
			states[probe.class] = Reached
		}
	}
	var infer func(int) State
	infer = func(c int) State {
		if !done[c] {
			for _, k := range p.known[c] {
				states[c] = max(states[c], infer(k))
			}
			done[c] = true
		}
		return states[c]
	}
	for c := range states {
		infer(c)
	}
	return states
}

// add merges the states of a function into the profile.
func (p *Profile) add(r *record, found states) {
	if p.functions == nil {
		p.functions = map[recordKey]*covered{}
	}
	f := p.functions[r.key]
	if f == nil {
		f = &covered{r, make(states, len(found))}
		p.functions[r.key] = f
	}
	for c, s := range found {
		f.States[c] = max(f.States[c], s)
	}
}

// Merge adds another profile to p. It may be of the same programs, or of others.
func (p *Profile) Merge(other *Profile) {
	for _, f := range other.functions {
		p.add(f.Record, f.States)
	}
}

// sorted returns the functions in a fixed order.
func (p *Profile) sorted() []*covered {
	return slices.SortedFunc(maps.Values(p.functions), func(a, b *covered) int {
		return slices.Compare(a.Record.key[:], b.Record.key[:])
	})
}
