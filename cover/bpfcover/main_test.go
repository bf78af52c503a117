package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
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
		var out, notes bytes.Buffer
		if err := report(&out, &notes, []string{dir}, goFile, lcovFile, quiet); err != nil {
			t.Fatal(err)
		}
		if want := "total: 0 of 0 lines\n"; out.String() != want {
			t.Errorf("printed %q, want %q", out.String(), want)
		}
		if !strings.Contains(notes.String(), "no program has line information") {
			t.Errorf("the notes are %q", notes.String())
		}
	}
	if content, err := os.ReadFile(goFile); err != nil || string(content) != "mode: set\n" {
		t.Errorf("the Go profile is %q, %v", content, err)
	}
	if content, err := os.ReadFile(lcovFile); err != nil || len(content) != 0 {
		t.Errorf("the file of lcov is %q, %v", content, err)
	}
	if err := report(io.Discard, io.Discard, []string{t.TempDir()}, "", "", false); err == nil {
		t.Error("a folder without profiles was reported on")
	}
}

// TestMissingSource checks the reports and notes on a source that does not exist.
func TestMissingSource(t *testing.T) {
	dir := t.TempDir()
	profile := `[{"Record":{"Name":"f","Classes":1,"Files":["/missing.c"],"Start":{"f":0,"l":1,"c":0},"Lines":[{"f":0,"l":1,"c":0}]},"States":"2"}]`
	if err := os.WriteFile(filepath.Join(dir, "1.bpfcover"), []byte(profile), 0o666); err != nil {
		t.Fatal(err)
	}
	goFile := filepath.Join(dir, "cover.out")
	var out, notes bytes.Buffer
	if err := report(&out, &notes, []string{dir}, goFile, "", true); err != nil {
		t.Fatal(err)
	}
	if want := "total: 1 of 1 lines, 100.0 %\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	if !strings.Contains(notes.String(), "/missing.c: no such file or directory: -go leaves the file out") {
		t.Errorf("the notes are %q", notes.String())
	}
	if content, err := os.ReadFile(goFile); err != nil || string(content) != "mode: set\n" {
		t.Errorf("the Go profile is %q, %v", content, err)
	}
}
