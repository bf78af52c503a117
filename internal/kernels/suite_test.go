package main

import (
	"regexp"
	"slices"
	"testing"
)

// TestArgs checks that with -short, each architecture but amd64 runs its own choice of
// tests, unless -run chooses.
func TestArgs(t *testing.T) {
	for _, a := range archs {
		_, err := regexp.Compile(a.short)
		if err != nil || (a.short == "") != (a.goarch == native) {
			t.Errorf("%s with -short: %q, %v", a.goarch, a.short, err)
		}
		for _, test := range []struct {
			opts options
			run  string
		}{
			{options{}, ""}, {options{short: true}, a.short}, {options{short: true, run: "X"}, "X"}, {options{run: "X"}, "X"},
		} {
			args := testArgs(a, test.opts)
			if !slices.Contains(args, "-test.run="+test.run) {
				t.Errorf("%s, %+v: %q, want -run %q", a.goarch, test.opts, args, test.run)
			}
			if fewer := slices.Contains(args, "-test.short"); fewer == (a.goarch == native) {
				t.Errorf("%s: %q", a.goarch, args)
			}
		}
	}
}
