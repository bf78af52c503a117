package cover

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
)

// encoded is a profile in JSON. A line is three numbers: of the file, of the line
// and of the class. The states of classes are a string with a digit for each.
type encoded struct {
	Files     []string          `json:"files"`
	Functions []encodedFunction `json:"functions"`
}

type encodedFunction struct {
	Name     string          `json:"name"`
	Start    [3]int          `json:"start"`
	Lines    [][3]int        `json:"lines"`
	Branches []encodedBranch `json:"branches,omitempty"`
	States   string          `json:"states"`
}

type encodedBranch struct {
	Line   [3]int `json:"line"`
	Column int    `json:"column"`
	Jump   [3]int `json:"jump"`
	Next   [3]int `json:"next"`
}

// MarshalJSON returns the profile in JSON, to be stored or merged elsewhere. The
// format may change from one version of the package to the next.
func (p *Profile) MarshalJSON() ([]byte, error) {
	e := encoded{}
	numbers := map[string]int{}
	encode := func(l recordLine) [3]int {
		n, ok := numbers[l.file]
		if !ok {
			n = len(e.Files)
			numbers[l.file] = n
			e.Files = append(e.Files, l.file)
		}
		return [3]int{n, l.line, l.class}
	}
	for _, f := range p.sorted() {
		out := encodedFunction{Name: f.name, Start: encode(f.start)}
		for _, l := range f.lines {
			out.Lines = append(out.Lines, encode(l))
		}
		for _, b := range f.branches {
			out.Branches = append(out.Branches, encodedBranch{encode(b.recordLine), b.column, encode(b.jump), encode(b.next)})
		}
		states := make([]byte, len(f.states))
		for c, s := range f.states {
			states[c] = '0' + byte(s)
		}
		out.States = string(states)
		e.Functions = append(e.Functions, out)
	}
	return json.Marshal(e)
}

var errDamaged = errors.New("this is no profile, or one of another version")

// UnmarshalJSON parses what MarshalJSON returns.
func (p *Profile) UnmarshalJSON(text []byte) error {
	var e encoded
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	*p = Profile{}
	for _, f := range e.Functions {
		r, states, err := f.decode(e.Files)
		if err != nil {
			return err
		}
		p.add(r, states)
	}
	return nil
}

func (f *encodedFunction) decode(files []string) (*record, []State, error) {
	var states []State
	for _, digit := range []byte(f.States) {
		if digit < '0' || digit > '0'+byte(Reached) {
			return nil, nil, errDamaged
		}
		states = append(states, State(digit-'0'))
	}
	damaged := false
	decode := func(l [3]int) recordLine {
		if l[0] < 0 || l[0] >= len(files) || l[2] < 0 || l[2] >= len(states) {
			damaged = true
			return recordLine{}
		}
		return recordLine{files[l[0]], l[1], l[2]}
	}
	r := &record{name: f.Name, classes: len(states), start: decode(f.Start)}
	for _, l := range f.Lines {
		r.lines = append(r.lines, decode(l))
	}
	for _, b := range f.Branches {
		r.branches = append(r.branches, recordBranch{decode(b.Line), b.Column, decode(b.Jump), decode(b.Next)})
	}
	if damaged {
		return nil, nil, errDamaged
	}
	return r.finish(), states, nil
}

// sorted returns the functions in a fixed order.
func (p *Profile) sorted() []*covered {
	return slices.SortedFunc(maps.Values(p.functions), func(a, b *covered) int {
		return slices.Compare(a.key[:], b.key[:])
	})
}
