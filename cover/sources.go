package cover

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// sources finds the files that line information names, and the functions in them.
type sources struct {
	dir   string
	found map[string]string   // path by name
	text  map[string][]string // lines by path; empty if the file cannot be read
}

func newSources(dir string) *sources {
	return &sources{dir, map[string]string{}, map[string][]string{}}
}

// definition returns the line where a function begins, given its file and the line where
// it ends: the closest line above that names it as a definition or a macro does. Line
// information does not tell, since the first code of a function may come from an
// inlined one.
func (s *sources) definition(name, path string, end int) (line int, ok bool) {
	text, ok := s.text[path]
	if !ok {
		content, _ := os.ReadFile(path)
		text = strings.Split(string(content), "\n")
		s.text[path] = text
	}
	word := regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\s*[(,)]`)
	for n := min(end, len(text)); n > 0; n-- {
		if word.MatchString(text[n-1]) {
			return n, true
		}
	}
	return 0, false
}

// locate returns the path of a file.
func (s *sources) locate(name string) string {
	path, ok := s.found[name]
	if !ok {
		path = locate(s.dir, name)
		s.found[name] = path
	}
	return path
}

// locate returns the path of a file that a compiler has named. The path is absolute,
// unless the current directory cannot be found.
func locate(dir, name string) string {
	path := filepath.Clean(name)
	if filepath.IsAbs(path) && (dir == "" || exists(path)) {
		return path
	}
	for rest, ok := path, true; ok; {
		if moved := filepath.Join(dir, rest); dir != "" && exists(moved) {
			path = moved
			break
		}
		_, rest, ok = strings.Cut(rest, string(filepath.Separator))
	}
	if !filepath.IsAbs(path) && path == filepath.Clean(name) {
		path = filepath.Join(dir, path)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
