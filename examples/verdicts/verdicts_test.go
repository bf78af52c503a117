package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"github.com/progrun/progrun/progruntest"
)

var update = flag.Bool("update", false, "write the golden files")

// built is the path of the command, built as users build it.
var built string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "verdicts")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = filepath.Join(dir, "verdicts")
	out, err := exec.Command("go", "build", "-o", built, ".").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// needXDP skips a test that loads XDP programs if the process may not.
func needXDP(t *testing.T) {
	t.Helper()
	progruntest.Need(t, progrun.HaveProgramRun(ebpf.XDP))
}

// result is the output of a command, and its exit status.
type result struct {
	stdout, stderr string
	status         int
}

// command runs the command in a directory.
func command(t *testing.T, dir, stdin string, args ...string) result {
	t.Helper()
	cmd := exec.Command(built, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if stdin != "" {
		b, err := os.ReadFile(filepath.Join(dir, stdin))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = bytes.NewReader(b)
	}
	err := cmd.Run()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// String returns a result without times, which differ from run to run.
func (r result) String() string {
	s := r.stdout
	if r.stderr != "" {
		s += "--- standard error\n" + r.stderr
	}
	if r.status != 0 {
		s += fmt.Sprintf("--- exit status %d\n", r.status)
	}
	for _, v := range volatile {
		s = v.found.ReplaceAllString(s, v.instead)
	}
	return s
}

var volatile = []struct {
	found   *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?m)^Time per run: \d+ ns, the mean of \d+ single runs`), "Time per run: N ns, the mean of N single runs"},
	{regexp.MustCompile(`an empty program takes \d+ ns`), "an empty program takes N ns"},
	{regexp.MustCompile(`Median \d+ ns, 90th percentile \d+ ns, 99th \d+ ns`), "Median N ns, 90th percentile N ns, 99th N ns"},
	{regexp.MustCompile(`median: was \d+ ns, is \d+ ns`), "median: was N ns, is N ns"},
	{regexp.MustCompile(`(?m)^ +\d+ ns[ +] +\d+ %.*\n`), ""},
	{regexp.MustCompile(`_ns":\d+`), `_ns":N`},
	{regexp.MustCompile(`"runs":\d+`), `"runs":N`},
	{regexp.MustCompile(`"histogram":\[.*\]`), `"histogram":[…]`},
	{regexp.MustCompile(`program \d+`), "program N"},
}

// same compares a result with a golden file, or writes the file.
func same(t *testing.T, r result, name string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(r.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if have := r.String(); have != string(want) {
		t.Errorf("the output differs from %s (-update writes it):\n%s", file, diff(string(want), have))
	}
}

// diff returns the lines that only one of two texts has.
func diff(want, have string) string {
	var b strings.Builder
	only := func(mark, a, b string) (lines string) {
		there := map[string]bool{}
		for line := range strings.Lines(b) {
			there[line] = true
		}
		for line := range strings.Lines(a) {
			if !there[line] {
				lines += mark + line
			}
		}
		return lines
	}
	b.WriteString(only("-", want, have))
	b.WriteString(only("+", have, want))
	return b.String()
}

// This tests every kind of output on the real kernel, and every mistake.
func TestGolden(t *testing.T) {
	needXDP(t)
	dir := files(t)
	for _, test := range []struct {
		name, args, stdin string
		need              func() error // what the kernel needs
	}{
		{name: "default", args: ""},
		{name: "help", args: "-h"},

		// one program of each type that takes packets
		{name: "xdp-metadata", args: "-object xdp.o -program xdp_meta"},
		{name: "xdp-grow-head", args: "-object xdp.o -program xdp_grow_head"},
		{name: "tc", args: "-object tc.o -program tc_rewrite -pcap traffic.pcap"},
		{name: "tc-context", args: "-object tc.o -program tc_rewrite -context"},
		{name: "tc-json", args: "-object tc.o -program tc_rewrite -json"},
		{name: "act", args: "-object tc.o -program act_verdict"},
		{name: "socket-filter", args: "-object socket_filter.o"},
		{name: "lwt", args: "-object lwt.o -program lwt_in_push"},
		{name: "lwt-xmit", args: "-object lwt.o -program lwt_xmit_head"},
		{name: "lwt-danger", args: "-object lwt.o -program lwt_push"}, // never runs: it crashes some kernels
		{name: "lwt-danger-against", args: "-object lwt.o -program lwt_xmit_head -against lwt.o:lwt_push"},
		{name: "flow-dissector", args: "-object flow_dissector.o -program flow_dissect"},
		{name: "flow-dissector-json", args: "-object flow_dissector.o -program flow_dissect -json"},
		{name: "netfilter", args: "-object netfilter.o", need: haveNetfilter},

		// what is printed
		{name: "json", args: "-json"},
		{name: "only", args: "-only tx,XDP_ABORTED"},
		{name: "only-json", args: "-only drop -json"},
		{name: "only-nothing", args: "-only XDP_REDIRECT"},
		{name: "only-unknown", args: "-only drip,tz"},
		{name: "only-error", args: "-object tc.o -program tc_rewrite -only error"},
		{name: "golden-equal", args: "-golden before.json"},
		{name: "golden", args: "-object new.o -program xdp_filter -golden before.json"},
		{name: "golden-error", args: "-golden error.json"},
		{name: "golden-tc", args: "-object tc.o -program tc_rewrite -golden tc.json"},
		{name: "golden-other-capture", args: "-pcap sll.pcap -golden before.json"},
		{name: "golden-too-short", args: "-golden short.json"},
		{name: "golden-too-long", args: "-pcap short.pcapng -golden longer.json"},
		{name: "golden-truncated", args: "-pcap truncated.pcap -golden before.json"},
		{name: "golden-missing", args: "-golden nope.json"},
		{name: "golden-none", args: "-golden traffic.pcap"},
		{name: "against", args: "-object new.o -program xdp_filter -pcap traffic.pcap -against old.o"},
		{name: "against-equal", args: "-against xdp.o:xdp_filter"},
		{name: "against-other-type", args: "-against tc.o:tc_rewrite"},
		{name: "against-fields", args: "-program xdp_pass -against xdp.o:xdp_filter"},
		{name: "against-sizes", args: "-against xdp.o:xdp_grow_head"},
		{name: "against-metadata", args: "-program xdp_meta -against xdp.o:xdp_pass -pcap short.pcap"},
		{name: "against-tc", args: "-object tc.o -program tc_rewrite -against tc.o:tc_mark"},
		{name: "against-flow", args: "-object flow_dissector.o -program flow_dissect -against flow_dissector.o:flow_continue"},
		{name: "against-none", args: "-against xdp.o:nope"},
		{name: "against-capture", args: "-against traffic.pcap"},
		{name: "against-object-truncated", args: "-against truncated.o:xdp_filter"},
		{name: "against-short", args: "-pcap short.pcap -object new.o -program xdp_filter -against old.o"},
		{name: "against-truncated", args: "-pcap truncated.pcap -object new.o -program xdp_filter -against old.o"},
		{name: "against-jumbo", args: "-pcap jumbo.pcap -object xdp_frags.o -program xdp_frags_tail -against xdp.o:xdp_pass", need: progrun.HaveXDPMultiBuffer},

		{name: "time", args: "-time"},
		{name: "time-nothing", args: "-time -pcap tiny.pcap"},
		{name: "time-truncated", args: "-time -pcap truncated.pcap"},
		{name: "write", args: "-pcap traffic.pcap -only tx,drop -write only.pcap"},
		{name: "write-json", args: "-pcap traffic.pcap -only tx -json -write json.pcap"},
		{name: "write-truncated", args: "-pcap truncated.pcap -only tx -write rest.pcap"},
		{name: "write-nowhere", args: "-write nope/out.pcap"},
		{name: "write-full", args: "-only tx -write /dev/full"},

		// maps
		{name: "maps-empty", args: "-object firewall.o -program firewall -only drop,tx,pass"},
		{name: "maps", args: "-object firewall.o -program firewall -maps firewall.json -only drop,tx,pass"},
		{name: "map", args: "-object firewall.o -program firewall -map networks=dump.json -map longest=number.json -only drop"},
		{name: "maps-unused", args: "-object firewall.o -program last -maps firewall.json"},
		{name: "map-bad-value", args: "-object firewall.o -program firewall -map networks=number.json"},
		{name: "map-bad-json", args: "-object firewall.o -program firewall -map networks=traffic.pcap"},
		{name: "map-bad-field", args: "-object firewall.o -program firewall -map services=field.json"},
		{name: "map-bad-rule", args: "-object firewall.o -program firewall -map services=rule.json"},
		{name: "map-bad-size", args: "-object firewall.o -program firewall -map networks=size.json"},
		{name: "map-bad-index", args: "-object firewall.o -program firewall -map protocols=index.json"},
		{name: "map-bad-cpu", args: "-object firewall.o -program firewall -map protocols=cpu.json"},
		{name: "map-bad-inner", args: "-object firewall.o -program firewall -map tenants=inner.json"},
		{name: "map-no-value", args: "-object firewall.o -program firewall -map networks=value.json"},
		{name: "map-missing", args: "-object firewall.o -program firewall -map networks=nope.json"},
		{name: "maps-list", args: "-object firewall.o -program firewall -maps dump.json"},
		{name: "map-bad-program", args: "-object firewall.o -program firewall -map next=program.json"},

		// programs
		{name: "type", args: "-object firewall.o -program old -type xdp -only pass"},
		{name: "type-tc", args: "-object firewall.o -program old -type tc -only error"},
		{name: "type-missing", args: "-object firewall.o -program old"},
		{name: "type-wrong", args: "-object firewall.o -program old -type XDP"},
		{name: "program-missing", args: "-object socket_filter.o -program nope"},
		{name: "program-several", args: "-object cgroup_skb.o"},
		{name: "program-no-packets", args: "-object syscall.o -program syscall_add"},
		{name: "object-no-packets", args: "-object struct_ops.o"},
		{name: "object-missing", args: "-object nope.o"},
		{name: "object-none", args: "-object traffic.pcap"},
		{name: "object-other-order", args: "-object other.o"},
		{name: "object-truncated", args: "-object truncated.o"},
		{name: "id-missing", args: "-id 4294967295"},
		{name: "pinned-other", args: "-pinned traffic.pcap"},
		{name: "pinned-missing", args: "-pinned nope"},

		// captures
		{name: "pcapng", args: "-pcap traffic.pcapng -only tx"},
		{name: "gzip", args: "-pcap traffic.pcap.gz -only tx"},
		{name: "stdin", args: "-pcap - -only tx", stdin: "traffic.pcap.gz"},
		{name: "sll", args: "-pcap sll.pcap"},
		{name: "sll2", args: "-pcap sll2.pcap"},
		{name: "sll-json", args: "-pcap sll.pcap -json"},
		{name: "raw", args: "-pcap raw.pcap"},
		{name: "null", args: "-pcap null.pcap"},
		{name: "loop", args: "-pcap loop.pcap"},
		{name: "ppp", args: "-pcap ppp.pcap"},
		{name: "mixed", args: "-pcap mixed.pcapng"},
		{name: "wifi", args: "-pcap wifi.pcap"},
		{name: "wifi-later", args: "-pcap wifi.pcapng"},
		{name: "short", args: "-pcap short.pcap"},
		{name: "short-tc", args: "-object tc.o -program tc_mark -pcap short.pcap"},
		{name: "short-pcapng", args: "-pcap short.pcapng"},
		{name: "short-only", args: "-pcap tiny.pcap"},
		{name: "jumbo", args: "-pcap jumbo.pcap", need: progrun.HaveXDPMultiBuffer},
		{name: "jumbo-frags", args: "-object xdp_frags.o -program xdp_frags_tail -pcap jumbo.pcap", need: progrun.HaveXDPMultiBuffer},
		{name: "jumbo-json", args: "-pcap jumbo.pcap -json", need: progrun.HaveXDPMultiBuffer},
		{name: "truncated", args: "-pcap truncated.pcap"},
		{name: "truncated-json", args: "-pcap truncated.pcap -json -only drop"},
		{name: "truncated-pcapng", args: "-pcap truncated.pcapng -only tx"},
		{name: "truncated-gzip", args: "-pcap truncated.pcap.gz -only tx"},
		{name: "truncated-header", args: "-pcap header.pcap"},
		{name: "no-packets", args: "-pcap none.pcap"},
		{name: "empty", args: "-pcap empty.pcap"},
		{name: "empty-stdin", args: "-pcap -", stdin: "empty.pcap"},
		{name: "magic", args: "-pcap magic.pcap"},
		{name: "magic-object", args: "-pcap xdp.o"},
		{name: "capture-missing", args: "-pcap nope.pcap"},
		{name: "capture-directory", args: "-pcap ."},

		// flags
		{name: "flag-unknown", args: "-nope"},
		{name: "flag-argument", args: "traffic.pcap"},
		{name: "schema-alone", args: "-schema -json"},
		{name: "flag-exclusive", args: "-json -golden before.json"},
		{name: "flag-maps-id", args: "-id 1 -maps firewall.json"},
		{name: "write-itself", args: "-pcap traffic.pcap -write ./traffic.pcap"},
		{name: "write-no-packets", args: "-object netfilter.o -write out.pcap"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.need != nil {
				progruntest.Need(t, test.need())
			}
			same(t, command(t, dir, test.stdin, strings.Fields(test.args)...), test.name)
		})
	}
}

func haveNetfilter() error { return progrun.HaveProgramRun(ebpf.Netfilter) }

// Before Linux 6.14 cgroup_skb programs have no direct access to the packet. The
// command then says that the verdict may be wrong.
func TestCGroupSKB(t *testing.T) {
	needXDP(t)
	r := command(t, files(t), "", "-object", "cgroup_skb.o", "-program", "cgroup_egress")
	want := "UDP                         allow        75 bytes\n"
	if progrun.HaveCGroupSKBData() != nil {
		want = "75 bytes, the program saw only a part\n"
	}
	if !strings.Contains(r.stdout, want) || r.status != 0 {
		t.Errorf("no line ends with %q:\n%s", want, r)
	}
}

// The embedded copies are the same as in testdata.
func TestCopies(t *testing.T) {
	for original, embedded := range map[string][]byte{
		objectFile("xdp"): filterObject, filepath.Join(shared, "traffic.pcap"): trafficCapture,
	} {
		want, err := os.ReadFile(original)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(embedded, want) {
			t.Errorf("the copy of %s differs: testdata/Makefile renews it", original)
		}
	}
}

// What the verifier says of a program is printed.
func TestRefused(t *testing.T) {
	needXDP(t)
	r := command(t, "", "", "-type", "tc")
	if !strings.HasPrefix(r.stderr, "verdicts: program xdp_filter: load program: permission denied:\n") ||
		!strings.Contains(r.stderr, "invalid mem access") || strings.Count(r.stderr, "\n") > 25 || r.stdout != "" || r.status != 1 {
		t.Errorf("%s", r)
	}
}

// Output that cannot be written is an error.
func TestFull(t *testing.T) {
	needXDP(t)
	for _, flag := range []string{"-json", "-time", "-only=tx", "-against=" + objectFile("xdp") + ":xdp_filter"} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		var stderr bytes.Buffer
		cmd := exec.Command(built, flag)
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || stderr.String() != "verdicts: write /dev/stdout: no space left on device\n" {
			t.Errorf("%s: exit status %d, %s", flag, cmd.ProcessState.ExitCode(), &stderr)
		}
	}
}

// The README's comparison is what the command prints, without heading and times.
func TestREADME(t *testing.T) {
	progruntest.Need(t, progrun.HaveCGroupSKBData())
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "-against \"$PWD/testdata/cgroup_skb_bpfel.o:cgroup_ingress\"\n")
	shown, _, _ = strings.Cut(shown, "\n\n")
	r := command(t, files(t), "", "-object", "cgroup_skb.o", "-program", "cgroup_egress", "-against", "cgroup_skb.o:cgroup_ingress")
	lines := strings.Split(shown, "\n")
	for _, line := range lines {
		if !strings.Contains(r.stdout, strings.TrimPrefix(line, "    ")+"\n") {
			t.Errorf("not printed: %s", line)
		}
	}
	if len(lines) < 4 {
		t.Errorf("the README shows %q", shown)
	}
}

// The help lists every flag.
func TestHelp(t *testing.T) {
	o := &options{}
	o.flags().VisitAll(func(f *flag.Flag) {
		if !regexp.MustCompile(`(?m)^  -` + f.Name + `( |$)`).MatchString(help) {
			t.Errorf("the help says nothing of -%s", f.Name)
		}
	})
	for line := range strings.Lines(help) {
		if len(line) > 120 {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
}
