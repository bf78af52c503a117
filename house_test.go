package progrun

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFileCircles limits how many files may use each other in a circle. A reader of one
// of them has to read them all.
func TestFileCircles(t *testing.T) {
	const most = 4
	uses := fileUses(t)
	for _, circle := range circles(uses) {
		t.Logf("%d files use each other: %s", len(circle), strings.Join(circle, " "))
		if len(circle) > most {
			t.Errorf("a circle of %d files, more than %d", len(circle), most)
		}
	}
}

// fileUses returns which files of this package each file uses, on linux/amd64.
func fileUses(t *testing.T) map[string]map[string]bool {
	t.Helper()
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH = "linux", "amd64"
	pkg, err := ctx.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	// Imports are empty packages. A use of another file of this package shows without
	// them.
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: emptyImporter{}, Error: func(error) {}}
	own, _ := conf.Check("progrun", fset, files, &info)
	uses := map[string]map[string]bool{}
	for id, obj := range info.Uses {
		if obj.Pkg() != own {
			continue
		}
		from, to := fset.File(id.Pos()).Name(), fset.File(obj.Pos()).Name()
		if uses[from] == nil {
			uses[from] = map[string]bool{}
		}
		if from != to {
			uses[from][to] = true
		}
	}
	if len(uses) < len(files)/2 {
		t.Fatalf("only %d of %d files use anything", len(uses), len(files))
	}
	return uses
}

type emptyImporter struct{}

func (emptyImporter) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}

// circles returns the groups of files that reach each other.
func circles(uses map[string]map[string]bool) [][]string {
	reach := map[string]map[string]bool{}
	for from := range uses {
		seen := map[string]bool{}
		var walk func(string)
		walk = func(f string) {
			for to := range uses[f] {
				if !seen[to] {
					seen[to] = true
					walk(to)
				}
			}
		}
		walk(from)
		reach[from] = seen
	}
	var found [][]string
	done := map[string]bool{}
	for from := range uses {
		if done[from] || !reach[from][from] {
			continue
		}
		var circle []string
		for to := range reach[from] {
			if reach[to][from] {
				circle = append(circle, to)
				done[to] = true
			}
		}
		slices.Sort(circle)
		found = append(found, circle)
	}
	return found
}

// TestProgramKinds checks that every type of request has a row in programKinds, with
// all its parts, and that no program type is in two rows.
func TestProgramKinds(t *testing.T) {
	var all programTypes
	for _, k := range programKinds {
		if k.request == "" || k.rules == nil || len(k.rules()) == 0 {
			t.Errorf("the row of %q lacks its name or its rules", k.request)
		}
		if all&k.types != 0 {
			t.Errorf("%s: one of its types is in another row too", k.request)
		}
		all |= k.types
		if k.ctxSize > largestContext {
			t.Errorf("%s: a context of %d bytes does not fit in a call", k.request, k.ctxSize)
		}
	}
	packets := typesWith(t, "packetIn")
	for _, k := range programKinds {
		if k.types&packetTypes != 0 && !slices.Contains(packets, k.request) {
			t.Errorf("Any runs programs of %s, which is no PacketRequest", k.request)
		}
		if k.types&^packetTypes != 0 && slices.Contains(packets, k.request) {
			t.Errorf("Any does not run all programs of %s, which is a PacketRequest", k.request)
		}
	}
	for _, name := range requestTypes(t) {
		known := slices.ContainsFunc(programKinds[:], func(k programKind) bool { return k.request == name })
		if !known && !slices.Contains([]string{"Any", "Raw", "Live"}, name) { // these run programs of other rows
			t.Errorf("%s has a Run, but no row", name)
		}
	}
}

// requestTypes returns the exported types with a method Run.
func requestTypes(t *testing.T) []string {
	t.Helper()
	names := typesWith(t, "Run")
	if len(names) < len(programKinds) {
		t.Fatalf("only %d types with a Run: %v", len(names), names)
	}
	return names
}

// TestTextForms checks that every exported type that prints as a word marshals as text
// and back. Errors have no way back, and timings have fields of their own.
func TestTextForms(t *testing.T) {
	printed := typesWith(t, "String")
	if len(printed) < 10 {
		t.Fatalf("only %d types with a String: %v", len(printed), printed)
	}
	for _, name := range printed {
		if name == "Timing" || name == "TimingBucket" {
			continue
		}
		for _, method := range []string{"MarshalText", "UnmarshalText"} {
			if !slices.Contains(typesWith(t, method), name) {
				t.Errorf("%s has a String, but no %s", name, method)
			}
		}
	}
}

// typesWith returns the exported types of the package with a method of this name.
func typesWith(t *testing.T, method string) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv != nil && d.Name.Name == method {
				of := d.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				if id, ok := of.(*ast.Ident); ok && id.IsExported() {
					names = append(names, id.Name)
				}
			}
		}
	}
	return names
}
