package main

import (
	"strings"
	"testing"
)

// aReport returns the report of a kernel, made from lines such as "TestA/sub pass".
func aReport(series string, lines ...string) *report {
	r := &report{target: target{arch: archs[0], kernel: series}, results: newResults()}
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		word, reason, _ := strings.Cut(rest, " ")
		res := r.results.get(testID{"example.com/p", name})
		res.status = status(word)
		if reason != "" {
			res.output = []string{"    p_test.go:1: " + reason + "\n"}
		}
	}
	return r
}

func TestTable(t *testing.T) {
	reports := []*report{
		aReport("5.10", "TestA pass", "TestA/old pass", "TestB skip too old"),
		aReport("6.1", "TestA pass", "TestA/new skip too old", "TestB fail broken", "TestC pass"),
	}
	reports[0].results.unfinished["example.com/p"] = true
	var b strings.Builder
	newTable(reports).print(&b, false)
	want := `test       5.10      6.1
TestA      pass      pass
TestA/new            skip [1]
TestB      skip [1]  FAIL
TestC      FAIL      pass

[1] too old
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	newTable(reports).print(&b, true)
	if !strings.Contains(b.String(), "TestA/old  pass") {
		t.Errorf("with every subtest:\n%s", b.String())
	}
	b.Reset()
	if n := newTable(reports).printFailures(&b); n != 2 || !strings.Contains(b.String(), "broken") {
		t.Errorf("%d failures:\n%s", n, b.String())
	}
}

func TestPassedNowhere(t *testing.T) {
	reports := []*report{
		aReport("5.10", "TestA skip no", "TestB skip no", "TestC fail no"),
		aReport("6.1", "TestA pass", "TestB skip no", "TestC skip no"),
	}
	ids := newTable(reports).passedNowhere()
	if len(ids) != 1 || ids[0].name != "TestB" {
		t.Errorf("got %v, want TestB", ids)
	}
	var b strings.Builder
	if printReports(&b, reports[1:], options{}) {
		t.Error("a full run is well although TestB passed nowhere")
	}
	if printReports(&b, reports[1:], options{short: true}) {
		t.Error("a run with -short is well although TestB passed nowhere")
	}
	if !printReports(&b, reports[1:], options{kernels: "6.1"}) {
		t.Error("a run on one kernel is not well although nothing failed there")
	}
}

func TestTrouble(t *testing.T) {
	r := aReport("5.10", "TestA pass")
	r.trouble = []string{"The kernel complained:\nOops: 0"}
	var b strings.Builder
	if printReports(&b, []*report{r}, options{}) || !strings.Contains(b.String(), "Oops: 0") {
		t.Errorf("an Oops is not reported:\n%s", b.String())
	}
}
