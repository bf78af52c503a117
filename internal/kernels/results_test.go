package main

import (
	"strings"
	"testing"
	"time"
)

// runSection passes the output of a test binary through test2json.
func runSection(t *testing.T, s section) *results {
	t.Helper()
	r := newResults()
	if err := r.add(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResults(t *testing.T) {
	out := `=== RUN   TestA
=== RUN   TestA/sub
    a_test.go:3: first
    a_test.go:4: no such
        program type
--- PASS: TestA (0.00s)
    --- SKIP: TestA/sub (0.00s)
=== RUN   TestB
    a_test.go:9: wrong
--- FAIL: TestB (0.00s)
FAIL
`
	r := runSection(t, section{path: "p", output: []byte(out), ended: true, status: 1})
	for name, want := range map[string]status{"TestA": passed, "TestA/sub": skipped, "TestB": failed} {
		if got := r.byID[testID{"p", name}]; got == nil || got.status != want {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
	if len(r.order) != 3 {
		t.Errorf("results of %v, want three tests", r.order)
	}
	if got := r.byID[testID{"p", "TestA/sub"}].reason(); got != "no such program type" {
		t.Errorf("reason %q", got)
	}
	if got := strings.Join(r.byID[testID{"p", "TestB"}].output, ""); got != "    a_test.go:9: wrong\n" {
		t.Errorf("output %q", got)
	}
}

// A test that ran when the machine stopped has failed, and so has its package.
func TestUnfinished(t *testing.T) {
	r := runSection(t, section{path: "p", output: []byte("=== RUN   TestA\n    a_test.go:3: so far\n")})
	res := r.byID[testID{"p", "TestA"}]
	if res == nil || res.status != failed || !strings.Contains(strings.Join(res.output, ""), "did not end") {
		t.Errorf("TestA: %+v", res)
	}
	if whole := r.byID[testID{pkg: "p"}]; whole == nil || whole.status != failed {
		t.Errorf("package: %+v", whole)
	}
	if !r.unfinished["p"] {
		t.Error("the package counts as finished")
	}
}

// A package can fail in TestMain although all its tests pass.
func TestPackageFails(t *testing.T) {
	out := "=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\nleaked a program\n"
	r := runSection(t, section{path: "p", output: []byte(out), ended: true, status: 1})
	whole := r.byID[testID{pkg: "p"}]
	if whole == nil || whole.status != failed || strings.Join(whole.output, "") != "leaked a program\n" {
		t.Errorf("package: %+v", whole)
	}
}

func TestParseGuest(t *testing.T) {
	out := parseGuest([]byte("##booted 4.50\n##begin p/a\nPASS\n\n##end p/a 0\n##begin p/b\npartial"))
	if out.boot != 4500*time.Millisecond {
		t.Errorf("booted in %s", out.boot)
	}
	if a := out.sections["p/a"]; !a.ended || a.status != 0 || string(a.output) != "PASS\n\n" {
		t.Errorf("a: %+v", a)
	}
	if b := out.sections["p/b"]; b.ended || string(b.output) != "partial" {
		t.Errorf("b: %+v", b)
	}
}

func TestComplaints(t *testing.T) {
	if got := complaints([]byte("[ 1.0] random: crng init done\r\n[ 2.0] DEBUG: fine\r\n")); got != nil {
		t.Errorf("complaints about nothing: %q", got)
	}
	got := complaints([]byte("[ 1.0] fine\r\n[ 2.0] kernel BUG at net/core/dev.c:3370!\r\n[ 2.0] WARNING: CPU: 1 PID: 9 at net/core\r\n[ 2.0] Call Trace:\r\n"))
	if len(got) != 1 || !strings.HasSuffix(got[0], "Call Trace:") || strings.Contains(got[0], "fine") {
		t.Errorf("complaints %q", got)
	}
}
