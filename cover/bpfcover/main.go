// Command bpfcover reports which lines of BPF programs ran in a test suite.
//
//	PROGRUN_COVERDIR=/tmp/cover go test -count=1 ./...
//	go run github.com/progrun/progrun/cover/bpfcover [flags] /tmp/cover
//
// It merges the profiles in the given folders, and prints a summary: files,
// functions, the lines that were not reached, and the conditions that always went
// one way.
//
// The reports show the sources where the tests found them. If objects were compiled
// elsewhere, tell the tests by Options.Dir of package cover. genhtml of lcov 2 takes
// compiled code for inconsistent, such as a function that ran only where it was
// inlined: call it with --ignore-errors inconsistent.
//
// The flags are:
//
//	-go file
//		write a profile that go tool cover -html shows
//	-lcov file
//		write a profile in the format of lcov, which genhtml and others read
//	-q
//		print only the total, the last line of the summary
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/progrun/progrun/cover"
)

func main() {
	goFile := flag.String("go", "", "write a profile that go tool cover -html shows to this `file`")
	lcovFile := flag.String("lcov", "", "write a profile in the format of lcov to this `file`")
	quiet := flag.Bool("q", false, "print only the total")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bpfcover [flags] folder...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := report(os.Stdout, os.Stderr, flag.Args(), *goFile, *lcovFile, *quiet); err != nil {
		fmt.Fprintln(os.Stderr, "bpfcover:", err)
		os.Exit(1)
	}
}

// report merges the profiles of the folders, and writes the requested reports. Notes
// say why reports show less than they could.
func report(out, notes io.Writer, folders []string, goFile, lcovFile string, quiet bool) error {
	whole := &cover.Profile{}
	for _, folder := range folders {
		p, err := cover.ReadDir(folder)
		if err != nil {
			return err
		}
		whole.Merge(p)
	}
	if err := write(goFile, whole.WriteGo); err != nil {
		return err
	}
	if err := write(lcovFile, whole.WriteLCOV); err != nil {
		return err
	}
	files := whole.Files()
	if len(files) == 0 {
		fmt.Fprintln(notes, "bpfcover: no program has line information, which clang -g writes and llvm-strip -g keeps")
	}
	for _, f := range files {
		if _, err := os.Stat(f.Name); err != nil && goFile+lcovFile != "" {
			fmt.Fprintf(notes, "bpfcover: %v: -go leaves the file out, and genhtml cannot show it\n", err)
		}
	}
	var text bytes.Buffer
	if err := whole.WriteText(&text); err != nil {
		return err
	}
	if quiet {
		last := bytes.LastIndexByte(bytes.TrimSuffix(text.Bytes(), []byte("\n")), '\n')
		text.Next(last + 1)
	}
	_, err := text.WriteTo(out)
	return err
}

// write writes a file, unless it has no name.
func write(file string, content func(io.Writer) error) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := content(f); err != nil {
		return err
	}
	return f.Close()
}
