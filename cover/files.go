package cover

import (
	"cmp"
	"maps"
	"slices"
)

// A File is what a profile knows of a source file.
type File struct {
	// Name is the absolute path.
	Name string

	// Lines are in ascending order. Those without code of their own are
	// missing.
	Lines []Line

	// Functions are those that begin in the file, by line: programs,
	// subprograms and callbacks. Functions that were inlined are part of those
	// which call them.
	Functions []Function

	// Branches are the conditions in the file, by line. A condition that was
	// compiled several times, as those of inlined functions are, is there for
	// each function of the program that it became part of.
	Branches []Branch
}

// A Line is a line of a file, counted from 1.
type Line struct {
	Number int
	State  State
}

// A Function is a function of a program.
type Function struct {
	Name  string
	Line  int   // where it begins, counted from 1
	State State // of its start

	// Count is of the lines whose code became part of the function, in this
	// file and in others.
	Count Count
}

// A Branch is a condition: the program jumps, or goes on.
type Branch struct {
	Function     string
	Line, Column int // counted from 1; column 0 is unknown
	State        State
	Jump, Next   Way
}

// A Way is one of the two that lead on from a condition.
type Way struct {
	// File and Line are where it leads. They are empty and 0 where the compiler
	// has not said.
	File  string
	Line  int
	State State
}

// A Count is a number of lines in each state.
type Count struct {
	Reached, NotReached, Unknown int
}

// Percent returns how many of the lines that are not unknown were reached:
// between 0 and 100, and 0 if there are none.
func (c Count) Percent() float64 {
	if c.Reached == 0 {
		return 0
	}
	return 100 * float64(c.Reached) / float64(c.Reached+c.NotReached)
}

// add counts a line.
func (c *Count) add(s State) {
	switch s {
	case NotReached:
		c.NotReached++
	case Unknown:
		c.Unknown++
	case Reached:
		c.Reached++
	}
}

// Count returns the number of lines in each state.
func (f *File) Count() (c Count) {
	for _, line := range f.Lines {
		c.add(line.State)
	}
	return c
}

// Files returns what the profile knows, by file. What is the same in several
// programs is merged: a line was reached if it was in one of them, and is
// unknown if it may have been.
func (p *Profile) Files() []File {
	files := map[string]*view{}
	at := func(name string) *view {
		if files[name] == nil {
			files[name] = &view{map[int]State{}, map[string]*functionView{}, map[branchKey]*Branch{}}
		}
		return files[name]
	}
	for _, f := range p.sorted() {
		if len(f.lines) == 0 {
			continue
		}
		own := at(f.start.file).function(f)
		for _, l := range f.lines {
			merge(at(l.file).lines, l.line, f.states[l.class])
			merge(own.lines, fileLine{l.file, l.line}, f.states[l.class])
		}
		for i, b := range f.branches {
			at(b.file).branch(f, i, b)
		}
	}

	var list []File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, files[name].file(name))
	}
	return list
}

// A view collects what several functions tell of a file.
type view struct {
	lines     map[int]State
	functions map[string]*functionView
	branches  map[branchKey]*Branch
}

type functionView struct {
	Function
	lines map[fileLine]State
}

type fileLine struct {
	file string
	line int
}

// A branchKey tells the conditions of a file apart.
type branchKey struct {
	code   recordKey
	number int
}

// merge sets the greater state, of what there is and s.
func merge[K comparable](states map[K]State, key K, s State) {
	states[key] = max(states[key], s)
}

func (v *view) function(f *covered) *functionView {
	own := v.functions[f.name]
	if own == nil {
		own = &functionView{Function{Name: f.name, Line: f.start.line}, map[fileLine]State{}}
		v.functions[f.name] = own
	}
	own.State = max(own.State, f.states[f.start.class])
	return own
}

func (v *view) branch(f *covered, number int, b recordBranch) {
	v.branches[branchKey{f.key, number}] = &Branch{
		Function: f.name, Line: b.line, Column: b.column, State: f.states[b.class],
		Jump: Way{b.jump.file, b.jump.line, f.states[b.jump.class]},
		Next: Way{b.next.file, b.next.line, f.states[b.next.class]},
	}
}

func (v *view) file(name string) File {
	f := File{Name: name}
	for _, n := range slices.Sorted(maps.Keys(v.lines)) {
		f.Lines = append(f.Lines, Line{n, v.lines[n]})
	}
	for _, own := range v.functions {
		for _, s := range own.lines {
			own.Count.add(s)
		}
		f.Functions = append(f.Functions, own.Function)
	}
	slices.SortFunc(f.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	keys := slices.SortedFunc(maps.Keys(v.branches), func(a, b branchKey) int {
		x, y := v.branches[a], v.branches[b]
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column), cmp.Compare(x.Function, y.Function),
			slices.Compare(a.code[:], b.code[:]), cmp.Compare(a.number, b.number))
	})
	for _, key := range keys {
		f.Branches = append(f.Branches, *v.branches[key])
	}
	return f
}
