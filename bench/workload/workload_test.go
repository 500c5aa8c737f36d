package workload

import (
	"os"
	"slices"
	"testing"
)

// Names are what --workloads takes and what a report is indexed by: each only once.
func TestNames(t *testing.T) {
	rows, names := map[string]bool{}, map[string]bool{}
	for _, w := range All() {
		if names[w.Name] || slices.Contains(Groups, w.Name) {
			t.Errorf("two meanings of the name %q", w.Name)
		}
		names[w.Name] = true
		if !slices.Contains(Groups, w.Group) {
			t.Errorf("%s: unknown group %q", w.Name, w.Group)
		}
		if w.Doc == "" || w.Layers.Build == nil || w.Layers.Name == "" || len(w.Steps) == 0 {
			t.Errorf("%s is not complete", w.Name)
		}
		more := []string{w.Mount}
		for _, s := range w.Steps {
			more = append(more, s.Name, s.Memory, s.PageCache)
		}
		for _, name := range more {
			if name != "" && rows[name] {
				t.Errorf("two rows with the name %q", name)
			}
			rows[name] = true
		}
	}
	for _, group := range Groups {
		if list, err := Select([]string{group}); err != nil || len(list) == 0 {
			t.Errorf("group %s: %d workloads, %v", group, len(list), err)
		}
	}
}

func TestSelect(t *testing.T) {
	list, err := Select([]string{"rename", "byte-1g", "scale"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, w := range list {
		names = append(names, w.Name)
	}
	if !slices.Contains(names, "names") || !slices.Contains(names, "byte-1g") || !slices.Contains(names, "million") || slices.Contains(names, "walk") {
		t.Errorf("selected %v", names)
	}
	if _, err := Select([]string{"nothing"}); err == nil {
		t.Error("an unknown name was accepted")
	}
}

func TestScale(t *testing.T) {
	for _, test := range []struct {
		scale   Scale
		n, want int
	}{{1, 5000, 5000}, {0.01, 5000, 50}, {0.001, 50, 4}, {0.001, 2, 2}} {
		if got := test.scale.Of(test.n); got != test.want {
			t.Errorf("Scale(%v).Of(%d) = %d, want %d", test.scale, test.n, got, test.want)
		}
	}
	if got := Scale(0.001).Bytes(64); got != 1<<20 {
		t.Errorf("Bytes = %d, want at least one MiB", got)
	}
}

// The files of the depth workloads are all there, whatever the number of layers, and every layer has some directory.
func TestSpread(t *testing.T) {
	for _, layers := range []int{1, 7, 100} {
		b := &Builder{Dir: t.TempDir(), Scale: 1}
		if err := spread(b, layers, 60); err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, dir := range b.Layers {
			_, err := walk(dir, func(_ int, _, _ string, kind uint8) error {
				if kind == 8 { // DT_REG
					files++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(b.Layers) != layers || files != 60 {
			t.Errorf("%d layers with %d files, want %d with 60", len(b.Layers), files, layers)
		}
	}
}

// Recipes of the same name are built once for all who name them, so they must build the same.
func TestRecipesAreTheSame(t *testing.T) {
	trees := map[string]string{}
	for _, w := range All() {
		if w.Layers.Name != files.Name && w.Layers.Name != empty.Name {
			continue
		}
		b := &Builder{Dir: t.TempDir(), Scale: 0.002}
		if err := w.Layers.Build(b); err != nil {
			t.Fatal(err)
		}
		var text string
		_, err := walk(b.Layers[0], func(_ int, dir, name string, _ uint8) error {
			content, _ := os.ReadFile(dir + "/" + name) // "" of a directory
			text += dir[len(b.Dir):] + "/" + name + string(content)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := trees[w.Layers.Name]; ok && before != text {
			t.Errorf("%s: the recipe %s builds another tree", w.Name, w.Layers.Name)
		}
		trees[w.Layers.Name] = text
	}
}
