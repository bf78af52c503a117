package cover

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// DirVariable is the environment variable that names the folder in which
// processes leave their profiles. The name has to be absolute, since go test
// runs each package in its own directory.
const DirVariable = "PROGRUN_COVERDIR"

// Wanted reports whether the environment names such a folder: then loaders of
// tests are to call [Instrument], and [Counters.Close] when the test is over.
func Wanted() bool { return os.Getenv(DirVariable) != "" }

// suffix ends the names of the files in such a folder.
const suffix = ".bpfcover"

// left is what this process has left behind.
var left struct {
	sync.Mutex
	name     string
	profiles map[string]*Profile // by folder
}

// WriteDir merges the profile into the folder dir, and makes the folder if it
// does not exist. There each process has one file, of all that it has written.
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

	content, err := json.Marshal(left.profiles[dir])
	if err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	// A reader, or the end of the process, must not find half a file.
	file := filepath.Join(dir, left.name)
	if err := os.WriteFile(file+".new", content, 0o666); err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	return nil
}

// ReadDir returns the profile that the processes have left in a folder. A
// folder without any is an error.
func ReadDir(dir string) (*Profile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
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
		return nil, errors.New("cover: no process has left a profile in " + dir)
	}
	return whole, nil
}
