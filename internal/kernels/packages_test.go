package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const somePackages = `Package: linux-image-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Filename: pool/main/l/linux-image.deb
SHA256: 01

Package: linux-modules-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Filename: pool/main/l/linux-modules.deb
SHA256: 02

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1~deb12u1
Filename: pool/main/l/meta.deb
SHA256: 03

Package: linux-image-5.10.0-46-cloud-amd64
Version: 5.10.262-1
Filename: pool/main/l/old.deb
SHA256: 04

Package: busybox-static
Version: 1:1.37.0-6
Filename: pool/main/b/busybox-static_1.37.0-6_amd64.deb
SHA256: 05
`

func TestPackages(t *testing.T) {
	all := parsePackages(somePackages)
	if len(all) != 5 {
		t.Fatalf("got %d packages", len(all))
	}
	for i, want := range []string{"7.2", "", "", "5.10", ""} {
		if got := all[i].series("cloud-amd64"); got != want {
			t.Errorf("%s is of series %q, want %q", all[i].name, got, want)
		}
	}
	if got := newestSeries(all, "cloud-amd64"); got != "7.2" {
		t.Errorf("newest is %q", got)
	}
	if got := all[4].filename; got != "busybox-static_1%3a1.37.0-6_amd64.deb" {
		t.Errorf("apt-get downloads %q", got)
	}
	parts := all[0].parts(all)
	if len(parts) != 2 || parts[1].filename != "linux-modules.deb" {
		t.Errorf("parts %v", parts)
	}
}

// TestNewestCached checks that the newest kernel is found in the cache.
func TestNewestCached(t *testing.T) {
	a := &archive{arch: archs[1], dir: t.TempDir()}
	if got := a.newestCached("newest"); got != "" {
		t.Errorf("%q in an empty cache", got)
	}
	for _, name := range []string{"6.9/a.deb", "6.12/a.deb", "7.1-16k/a.deb", "7.2/none", "lists/a.deb"} {
		name = filepath.Join(a.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"newest": "6.12", "newest-16k": "7.1"} {
		if got := a.newestCached(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestSeries(t *testing.T) {
	if got := seriesOf("6.18.44-fc"); got != "6.18" {
		t.Errorf("got %q", got)
	}
	if compareSeries("5.9", "5.10") >= 0 || compareSeries("6.1", "6.1") != 0 {
		t.Error("series are not ordered by number")
	}
	amd64, arm64 := archs[0], archs[1]
	targets := sortTargets([]target{
		{arch: arm64, kernel: "6.12-16k"}, {arch: arm64, kernel: "6.12"}, {arch: arm64, kernel: "6.1"},
		{arch: amd64, kernel: "6.12"}, {arch: amd64, kernel: "5.10"}, {arch: amd64, kernel: "6.12"},
	})
	var got []string
	for _, t := range targets {
		got = append(got, t.name())
	}
	if want := []string{"5.10", "6.12", "6.1 arm64", "6.12 arm64", "6.12-16k arm64"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKernelsOf(t *testing.T) {
	for _, test := range []struct {
		opts options
		want string // of all architectures
	}{
		{options{}, "[host 5.10 6.1 6.12 newest] [6.12 6.12-16k] [6.12-64k] [6.1]"},
		{options{kernels: "5.10,host"}, "[5.10 host] [] [] []"},
		{options{goarch: "arm64"}, "[] [6.12 6.12-16k] [] []"},
		{options{goarch: "arm64", kernels: "newest-16k"}, "[] [newest-16k] [] []"},
		{options{goarch: "386", kernels: "6.12"}, "[6.12] [] [] []"},
	} {
		var got []string
		for _, a := range archs {
			names, err := test.opts.kernelsOf(a)
			if err != nil {
				t.Error(err)
			}
			got = append(got, fmt.Sprint(names))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%+v: got %v, want %s", test.opts, got, test.want)
		}
	}
	if _, err := (options{goarch: "vax"}).kernelsOf(archs[0]); err == nil {
		t.Error("there are kernels for vax")
	}
	if _, flavour, err := archs[1].flavour("6.12-16k"); err != nil || flavour != "arm64-16k" {
		t.Errorf("6.12-16k is of flavour %q, %v", flavour, err)
	}
	if _, _, err := archs[0].flavour("6.12-16k"); err == nil {
		t.Error("amd64 has kernels with pages of 16 KiB")
	}
}

// The cpio command reads what we write.
func TestCpio(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	var a cpio
	a.file("init", 0o755, []byte("#!"))
	a.dir("a/b")
	a.file("a/b/c", 0o644, []byte("12345"))
	cmd := exec.Command("cpio", "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(a.finish())
	got, err := output(cmd)
	if want := "init\na\na/b\na/b/c\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
