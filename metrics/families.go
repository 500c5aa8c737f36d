package metrics

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Families are metrics as they were at one moment, sorted by name.
type Families []*dto.MetricFamily

// Merge puts together what several registries tell. They must not tell of the same.
func Merge(parts ...Families) (Families, error) {
	var all prometheus.Gatherers
	for _, part := range parts {
		all = append(all, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return part, nil }))
	}
	return all.Gather()
}

// Own returns those that are about unionfsd alone, and not about the Go runtime and the process.
func (f Families) Own() Families {
	return slices.DeleteFunc(slices.Clone(f), func(m *dto.MetricFamily) bool {
		return !strings.HasPrefix(m.GetName(), "unionfsd_")
	})
}

// WriteText writes the text format of Prometheus. It has no native histograms.
func (f Families) WriteText(w io.Writer) error {
	for _, family := range f {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile makes the file name hold the text, for the textfile collector of node_exporter: all of it or what it held
// before, since the file may be read at any moment.
func (f Families) WriteFile(name string) (err error) {
	// node_exporter reads what ends in .prom.
	dir := filepath.Dir(name)
	temp, err := os.CreateTemp(dir, ".unionfsd-*.tmp")
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("textfile %q: directory %q: %w", name, dir, perr.Err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
			err = fmt.Errorf("textfile %q: %w", name, err)
		}
	}()
	if err := f.WriteText(temp); err != nil {
		return err
	}
	if err := temp.Chmod(0o644); err != nil { // node_exporter is another user
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}
