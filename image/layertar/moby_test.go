package layertar

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	moby "github.com/moby/go-archive"

	"github.com/unionfsd/unionfsd/fs/diff"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

// TestMoby compares what we say of upper layers, and make of them, with what Docker's own code does: its comparison of two
// trees, its layer from an overlay, and its way to apply a layer to a plain tree.
func TestMoby(t *testing.T) {
	for seed := range 2 * *seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			spec := testunion.Random(t, r, layer.Options{})
			dirs := testfs.Layers(t, 2)
			was := testunion.Mount(t, layer.Spec{Lower: spec.Lower})
			now := testunion.Mount(t, spec)
			testunion.Change(t, r, now, 60)
			want := show(now)

			changes, err := moby.ChangesDirs(now, was)
			if err != nil {
				t.Fatal(err)
			}
			if d := testfs.Diff(mobyChanges(changes), ourChanges(t, spec)); d != "" {
				t.Errorf("changes:\n%s", d)
			}

			layerTar := packUnion(t, spec, PackOptions{Changes: true, Base: len(spec.Lower)})
			native, err := moby.TarWithOptions(spec.Upper, &moby.TarOptions{WhiteoutFormat: moby.OverlayWhiteoutFormat})
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := io.ReadAll(native)
			if err != nil {
				t.Fatal(err)
			}
			if d := testfs.Diff(entries(t, bytes.NewReader(theirs)), entries(t, bytes.NewReader(layerTar))); d != "" {
				t.Errorf("entries of the layer:\n%s", d)
			}

			if out, err := exec.Command("cp", "-a", was+"/.", dirs[0]).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if _, err := moby.UnpackLayer(dirs[0], bytes.NewReader(layerTar), &moby.TarOptions{}); err != nil {
				t.Fatal(err)
			}
			if d := testfs.Diff(withoutXattrs(want), withoutXattrs(show(dirs[0]))); d != "" {
				t.Errorf("our layer, applied by Docker's code:\n%s", d)
			}

			if _, err := unpack(t, dirs[1], theirs, Options{Xattr: trusted}); err != nil {
				t.Fatal(err)
			}
			again := testunion.Mount(t, layer.Spec{Lower: append(dirs[1:2:2], spec.Lower...)})
			if d := testfs.Diff(withoutXattrs(want), withoutXattrs(show(again))); d != "" {
				t.Errorf("their layer, unpacked by us:\n%s", d)
			}
			for _, dir := range []string{again, now, was} {
				testunion.Unmount(t, dir)
			}
		})
	}
}

// withoutXattrs drops from the text of a tree what Docker drops from a layer, and leaves on a directory that has lost it.
func withoutXattrs(tree string) string {
	return regexp.MustCompile(` user\.comment="[^"]*"`).ReplaceAllString(tree, "")
}

func mobyChanges(changes []moby.Change) string {
	slices.SortFunc(changes, func(a, b moby.Change) int { return strings.Compare(a.Path, b.Path) })
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c.String())
	}
	return b.String()
}

func ourChanges(t *testing.T, spec layer.Spec) string {
	t.Helper()
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	changes, err := diff.Changes(stack)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// entries lists an archive by names, with types, owners and modes.
func entries(t *testing.T, r io.Reader) string {
	t.Helper()
	var list []string
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(h.Name[strings.LastIndexByte(strings.TrimSuffix(h.Name, "/"), '/')+1:], ".wh.") {
			list = append(list, h.Name)
			continue
		}
		list = append(list, fmt.Sprintf("%s %c %o %d:%d %s", h.Name, h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, h.Linkname))
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}
