package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/progrun/progrun"
	"golang.org/x/sys/unix"
)

// unheldCommand is the argument that makes the command a child that cannot hold
// programs. The CPU to run on is the next argument.
const unheldCommand = "unheld"

// unheld is a child process that runs live frames without CAP_SYS_ADMIN.
type unheld struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

// startUnheld starts the child with a program. It starts the child from a thread that
// gives up the capability and then ends.
func startUnheld(prog *ebpf.Program, cpu int) (*unheld, error) {
	u := &unheld{cmd: exec.Command("/proc/self/exe", unheldCommand, strconv.Itoa(cpu))}
	fd, err := unix.FcntlInt(uintptr(prog.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "program")
	defer file.Close()
	u.cmd.ExtraFiles, u.cmd.Stderr = []*os.File{file}, os.Stderr
	if u.in, err = u.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if u.out, err = u.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	err = onThread(func() error {
		return errors.Join(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0), u.cmd.Start())
	})
	return u, err
}

// run makes the child run n frames, and returns how long that took there.
func (u *unheld) run(n int) (took time.Duration, err error) {
	if _, err = fmt.Fprintln(u.in, n); err == nil {
		_, err = fmt.Fscan(u.out, &took)
	}
	if err != nil {
		return 0, fmt.Errorf("the process without privilege: %w", err)
	}
	return took, nil
}

func (u *unheld) stop() error {
	u.in.Close()
	return u.cmd.Wait()
}

// serveUnheld does the work of the child: it reads numbers of frames, and answers with
// times.
func serveUnheld(cpu string) error {
	on, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	prog, err := ebpf.NewProgramFromFD(3)
	if err != nil {
		return err
	}
	for {
		var n int64
		if _, err := fmt.Scan(&n); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		begin := time.Now()
		stats, err := progrun.Live{Packet: frame(packetSize), Frames: n, CPUs: []int{on}}.Run(context.Background(), prog)
		took := time.Since(begin)
		if err == nil && (stats.Held || stats.Frames != n) {
			err = fmt.Errorf("held %v, %d of %d frames", stats.Held, stats.Frames, n)
		}
		if err != nil {
			return err
		}
		fmt.Println(int64(took))
	}
}

// liveUnheld compares runs that cannot hold their program with a C loop that does not,
// by number of frames.
func (b *bench) liveUnheld() ([]point, error) {
	prog, err := b.load(returns(ebpf.XDP, xdpDrop))
	if err != nil {
		return nil, err
	}
	child, err := startUnheld(prog, b.cpu)
	if err != nil {
		return nil, err
	}
	b.atEnd = append(b.atEnd, child.stop)
	ctx := bytesOf(&xdpMD{DataEnd: packetSize, IngressIfindex: 1})
	var points []point
	for _, c := range []struct {
		frames int
		faster float64
	}{
		{oneCall / 4, 0.9},
		{oneCall, 0.95}, // one call each, which can be as fast at best
		{8 * oneCall, 1.2},
	} {
		frames := min(c.frames, oneCall)
		j := job{prog: prog, packet: frame(packetSize), ctx: ctx, repeat: uint32(frames), flags: liveFrames, batch: liveBatch, callRun: uint32(frames)}
		points = append(points, point{
			name: fmt.Sprintf("XDP_DROP, %d frames", c.frames), n: c.frames, share: 10,
			contenders: append(b.c.cFloor(j), contender{by: byProgrun, run: child.run}),
			claims:     []claim{{label: "times the C loop", of: byC, over: byProgrun, sense: atLeast, target: c.faster}},
		})
	}
	return points, nil
}
