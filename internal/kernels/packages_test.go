package main

import (
	"bytes"
	"os/exec"
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
`

func TestPackages(t *testing.T) {
	all := parsePackages(somePackages)
	if len(all) != 4 {
		t.Fatalf("got %d packages", len(all))
	}
	for i, want := range []string{"7.2", "", "", "5.10"} {
		if got := all[i].series(); got != want {
			t.Errorf("%s is of series %q, want %q", all[i].name, got, want)
		}
	}
	if got := newestSeries(all); got != "7.2" {
		t.Errorf("newest is %q", got)
	}
	parts := all[0].parts(all)
	if len(parts) != 2 || parts[1].filename != "linux-modules.deb" {
		t.Errorf("parts %v", parts)
	}
}

func TestSeries(t *testing.T) {
	if got := seriesOf("6.18.44-fc"); got != "6.18" {
		t.Errorf("got %q", got)
	}
	if compareSeries("5.9", "5.10") >= 0 || compareSeries("6.1", "6.1") != 0 {
		t.Error("series are not ordered by number")
	}
	got := sortTargets([]target{{series: "6.12"}, {series: "5.10"}, {series: "6.12"}})
	if len(got) != 2 || got[0].series != "5.10" {
		t.Errorf("got %v", got)
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
