package progrun

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// liveHeads are the sizes of struct xdp_page_head: since Linux 6.3, and before.
var liveHeads = []int{112, 152}

// TestLiveLimit checks that the largest live frame, by what errors say, runs, and that
// the kernel refuses one byte more. Metadata does not count.
func TestLiveLimit(t *testing.T) {
	o := loadLive(t, "xdp_drop")
	for _, metadata := range []int{0, 4, int(largestMetadata(uint32(o.FD())))} {
		most := int(largestLive(uint32(o.FD()), uint32(metadata)))
		if most != xdpLinear-liveHeads[0] && most != xdpLinear-liveHeads[1] {
			t.Errorf("%d bytes of metadata: at most %d bytes, want what one of %v leaves of %d", metadata, most, liveHeads, xdpLinear)
		}
		before := liveCount(t, o)
		l := Live{Packet: frame(most), Metadata: make([]byte, metadata), Frames: 3}
		if stats, err := l.Run(context.Background(), o.Program); err != nil || stats.Frames != 3 {
			t.Errorf("%d bytes, %d of metadata: %+v, %v", most, metadata, stats, err)
		}
		l.Packet = frame(most + 1)
		_, err := l.Run(context.Background(), o.Program)
		wantError(t, err, fmt.Sprintf("Live.Packet: %s: the packet is too large for a live frame: at most %d bytes here", size(most+1), most), unix.EINVAL, RanNo)
		if n := liveCount(t, o) - before; n != 3 {
			t.Errorf("%d bytes, %d of metadata: %d frames ran, want 3", most, metadata, n)
		}
	}
}

// TestDocumentedSizes checks the table in doc.go against what follows from the page and
// the architecture. Other tests check these sizes against the kernel, for each type.
func TestDocumentedSizes(t *testing.T) {
	documented := documentedSizes(t)
	if documented == nil {
		t.Skipf("the table has no %s with pages of %d KiB", runtime.GOARCH, pageSize>>10)
	}
	for row, want := range map[string]int{
		"XDP, linear part":    xdpLinear,
		"XDP, 17 fragments":   xdpLinear + defaultFrags*pageSize,
		"Live":                xdpLinear - liveHeads[0],
		"TC, SocketFilter, …": skbLinear,
		"the same since 6.19": skbLinear + defaultFrags*pageSize,
		"Netfilter":           skbLinear,
		"FlowDissector":       pageSize,
	} {
		if documented[row] != fmt.Sprint(want) {
			t.Errorf("%s: the documentation says %q, want %d", row, documented[row], want)
		}
	}
}

// documentedSizes returns the table's column for this machine, or nil if there is
// none.
func documentedSizes(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "without\n// metadata:\n")
	table, _, _ = strings.Cut(table, "\n//\n// Before")
	var rows [][]string
	for line := range strings.Lines(table) {
		rows = append(rows, regexp.MustCompile(` {2,}|\t`).Split(strings.TrimSpace(strings.TrimPrefix(line, "//")), -1))
	}
	arch := strings.Replace(runtime.GOARCH, "386", "amd64", 1)
	for column := range rows[1] {
		if !strings.Contains(rows[1][column], arch) || rows[2][column+1] != fmt.Sprintf("%d KiB", pageSize>>10) {
			continue
		}
		sizes := map[string]string{}
		for _, row := range rows[3:] {
			sizes[row[0]] = row[column+1]
		}
		return sizes
	}
	return nil
}
