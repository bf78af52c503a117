package cover

import (
	"cmp"
	"maps"
	"slices"
)

// A File is the coverage of a source file.
type File struct {
	// Name is the absolute path.
	Name string

	// Lines are the lines with code of their own, in ascending order.
	Lines []Line

	// Functions are the programs, subprograms and callbacks that begin in the
	// file, ordered by line. Inlined functions are part of their callers.
	Functions []Function

	// Branches are the conditions in the file, ordered by line. A condition of an
	// inlined function appears once for each function into which it was inlined.
	Branches []Branch
}

// A Line is the coverage of a line.
type Line struct {
	Number int // counted from 1
	State  State
}

// A Function is the coverage of a program, a subprogram or a callback.
type Function struct {
	Name  string
	Line  int   // line where it begins, counted from 1
	State State // whether its start was reached

	// Count counts the lines whose code is part of the function, in this file and
	// in others.
	Count Count
}

// A Branch is the coverage of a condition, at which the program jumps or goes on.
type Branch struct {
	Function     string // name of the function
	Line, Column int    // counted from 1; column 0 is unknown
	State        State  // whether the condition was reached
	Jump, Next   Way    // the jump, and the way on without it
}

// A Way is one of the two ways that lead on from a condition.
type Way struct {
	// File and Line are where the way leads. They are "" and 0 if the line
	// information does not tell.
	File  string
	Line  int
	State State // whether the way was taken
}

// A Count is the number of lines in each state.
type Count struct {
	Reached, NotReached, Unknown int
}

// Percent returns the percentage of lines that were reached, from 0 to 100. It leaves
// unknown lines out, and returns 0 if there are no others.
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

// Files returns the coverage of each file, ordered by name. It merges what several
// programs share: a line is reached if one of them reached it, and unknown if one of
// them may have.
func (p *Profile) Files() []File {
	files := map[string]*view{}
	at := func(name string) *view {
		if files[name] == nil {
			files[name] = &view{map[int]State{}, map[string]*functionView{}, nil}
		}
		return files[name]
	}
	for _, f := range p.sorted() {
		r := f.Record
		if len(r.Lines) == 0 {
			continue
		}
		own := at(r.Files[r.Start.File]).function(f)
		for _, l := range r.Lines {
			merge(at(r.Files[l.File]).lines, l.Line, f.States[l.Class])
			merge(own.lines, fileLine{r.Files[l.File], l.Line}, f.States[l.Class])
		}
		for _, b := range r.Branches {
			v := at(r.Files[b.At.File])
			v.branches = append(v.branches, f.branch(b))
		}
	}

	var list []File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, files[name].file(name))
	}
	return list
}

// A view collects what several functions tell about a file.
type view struct {
	lines     map[int]State
	functions map[string]*functionView
	branches  []Branch
}

type functionView struct {
	Function
	lines map[fileLine]State
}

type fileLine struct {
	file string
	line int
}

// merge sets the state of key to the greater of its present state and s.
func merge[K comparable](states map[K]State, key K, s State) {
	states[key] = max(states[key], s)
}

func (v *view) function(f *covered) *functionView {
	own := v.functions[f.Record.Name]
	if own == nil {
		own = &functionView{Function{Name: f.Record.Name, Line: f.Record.Start.Line}, map[fileLine]State{}}
		v.functions[own.Name] = own
	}
	own.State = max(own.State, f.States[f.Record.Start.Class])
	return own
}

func (f *covered) branch(b recordBranch) Branch {
	way := func(l recordLine) Way { return Way{f.Record.Files[l.File], l.Line, f.States[l.Class]} }
	return Branch{f.Record.Name, b.At.Line, b.Column, f.States[b.At.Class], way(b.Jump), way(b.Next)}
}

func (v *view) file(name string) File {
	f := File{Name: name, Branches: v.branches}
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
	slices.SortStableFunc(f.Branches, func(a, b Branch) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Function, b.Function))
	})
	return f
}
