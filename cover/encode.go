package cover

import (
	"encoding/json"
	"errors"
	"slices"
)

// MarshalJSON returns the profile in JSON, to be stored or merged elsewhere. The
// format may change from one version of the package to the next.
func (p *Profile) MarshalJSON() ([]byte, error) { return json.Marshal(p.sorted()) }

var errDamaged = errors.New("this is no profile, or one of another version")

// UnmarshalJSON parses what MarshalJSON returns.
func (p *Profile) UnmarshalJSON(text []byte) error {
	var list []*covered
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	*p = Profile{}
	for _, f := range list {
		if f == nil || f.Record == nil || !f.valid() {
			return errDamaged
		}
		p.add(f.Record.finish(), f.States)
	}
	return nil
}

// valid reports whether all states, files and classes are ones that there are.
func (f *covered) valid() bool {
	r := f.Record
	lines := append([]recordLine{r.Start}, r.Lines...)
	for _, b := range r.Branches {
		lines = append(lines, b.At, b.Jump, b.Next)
	}
	return len(f.States) == r.Classes && len(f.States) > 0 && slices.Max(f.States) <= Reached &&
		!slices.ContainsFunc(lines, func(l recordLine) bool {
			return l.File < 0 || l.File >= len(r.Files) || l.Class < 0 || l.Class >= r.Classes
		})
}
