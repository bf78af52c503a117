package progrun

import (
	"slices"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/progrun/progrun/internal/carrier"
)

// LiveVerdicts counts the verdicts of frames.
type LiveVerdicts struct {
	Aborted  int64 `json:"aborted"`
	Drop     int64 `json:"drop"`
	Pass     int64 `json:"pass"`
	TX       int64 `json:"tx"`
	Redirect int64 `json:"redirect"`
	// Other counts unknown verdicts, for which the kernel drops the frame.
	Other int64 `json:"other"`
}

// Total returns how many frames had a verdict.
func (v LiveVerdicts) Total() int64 {
	return v.Aborted + v.Drop + v.Pass + v.TX + v.Redirect + v.Other
}

func (v *LiveVerdicts) add(other LiveVerdicts) {
	v.Aborted += other.Aborted
	v.Drop += other.Drop
	v.Pass += other.Pass
	v.TX += other.TX
	v.Redirect += other.Redirect
	v.Other += other.Other
}

// Exchange replaces the program of a [Live] during its run. The zero value is ready
// to use. Several runs and several goroutines may use one Exchange.
type Exchange struct {
	mu   sync.Mutex
	runs []*carrier.Live
}

// Put replaces the program of every run under way that has x. Frames that start after
// Put returns run prog. Every frame runs either the old program or prog. The runs do
// not stop, and need no new hold.
//
// Put returns an error if no run is under way (EINVAL), or if prog does not fit the
// first program of a run: they must agree on BPF_F_XDP_HAS_FRAGS and on the attach
// type, 0 or BPF_XDP. It replaces no program of that run then, and maybe those of
// others. The caller may close prog after Put.
func (x *Exchange) Put(prog *ebpf.Program) error {
	if _, err := xdpTypes.descriptor("Exchange", prog); err != nil {
		return err
	}
	if err := carriable("Exchange", prog); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.runs) == 0 {
		return refuse("Exchange", "", "", "no run is under way", syscall.EINVAL)
	}
	for _, run := range x.runs {
		if err := run.Exchange(prog); err != nil {
			return &Error{Request: "Exchange", Rule: "the program does not fit the first program of the run: both must have the same attach type, and both or neither BPF_F_XDP_HAS_FRAGS",
				Err: errnoOf(err)}
		}
	}
	return nil
}

// carriable returns an error if the kernel refuses every request to run the program. A
// carrier must not run it either: without its device, such a program could read what is
// not there, and some kernels have no check for that.
func carriable(request string, prog *ebpf.Program) error {
	if neverRuns(prog) {
		return refuse(request, "", "", neverRunsText, syscall.EINVAL)
	}
	return nil
}

func (x *Exchange) enter(run *carrier.Live) {
	if x != nil {
		x.mu.Lock()
		x.runs = append(x.runs, run)
		x.mu.Unlock()
	}
}

func (x *Exchange) leave(run *carrier.Live) {
	if x != nil {
		x.mu.Lock()
		x.runs = slices.DeleteFunc(x.runs, func(r *carrier.Live) bool { return r == run })
		x.mu.Unlock()
	}
}
