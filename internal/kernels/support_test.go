package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someTable = `| program type | 5.10 | 6.1 |
|---|:-:|:-:|
| XDP | yes | yes |
| Tracing/fentry | – | yes |

–: the kernel has no such programs, or too little of them to run one.
`

const firstColumn = `| program type | 5.10 |
|---|:-:|
| XDP | yes |
| Tracing/fentry | – |

–: the kernel has no such programs, or too little of them to run one.
`

func someReports() []*report {
	return []*report{
		aReport("5.10", typesTest+" pass", typesTest+"/XDP pass", typesTest+"/Tracing pass", typesTest+"/Tracing/fentry skip no"),
		aReport("6.1", typesTest+" pass", typesTest+"/XDP pass", typesTest+"/Tracing pass", typesTest+"/Tracing/fentry pass"),
	}
}

func TestSupport(t *testing.T) {
	if got := supportOf(someReports()).markdown(); got != someTable {
		t.Errorf("got\n%s\nwant\n%s", got, someTable)
	}
	if got := parseSupport(someTable).markdown(); got != someTable {
		t.Errorf("read back, got\n%s\nwant\n%s", got, someTable)
	}
}

// A result that a machine does not permit differs from one that its kernel lacks.
func TestSupportForbidden(t *testing.T) {
	r := aReport("6.12-16k", typesTest+"/XDP pass", typesTest+"/Tracing skip load program: operation not permitted")
	r.arch = archs[1]
	const want = `| program type | 6.12-16k arm64 |
|---|:-:|
| XDP | yes |
| Tracing | † |

†: the machine that ran it does not permit them (EPERM).
16k: pages of 16 KiB.
`
	s := supportOf([]*report{r})
	if got := s.markdown(); got != want || s.failed() {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Debian's kernel of the same series takes the place of the host's.
func TestSupportHost(t *testing.T) {
	host := aReport("6.1", typesTest+"/XDP skip no")
	host.host = true
	for _, reports := range [][]*report{append(someReports(), host), append([]*report{host}, someReports()...)} {
		if got := supportOf(reports).cells["XDP"]["6.1"]; got != "yes" {
			t.Errorf("got %q, want yes", got)
		}
	}
}

func TestCheckReadme(t *testing.T) {
	wrong := strings.Replace(someTable, "– | yes", "– | –", 1)
	for _, test := range []struct {
		name, block string
		reports     []*report
		opts        options
		ok          bool
		want        string
	}{
		{"right", someTable, someReports(), options{}, true, someTable},
		{"wrong", wrong, someReports(), options{}, false, wrong},
		{"written", wrong, someReports(), options{write: true}, true, someTable},
		{"wrong where not run", wrong, someReports()[:1], options{kernels: "5.10"}, true, wrong},
		{"a kernel not run", someTable, someReports()[:1], options{}, true, someTable},
		{"a kernel not in it", someTable, append(someReports(), aReport("6.18", typesTest+"/XDP pass")), options{}, true, someTable},
		{"a type not in it", someTable, append(someReports(), aReport("6.1", typesTest+"/LSM pass")), options{}, false, someTable},
		{"a kernel too much", someTable, someReports()[:1], options{write: true}, true, firstColumn},
		{"empty", "", someReports(), options{write: true}, true, someTable},
		{"nothing ran", "", nil, options{run: "TestOther"}, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), filepath.Base(supportFile))
			text := func(block string) string { return "# p\n" + tableBegin + block + tableEnd + "end\n" }
			if err := os.WriteFile(name, []byte(text(test.block)), 0o644); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			ok, err := checkSupport(&b, name, test.reports, test.opts)
			if err != nil || ok != test.ok {
				t.Errorf("got %v, %v, want %v; printed:\n%s", ok, err, test.ok, b.String())
			}
			if got, _ := os.ReadFile(name); string(got) != text(test.want) {
				t.Errorf("the file is\n%s", got)
			}
		})
	}
}

func TestReadmeDiff(t *testing.T) {
	if got := diff("a\nb\n", "a\nc\n"); got != "-b\n+c\n" {
		t.Errorf("got %q", got)
	}
}
