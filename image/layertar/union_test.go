package layertar

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

var links = regexp.MustCompile(` nlink=[0-9]+`)

// TestPackUnion packs unions that the kernel mounts, after operations at random, with all that it keeps in layers:
// redirects, metacopies, an index. What was packed whole must unpack to what the union shows; what it changes must show the
// same over the lower layers.
func TestPackUnion(t *testing.T) {
	for _, o := range []layer.Options{{}, {RedirectDir: layer.RedirectOn}, {Metacopy: true}, {Index: true}, {Index: true, Metacopy: true}} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("%s seed %d", layer.Spec{Lower: []string{"l"}, Options: o}, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 2))
				spec := testunion.Random(t, r, layer.Options{})
				if o.Index { // which keeps names of one file together; without, copies of it go their ways
					testunion.Link(r, spec.Lower[2], 20)
				}
				spec.Options = o
				merged := testunion.Mount(t, spec)
				testunion.Change(t, r, merged, 60)
				out := testfs.Layers(t, 2)
				if _, err := unpack(t, out[0], packUnion(t, spec, PackOptions{}), Options{Xattr: trusted}); err != nil {
					t.Fatal(err)
				}
				changes := packUnion(t, spec, PackOptions{Changes: true, Base: len(spec.Lower)})
				if _, err := unpack(t, out[1], changes, Options{Xattr: trusted}); err != nil {
					t.Fatal(err)
				}
				again := testunion.Mount(t, layer.Spec{Lower: append(out[1:2:2], spec.Lower...)})
				show := func(dir string) string {
					text := testfs.Fingerprint(dir, testfs.Options{})
					if o.Index { // it counts names in a lower layer also where another one hides them
						text = links.ReplaceAllString(text, "")
					}
					return text
				}
				want := show(merged)
				if d := testfs.Diff(want, show(out[0])); d != "" {
					t.Errorf("the whole union:\n%s", d)
				}
				if d := testfs.Diff(want, show(again)); d != "" {
					t.Errorf("its changes over the lower layers:\n%s", d)
				}
				testunion.Unmount(t, again)
				testunion.Unmount(t, merged)
			})
		}
	}
}
