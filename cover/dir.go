package cover

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// DirVariable is the environment variable that names the folder for the profiles of
// processes. Its value must be an absolute path, since go test runs each package in
// its own directory.
const DirVariable = "PROGRUN_COVERDIR"

// Wanted reports whether [DirVariable] is set. If so, the loaders of tests should
// call [Instrument], and [Counters.Close] when the test ends.
func Wanted() bool { return os.Getenv(DirVariable) != "" }

// suffix is the suffix of the names of profiles in a folder.
const suffix = ".bpfcover"

// left is what this process has written.
var left struct {
	sync.Mutex
	name     string
	profiles map[string]*Profile // by folder
}

// WriteDir writes the profile to the folder dir, which it creates if necessary. Each
// process has one file there, into which WriteDir merges the profile.
func (p *Profile) WriteDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("cover: the folder for profiles, %q, has to be an absolute path: tests of different packages run in different directories", dir)
	}
	left.Lock()
	defer left.Unlock()
	if left.profiles == nil {
		left.name = fmt.Sprint(os.Getpid(), "-", rand.Text(), suffix)
		left.profiles = map[string]*Profile{}
	}
	if left.profiles[dir] == nil {
		left.profiles[dir] = &Profile{}
	}
	left.profiles[dir].Merge(p)

	if err := left.profiles[dir].write(filepath.Join(dir, left.name)); err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	return nil
}

// write writes the profile to a file. It renames a complete file, so that no reader finds
// half of one, even if the process ends.
func (p *Profile) write(file string) error {
	content, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", content, 0o666); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// ReadDir returns the merged profile of all processes that wrote to a folder. It
// returns an error if the folder has no profile, or does not exist.
func ReadDir(dir string) (*Profile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cover: %w", err)
	}
	whole := &Profile{}
	found := false
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), suffix) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("cover: %w", err)
		}
		part := &Profile{}
		if err := json.Unmarshal(content, part); err != nil {
			return nil, fmt.Errorf("cover: %s: %w", filepath.Join(dir, entry.Name()), err)
		}
		whole.Merge(part)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("cover: %s has no profile: tests leave one with %s=%s go test -count=1", dir, DirVariable, dir)
	}
	return whole, nil
}
