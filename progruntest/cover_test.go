package progruntest

import (
	"testing"

	"github.com/progrun/progrun"
	"github.com/progrun/progrun/cover"
)

// TestCover checks that the loaders leave a profile of what a test reached, with the
// options of Cover.
func TestCover(t *testing.T) {
	needPrivilege(t)
	for _, skip := range []string{"", "xdp_pass"} {
		dir := t.TempDir()
		t.Setenv(cover.DirVariable, dir)
		Cover(cover.Options{Skip: []string{skip}, Dir: "../testdata"})
		defer Cover(cover.Options{})
		t.Run("", func(t *testing.T) {
			prog, _ := load(t, "xdp", "xdp_pass")
			Run(t, prog, progrun.XDP{Packet: packet()})
		})
		profile, err := cover.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := cover.Reached
		if skip != "" {
			want = cover.Unknown
		}
		files := profile.Files()
		if len(files) != 1 || len(files[0].Functions) != 1 || files[0].Functions[0].Name != "xdp_pass" || files[0].Functions[0].State != want {
			t.Errorf("%q left out: %+v, want xdp_pass %v", skip, files, want)
		}
	}
}
