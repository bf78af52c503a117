//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// newNetNS makes a network namespace, and returns its file.
func newNetNS() (ns *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot make a network namespace: %w", err)
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// inNetNS runs f on a thread in a namespace.
func inNetNS(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot join the network namespace %s: %w", ns.Name(), err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own. f may change the thread, since it ends with
// f. It is never the process's first thread: that one does not end, and /proc shows
// its state as that of the process.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends
		if unix.Gettid() == unix.Getpid() {
			err := onThread(f) // this thread is locked, so f gets another
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
