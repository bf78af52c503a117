package progrun

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestRaw compares Raw with the typed requests.
func TestRaw(t *testing.T) {
	tc := load(t, "tc", "tc_mark")
	in := skBuff{mark: 7}
	ctxOut, out := make([]byte, 256), make([]byte, 100)
	res, err := Raw{DataIn: frame(64), DataOut: out, CtxIn: view(&in), CtxOut: ctxOut, Repeat: 2}.Run(tc.Program)
	if err != nil {
		t.Fatal(err)
	}
	if TCVerdict(res.Retval) != TCActOK { // the second run finds the mark of the first
		t.Errorf("verdict %s", TCVerdict(res.Retval))
	}
	if res.DataSizeOut != 64 || res.CtxSizeOut < 184 || res.CtxSizeOut > 192 || // later kernels have more fields
		res.Duration <= 0 {
		t.Errorf("got %+v", res)
	}
	if string(out[:64]) != string(frame(64)) {
		t.Errorf("the packet came out as %x", out)
	}
	if n := runs(t, tc); n != 2 {
		t.Errorf("ran %d times", n)
	}
}

func TestRawTail(t *testing.T) {
	tc := load(t, "tc", "tc_mark")
	for _, n := range []int{1, 4, 5, 100, 4020} {
		if _, err := (Raw{DataIn: frame(64), Tail: make([]byte, n)}).Run(tc.Program); err != nil {
			t.Errorf("%d zeros after the last field: %v", n, err)
		}
	}
	before := runs(t, tc)
	_, err := Raw{DataIn: frame(64), Tail: []byte{1}}.Run(tc.Program)
	wantError(t, err, "Raw.Tail: this kernel knows no such field", unix.EINVAL, RanNo)
	_, err = Raw{DataIn: frame(64), Tail: append(make([]byte, 4000), 1)}.Run(tc.Program)
	wantError(t, err, "Raw.Tail: the attr is longer than this kernel's", unix.E2BIG, RanNo)
	_, err = Raw{DataIn: frame(64), Tail: make([]byte, 4021)}.Run(tc.Program)
	wantError(t, err, "Raw.Tail: 4021 bytes: at most 4020 bytes", unix.E2BIG, RanNo)
	if n := runs(t, tc); n != before {
		t.Errorf("ran %d times", n-before)
	}
}

func TestRawRefusals(t *testing.T) {
	for _, c := range []struct {
		name, file, program string
		raw                 Raw
		text                string
		is                  error
	}{
		{"unknown flag", "tc", "tc_mark", Raw{DataIn: frame(64), Flags: 1 << 20},
			"Raw.Flags: 0x100000: the only flag here is BPF_F_TEST_SKB_CHECKSUM_COMPLETE: invalid argument", unix.EINVAL},
		{"batch size without live frames", "xdp", "xdp_ctx", Raw{DataIn: frame(64), BatchSize: 1}, "Raw.BatchSize: 1: ", unix.EINVAL},
		{"cpu", "tc", "tc_mark", Raw{DataIn: frame(64), CPU: 1}, "Raw.CPU: 1: must be 0 for this type", unix.EINVAL},
		{"no packet", "tc", "tc_mark", Raw{}, "Raw.DataIn: 0 bytes: a packet begins with a 14-byte Ethernet header", unix.EINVAL},
		{"forbidden field", "tc", "tc_mark", Raw{DataIn: frame(64), CtxIn: view(&skBuff{hash: 0x01000001})},
			"Raw.CtxIn: byte 68 is not 0: this field of the context cannot be set", unix.EINVAL},
		{"long context", "tc", "tc_mark", Raw{DataIn: frame(64), CtxIn: append(make([]byte, 192), 1)},
			"Raw.CtxIn: 193 bytes: all bytes beyond the end of this kernel's context must be 0: argument list too long", unix.E2BIG},
		{"longer context", "tc", "tc_mark", Raw{DataIn: frame(64), CtxIn: make([]byte, pageSize+1)},
			"Raw.CtxIn: " + size(pageSize+1) + ": a context is at most a page, " + fmt.Sprint(pageSize) + " bytes here", unix.E2BIG},
		{"live frames of TC", "tc", "tc_mark", Raw{DataIn: frame(64), Flags: testXDPLiveFrames},
			"Raw.Flags: 0x2: only XDP programs run on live frames", unix.EINVAL},
		{"live frames with data", "xdp", "xdp_ctx", Raw{DataIn: frame(64), DataOut: make([]byte, 64), Flags: testXDPLiveFrames},
			"Raw.DataOut: 64 bytes: live frames have no output", unix.EINVAL},
		{"live frames with context", "xdp", "xdp_ctx", Raw{DataIn: frame(64), CtxOut: make([]byte, 24), Flags: testXDPLiveFrames},
			"Raw.CtxOut: 24 bytes: live frames have no output", unix.EINVAL},
		{"large batch", "xdp", "xdp_ctx", Raw{DataIn: frame(64), BatchSize: 257, Flags: testXDPLiveFrames},
			"Raw.BatchSize: 257: over the kernel's 256: argument list too long", unix.E2BIG},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := load(t, c.file, c.program)
			_, err := c.raw.Run(o.Program)
			wantError(t, err, c.text, c.is, RanNo)
			if n := runs(t, o); n != 0 {
				t.Errorf("ran %d times", n)
			}
		})
	}
}

// TestRawUnknownXDPFlag sets a flag that kernels before 5.18 ignore.
func TestRawUnknownXDPFlag(t *testing.T) {
	o := load(t, "xdp", "xdp_ctx")
	raw := Raw{DataIn: frame(64), Flags: 1 << 20}
	_, err := raw.Run(o.Program)
	if !knowsBatchSize() {
		if ignored := raw.Ignored(ebpf.XDP); err != nil || !slices.Equal(ignored, []string{"Flags"}) || runs(t, o) != 1 {
			t.Errorf("%v is ignored, %v", ignored, err)
		}
		return
	}
	wantError(t, err, "Raw.Flags: 0x100000: the only flag here is BPF_F_TEST_XDP_LIVE_FRAMES", unix.EINVAL, RanNo)
	if n := runs(t, o); n != 0 {
		t.Errorf("ran %d times", n)
	}
}

// TestRawShortOutput runs with buffers that are too small. They hold as much as fits,
// and the error says that the program ran.
func TestRawShortOutput(t *testing.T) {
	tc := load(t, "tc", "tc_verdict")
	set(t, tc, "verdict", 0, uint32(5))
	buf := make([]byte, 64)
	for i := range buf {
		buf[i] = 0xee
	}
	res, err := Raw{DataIn: frame(64), DataOut: buf[:10]}.Run(tc.Program)
	wantError(t, err, "Raw.DataOut: 10 bytes: the output is larger: 64 bytes: no space left on device", unix.ENOSPC, RanYes)
	if res.Retval != 5 || res.DataSizeOut != 64 {
		t.Errorf("got %+v", res)
	}
	if string(buf[:10]) != string(frame(64)[:10]) {
		t.Errorf("the start of the packet came out as %x", buf[:10])
	}
	for i, b := range buf[10:] {
		if b != 0xee {
			t.Fatalf("byte %d was written to", 10+i)
		}
	}
	_, err = Raw{DataIn: frame(64), CtxOut: make([]byte, 8)}.Run(tc.Program)
	wantError(t, err, "Raw.CtxOut: 8 bytes: the context is larger", unix.ENOSPC, RanYes)
}
