package cover

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample returns the profile of two files: a header and a program.
func sample() *Profile {
	p := &Profile{}
	main := &record{
		Name:    "main",
		Classes: 3,
		Files:   []string{"testdata/lines.c", "testdata/marks.h", ""},
		Start:   recordLine{0, 10, 0},
		Lines:   []recordLine{{1, 5, 0}, {0, 11, 0}, {0, 12, 1}, {0, 13, 1}, {0, 15, 2}, {1, 6, 1}},
		Branches: []recordBranch{
			{recordLine{0, 11, 0}, 6, recordLine{0, 15, 2}, recordLine{0, 12, 1}},
			{recordLine{0, 12, 1}, 9, recordLine{2, 0, 1}, recordLine{2, 0, 1}},
		},
	}
	p.add(main.finish(), states{Reached, NotReached, Reached})
	unused := &record{
		Name:    "unused",
		Classes: 2,
		Files:   []string{"testdata/lines.c", "/missing.c"},
		Start:   recordLine{0, 20, 0},
		Lines:   []recordLine{{0, 21, 0}, {0, 22, 1}, {0, 24, 0}, {1, 30, 0}},
	}
	p.add(unused.finish(), states{NotReached, Unknown})
	return p
}

func TestReports(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(*Profile, io.Writer) error
		want  string
	}{
		{"go", (*Profile).WriteGo, `mode: set
testdata/lines.c:11.1,11.1024 1 1
testdata/lines.c:12.1,12.1024 1 0
testdata/lines.c:13.1,13.1024 1 0
testdata/lines.c:15.1,15.1024 1 1
testdata/lines.c:21.1,21.1024 1 0
testdata/lines.c:24.1,24.1024 1 0
testdata/marks.h:5.1,5.1024 1 1
testdata/marks.h:6.1,6.1024 1 0
`},
		{"lcov", (*Profile).WriteLCOV, `TN:
SF:/missing.c
FNF:0
FNH:0
DA:30,0
LF:1
LH:0
end_of_record
TN:
SF:testdata/lines.c
FN:10,main
FNDA:1,main
FN:20,unused
FNDA:0,unused
FNF:2
FNH:1
BRDA:11,0,0,1
BRDA:11,0,1,0
BRDA:12,0,0,-
BRDA:12,0,1,-
BRF:4
BRH:1
DA:10,1
DA:11,1
DA:12,0
DA:13,0
DA:15,1
DA:20,0
DA:21,0
DA:24,0
LF:8
LH:3
end_of_record
TN:
SF:testdata/marks.h
FNF:0
FNH:0
DA:5,1
DA:6,0
LF:2
LH:1
end_of_record
`},
		{"text", (*Profile).WriteText, `/missing.c: 0 of 1 lines, 0.0 %
	not reached: 30
testdata/lines.c: 2 of 6 lines, 33.3 %, 1 more unknown
	main                     3 of 6 lines, 50.0 %
	unused                   never ran
	not reached: 12-13 21 24
	unknown: 22
	11:6 never led to line 12
testdata/marks.h: 1 of 2 lines, 50.0 %
	not reached: 6
total: 3 of 9 lines, 33.3 %, 1 more unknown
`},
	} {
		var out bytes.Buffer
		if err := c.write(sample(), &out); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, out.String(), c.want)
		}
	}
}

// TestMerge checks that the greater state of a line wins, whichever profile has it.
func TestMerge(t *testing.T) {
	other := &record{
		Name: "other", Classes: 2, Files: []string{"/src/other.c", "testdata/lines.c"},
		Start: recordLine{0, 1, 0}, Lines: []recordLine{{1, 12, 0}, {1, 13, 1}},
	}
	p := &Profile{}
	p.add(other.finish(), states{Reached, Unknown})
	whole := sample()
	whole.Merge(p)
	whole.Merge(sample())
	f := file(t, whole, "lines.c")
	for line, want := range map[int]State{11: Reached, 12: Reached, 13: Unknown, 21: NotReached, 22: Unknown} {
		if got := lineState(t, f, line); got != want {
			t.Errorf("line %d is %s, want %s", line, got, want)
		}
	}
}

// TestMergeOther merges functions whose lines are the same, but whose classes differ.
func TestMergeOther(t *testing.T) {
	p := &Profile{}
	for _, s := range []states{{NotReached}, {Reached, NotReached, Unknown}} {
		r := &record{Name: "main", Classes: len(s), Files: []string{"/src/main.c"}, Start: recordLine{0, 1, 0}, Lines: []recordLine{{0, 2, 0}}}
		p.add(r.finish(), s)
	}
	if got := lineState(t, file(t, p, "main.c"), 2); got != Reached {
		t.Errorf("the line is %s", got)
	}
}

// TestJSON checks that a profile survives its encoding, and that damaged text is not
// taken for a profile.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var p Profile
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	var before, after bytes.Buffer
	if err := sample().WriteLCOV(&before); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteLCOV(&after); err != nil {
		t.Fatal(err)
	}
	if before.String() != after.String() {
		t.Errorf("got\n%s\nwant\n%s", &after, &before)
	}
	for _, damage := range [][2]string{{`"202"`, `"20"`}, {`"202"`, `"209"`}, {`,"testdata/marks.h",""`, ``}, {`"c":2`, `"c":3`}, {`"c":2`, `"c":-1`}, {`"Record"`, `"Recor"`}, {`{`, `[`}} {
		damaged := strings.Replace(string(text), damage[0], damage[1], 1)
		if damaged == string(text) {
			t.Fatalf("%s has no %s", text, damage[0])
		}
		if err := json.Unmarshal([]byte(damaged), &Profile{}); err == nil {
			t.Errorf("%s was read", damaged)
		}
	}
}

// TestFilesJSON checks that what Files returns can be read as JSON.
func TestFilesJSON(t *testing.T) {
	text, err := json.Marshal(sample().Files()[1].Lines[:2])
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"Number":11,"State":"reached"},{"Number":12,"State":"not reached"}]`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// TestDefinition checks where a function begins, if lines in it name it as well.
func TestDefinition(t *testing.T) {
	file := filepath.Join(t.TempDir(), "filter.c")
	text := "int filter(struct xdp_md *ctx);\n\nint filter(struct xdp_md *ctx)\n{\n\tbpf_printk(\"filter: drop\");\n\treturn 1;\n}\n" +
		"int\nBPF_PROG(other, int x)\n{\n\tstruct other *o;\n\treturn 2;\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	s := newSources("")
	for name, lines := range map[string][2]int{"filter": {6, 3}, "other": {12, 9}, "absent": {12, 0}} {
		if got, ok := s.definition(name, file, lines[0]); got != lines[1] || ok != (lines[1] > 0) {
			t.Errorf("%s ends in line %d and begins in line %d, want %d", name, lines[0], got, lines[1])
		}
	}
}

// TestLocate looks for sources that are not where the compiler found them.
func TestLocate(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "lib", "parse.h")
	if err := os.MkdirAll(filepath.Dir(source), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, name, want string }{
		{"", "/build/lib/parse.h", "/build/lib/parse.h"},
		{"", "./parse.h", filepath.Join(here, "parse.h")},
		{dir, "lib/parse.h", source},
		{dir, "/build/project/lib/parse.h", source},
		{dir, "../project/lib/parse.h", source},
		{dir, "/build/lib/other.h", "/build/lib/other.h"},
		{dir, "other.h", filepath.Join(dir, "other.h")},
		{"testdata", "./lines.c", filepath.Join(here, "testdata", "lines.c")},
		{"testdata", source, source},
	} {
		if got := locate(c.dir, c.name); got != c.want {
			t.Errorf("locate(%q, %q) = %s, want %s", c.dir, c.name, got, c.want)
		}
	}
}

// TestStateText marshals states as text and back.
func TestStateText(t *testing.T) {
	for _, s := range []State{NotReached, Unknown, Reached} {
		text, err := json.Marshal(s)
		if want := `"` + s.String() + `"`; err != nil || string(text) != want {
			t.Errorf("got %s, %v, want %s", text, err, want)
		}
		var back State
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%s came back as %v, %v", text, back, err)
		}
	}
	var s State
	if err := s.UnmarshalText([]byte("State(3)")); err == nil {
		t.Errorf("State(3) was taken for %v", s)
	}
}
