package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/progrun/progrun/cover"
)

// TestReport makes the reports of a folder with an empty profile.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	if err := (&cover.Profile{}).WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	goFile, lcovFile := filepath.Join(dir, "cover.out"), filepath.Join(dir, "lcov.info")
	for _, quiet := range []bool{false, true} {
		var out bytes.Buffer
		if err := report(&out, []string{dir}, goFile, lcovFile, quiet); err != nil {
			t.Fatal(err)
		}
		if want := "total: 0 of 0 lines\n"; out.String() != want {
			t.Errorf("printed %q, want %q", out.String(), want)
		}
	}
	if content, err := os.ReadFile(goFile); err != nil || string(content) != "mode: set\n" {
		t.Errorf("the Go profile is %q, %v", content, err)
	}
	if content, err := os.ReadFile(lcovFile); err != nil || len(content) != 0 {
		t.Errorf("the file of lcov is %q, %v", content, err)
	}
	if err := report(&bytes.Buffer{}, []string{t.TempDir()}, "", "", false); err == nil {
		t.Error("a folder without profiles was reported on")
	}
}
