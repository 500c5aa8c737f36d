package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Root is a state root. Nothing of it need exist: reading finds it empty, writing makes it.
type Root struct {
	dir string // absolute
}

// At is the state root in the directory dir.
func At(dir string) (Root, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Root{}, fmt.Errorf("state root %q: %w", dir, err)
	}
	return Root{abs}, nil
}

// Default is the directory of the state root of this user: /var/lib/unionfsd for root, else unionfsd in the data
// directory of the XDG base directory specification.
func Default() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/unionfsd", nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) { // a relative one is to be ignored
		return filepath.Join(data, "unionfsd"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for state: %w; pass --root DIR", err)
	}
	return filepath.Join(home, ".local/share/unionfsd"), nil
}

// Dir is the absolute path of the state root.
func (r Root) Dir() string { return r.dir }

// sub makes a directory of the state root, for its owner only, and returns its path.
func (r Root) sub(name string) (string, error) {
	dir := filepath.Join(r.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("state root %q: %w; pass --root DIR with a directory that you may write", r.dir, bare(err))
	}
	return dir, nil
}

// bare drops the path from an error that will be told with a better one.
func bare(err error) error {
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		return perr.Err
	}
	return err
}

// write makes name hold v, all or nothing, also across a crash of the machine.
func write(name string, v any) error {
	if err := replace(name, v, true); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// replace makes name hold v; across a crash of the machine that is all or nothing only if it is safe.
func replace(name string, v any, safe bool) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	temp := name + ".tmp" // every file has one writer, so the name is free or left over from a crash
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil && safe {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

func read(name string, v any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// Text is a string of any bytes, such as a path, that survives JSON: what is not UTF-8 is written as Go quotes it.
type Text string

// MarshalText implements [encoding.TextMarshaler].
func (t Text) MarshalText() ([]byte, error) {
	if utf8.ValidString(string(t)) && !strings.HasPrefix(string(t), `"`) {
		return []byte(t), nil
	}
	return []byte(strconv.Quote(string(t))), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Text) UnmarshalText(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		*t = Text(b)
		return nil
	}
	s, err := strconv.Unquote(string(b))
	*t = Text(s)
	return err
}

// Texts converts strings.
func Texts(list []string) []Text {
	out := make([]Text, len(list))
	for i, s := range list {
		out[i] = Text(s)
	}
	return out
}
