package progruntest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/progrun/progrun"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// thread returns the name of the calling thread's network namespace.
func thread() string {
	ns, err := os.Readlink(threadNetNS)
	if err != nil {
		return err.Error()
	}
	return ns
}

func TestNetNS(t *testing.T) {
	needPrivilege(t)
	home := thread()
	var ns string
	var n *NetNS
	attempt(func(tb testing.TB) {
		n = NewNetNS(tb)
		if now := thread(); now != home {
			t.Errorf("in %s after NewNetNS", now)
		}
		n.Do(tb, func(tb testing.TB) {
			ns = thread()
			links, err := netlink.LinkList()
			if err != nil || len(links) != 1 || links[0].Attrs().Name != "lo" {
				tb.Errorf("it has %v, %v", links, err)
			}
		})
		if now := thread(); now != home || ns == home {
			t.Errorf("in %s, then %s", ns, now)
		}
	}).wantPassed(t)
	if n.Fd() != -1 {
		t.Error("open after the test")
	}
	attempt(func(tb testing.TB) { n.Do(tb, func(testing.TB) {}) }).
		wantFailed(t, "enter a network namespace: bad file descriptor")
}

// TestNetNSEnds checks that the goroutine comes back however Do ends, and that its
// thread can then serve others.
func TestNetNSEnds(t *testing.T) {
	needPrivilege(t)
	for name, end := range map[string]func(testing.TB){
		"Fatal":  func(tb testing.TB) { tb.Fatal("end") },
		"Skip":   func(tb testing.TB) { tb.Skipf("end") },
		"panic":  func(tb testing.TB) { panic("end") },
		"return": func(tb testing.TB) {},
	} {
		t.Run(name, func(t *testing.T) {
			home := thread()
			var ns, after string
			r := attempt(func(tb testing.TB) {
				defer func() {
					after = thread()
					if name == "panic" && recover() != "end" {
						t.Error("the panic is lost")
					}
				}()
				NewNetNS(tb).Do(tb, func(tb testing.TB) {
					ns = thread()
					end(tb)
				})
			})
			if r.failed != (name == "Fatal") || r.skipped != (name == "Skip") {
				t.Errorf("%+v", r)
			}
			if ns == home || after != home {
				t.Errorf("from %s to %s to %s", home, ns, after)
			}
			wantGone(t, ns)
			if _, inside := visits.Load("Test"); inside {
				t.Error("the test counts as inside")
			}
		})
	}
}

// wantGone waits until no thread and no file of the process refers to a namespace.
func wantGone(t *testing.T, ns string) {
	t.Helper()
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		left = nil
		for _, dir := range []string{"/proc/self/task", "/proc/self/fd"} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				name := dir + "/" + e.Name()
				if strings.HasSuffix(dir, "task") {
					name += "/ns/net"
				}
				if to, err := os.Readlink(name); err == nil && to == ns {
					left = append(left, name)
				}
			}
		}
		if left == nil {
			return
		}
	}
	t.Errorf("%s is left in %v", ns, left)
}

func TestNetNSNested(t *testing.T) {
	home := thread()
	a, b := NewNetNS(t), NewNetNS(t)
	var in []string
	a.Do(t, func(t testing.TB) {
		in = append(in, thread())
		b.Do(t, func(t testing.TB) { in = append(in, thread()) })
		a.Do(t, func(t testing.TB) { in = append(in, thread()) })
		in = append(in, thread())
		checkNetNS(t)
	})
	if in[0] == home || in[1] == home || in[0] == in[1] || in[2] != in[0] || in[3] != in[0] || thread() != home {
		t.Errorf("in %v", in)
	}
}

// TestNetNSSubtests runs subtests in the namespace, one after another and in parallel.
func TestNetNSSubtests(t *testing.T) {
	home := thread()
	prog, _ := load(t, "xdp", "xdp_pass")
	n := NewNetNS(t)
	var ns string
	n.Do(t, func(testing.TB) { ns = thread() })
	for i := range 4 {
		n.Run(t, fmt.Sprint(i), func(t *testing.T) {
			if i > 1 {
				t.Parallel()
			}
			if now := thread(); now != ns || now == home {
				t.Errorf("in %s", now)
			}
			Run(t, prog, progrun.XDP{Packet: packet()})
			n.Run(t, "deeper", func(t *testing.T) {
				if now := thread(); now != ns {
					t.Errorf("in %s", now)
				}
			})
		})
	}
}

// TestNetNSStray checks that subtests fail if they were started in Do, but run outside
// of the namespace.
func TestNetNSStray(t *testing.T) {
	prog, _ := load(t, "xdp", "xdp_pass")
	run := func(tb testing.TB) { Run(tb, prog, progrun.XDP{Packet: packet()}) }
	n, other := NewNetNS(t), NewNetNS(t)
	if os.Getenv(asChild) != "" {
		n.Do(t, func(testing.TB) { t.Run("sub", func(t *testing.T) { run(t) }) })
		return
	}
	n.Do(t, func(testing.TB) {
		const text = "TestNetNSStray is inside of NetNS.Do, but its subtest is not"
		attemptNamed(t.Name()+"/sub", run).wantFailed(t, text)
		attemptNamed(t.Name()+"/sub/deeper", run).wantFailed(t, text)
		attemptNamed(t.Name()+"/sub", func(tb testing.TB) { object := object(tb, "xdp"); NewCollection(tb, object) }).wantFailed(t, text)
		attemptNamed(t.Name()+"/sub", func(tb testing.TB) { n.Do(tb, run) }).wantPassed(t)
		attemptNamed(t.Name()+"/sub", func(tb testing.TB) { other.Do(tb, run) }).wantPassed(t)
		attemptNamed(t.Name()+"Other/sub", run).wantPassed(t)
	})
	attemptNamed(t.Name()+"/sub", run).wantPassed(t)
	out := child(t, "-test.run=^TestNetNSStray$")
	if !strings.Contains(out, "--- FAIL: TestNetNSStray/sub") || !strings.Contains(out, "TestNetNSStray is inside of NetNS.Do") {
		t.Error("the child does not notice")
	}
}

// errFirstThread is the error of visitFromFirstThread, which TestMain calls on the
// process's first thread.
var errFirstThread error

// visitFromFirstThread makes a namespace on the first thread, and visits it.
func visitFromFirstThread() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	first, onFirst := unix.Getpid(), false
	home := thread()
	var err error
	// Threads that are locked cannot run other goroutines, so the next one runs on the
	// first thread.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 64 {
		done := make(chan struct{})
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() == first {
				onFirst = true
				runtime.UnlockOSThread()
				r := &recorder{name: "TestMain"}
				NewNetNS(r).Do(r, func(tb testing.TB) {
					if unix.Gettid() == first {
						tb.Error("in Do on the first thread")
					}
					if ns, _ := os.Readlink("/proc/self/ns/net"); ns != home {
						tb.Error("the process seems to be in another namespace")
					}
				})
				r.cleanup()
				if r.failed {
					err = errors.New(strings.Join(r.log, "; "))
				}
				runtime.LockOSThread()
			}
			close(done)
			<-stop
		})
		<-done
		if onFirst {
			break
		}
	}
	close(stop)
	wg.Wait()
	if !onFirst {
		return errors.New("no goroutine came to the first thread")
	}
	return err
}

func TestNetNSFirstThread(t *testing.T) {
	NewNetNS(t) // skips the test without privilege
	if errFirstThread != nil {
		t.Error(errFirstThread)
	}
}

func TestLockThread(t *testing.T) {
	for range 100 {
		lockThread(t)
		if unix.Gettid() == unix.Getpid() {
			t.Fatal("on the first thread")
		}
		runtime.UnlockOSThread()
	}
}
