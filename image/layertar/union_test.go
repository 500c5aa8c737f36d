package layertar

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

// show is the text of a tree without numbers of links: the kernel counts names in a lower layer also where an upper one hides
// them. Which names are one file is in the text all the same.
func show(dir string) string {
	return links.ReplaceAllString(testfs.Fingerprint(dir, testfs.Options{}), "")
}

var links = regexp.MustCompile(` nlink=[0-9]+`)

// seeds is how many random unions of each kind there are.
var seeds = flag.Uint64("layertar.seeds", 6, "random unions of each kind")

// TestPackUnion packs unions that the kernel mounts, after operations at random, with all that it keeps in layers:
// redirects, metacopies, an index. What was packed whole must unpack to what the union shows; what it changes must show the
// same over the lower layers.
func TestPackUnion(t *testing.T) {
	for _, o := range []layer.Options{{}, {RedirectDir: layer.RedirectOn}, {Metacopy: true}, {Index: true}, {Index: true, Metacopy: true}} {
		for seed := range *seeds {
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
