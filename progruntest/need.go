package progruntest

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
)

// Need ends the test unless err is nil. It skips the test if the machine cannot run
// it, and fails it otherwise:
//
//   - It skips the test if err Is [ebpf.ErrNotSupported]: the kernel lacks what the
//     test needs. Runs return such errors, as do the probes of progrun and of
//     github.com/cilium/ebpf/features.
//   - It skips the test if err Is EPERM: the process lacks a privilege. EACCES is
//     different: the verifier refuses programs with it.
//   - It fails the test if the verifier refused a program, with the whole log.
//   - It fails the test on any other error, including EINVAL.
//
// The environment variable PROGRUN_REQUIRE makes tests fail instead of skipping
// them: "1" if a privilege is missing, "all" also if the kernel lacks a feature.
func Need(tb testing.TB, err error) {
	tb.Helper()
	var refused *ebpf.VerifierError
	switch {
	case err == nil:
	case errors.As(err, &refused) && len(refused.Log) > 0:
		tb.Fatalf("%v\nThe verifier's log:\n%s", err, strings.Join(refused.Log, "\n"))
	case errors.Is(err, ebpf.ErrNotSupported):
		skip(tb, "all", "this kernel lacks what the test needs", err)
	case errors.Is(err, syscall.EPERM):
		why := "the test needs a privilege that this process lacks"
		if os.Geteuid() != 0 {
			why += ", and root may have"
		}
		skip(tb, "1 all", why, err)
	default:
		tb.Fatal(err)
	}
}

// skip skips the test. It fails the test if failFor contains PROGRUN_REQUIRE.
func skip(tb testing.TB, failFor, why string, err error) {
	tb.Helper()
	switch require := os.Getenv("PROGRUN_REQUIRE"); {
	case require != "" && require != "1" && require != "all":
		tb.Fatalf("PROGRUN_REQUIRE=%s: it can be 1 or all; %s: %v", require, why, err)
	case require != "" && strings.Contains(failFor, require):
		tb.Fatalf("PROGRUN_REQUIRE=%s: %s: %v", require, why, err)
	}
	tb.Skipf("%s: %v", why, err)
}
