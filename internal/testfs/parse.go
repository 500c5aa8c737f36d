package testfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parse reads the text of a tree.
func Parse(text string) (Tree, error) {
	var t Tree
	for i, line := range strings.Split(text, "\n") {
		words, err := split(line)
		if err == nil && len(words) > 0 {
			var e Entry
			if e, err = parseEntry(words); err == nil {
				t = append(t, e)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d %q: %w", i+1, line, err)
		}
	}
	return t, nil
}

// split cuts a line into words. Quotes may start inside a word and hide the spaces up to their end; they stay.
func split(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		n := 0
		for n < len(line) && line[n] != ' ' && line[n] != '\t' {
			if line[n] != '"' {
				n++
				continue
			}
			q, err := strconv.QuotedPrefix(line[n:])
			if err != nil {
				return nil, errors.New("a quote that does not end")
			}
			n += len(q)
		}
		words = append(words, line[:n])
		line = line[n:]
	}
}

func quote(s string) string {
	if q := strconv.Quote(s); len(q) != len(s)+2 || s == "" || strings.ContainsAny(s, " #=") {
		return q
	}
	return s
}

func unquote(s string) (string, error) {
	if !strings.HasPrefix(s, `"`) {
		return s, nil
	}
	return strconv.Unquote(s)
}

func parseEntry(words []string) (Entry, error) {
	if len(words) < 2 {
		return Entry{}, errors.New("no path")
	}
	e := Entry{Kind: Kind(words[0]), Xattrs: map[string]string{}}
	e.Mode = defaultMode(e.Kind)
	var err error
	if e.Path, err = unquote(words[1]); err != nil {
		return e, err
	}
	words = words[2:]
	switch e.Kind {
	case Dir, Fifo, Socket, Whiteout:
	case File:
		if len(words) > 0 && words[0][0] == '"' {
			data, err := unquote(words[0])
			if err != nil {
				return e, err
			}
			e.put(0, data)
			words = words[1:]
		}
	case Symlink, Hardlink:
		if len(words) < 2 || words[0] != "->" {
			return e, errors.New("no -> and target")
		}
		if e.Target, err = unquote(words[1]); err != nil {
			return e, err
		}
		words = words[2:]
	case Char, Block:
		if len(words) == 0 {
			return e, errors.New("no device number")
		}
		if _, err := fmt.Sscanf(words[0], "%d:%d", &e.Major, &e.Minor); err != nil {
			return e, fmt.Errorf("device number: %w", err)
		}
		words = words[1:]
	default:
		return e, errors.New("unknown kind")
	}
	for _, w := range words {
		if err := e.parseAttr(w); err != nil {
			return e, fmt.Errorf("%s: %w", w, err)
		}
	}
	return e, nil
}

func (e *Entry) put(off int64, data string) {
	e.Data = append(e.Data, Extent{off, data})
	e.Size = max(e.Size, off+int64(len(data)))
}

func (e *Entry) parseAttr(word string) error {
	key, value, _ := strings.Cut(word, "=")
	if key == "data" {
		off, data, _ := strings.Cut(value, ":")
		n, err := strconv.ParseInt(off, 10, 64)
		if err != nil {
			return err
		}
		data, err = unquote(data)
		e.put(n, data)
		return err
	}
	value, err := unquote(value)
	if err != nil {
		return err
	}
	switch key {
	case "mode":
		m, err := strconv.ParseUint(value, 8, 12)
		e.Mode = uint32(m)
		return err
	case "owner":
		_, err := fmt.Sscanf(value, "%d:%d", &e.UID, &e.GID)
		return err
	case "nlink":
		e.Nlink, err = strconv.ParseUint(value, 10, 64)
		return err
	case "size":
		e.Size, err = strconv.ParseInt(value, 10, 64)
		return err
	case "sum":
		e.Sum = value
	case "opaque":
		e.Opaque = "y"
		if value != "" {
			e.Opaque = value
		}
	case "redirect":
		e.Redirect = value
	case "metacopy":
		e.Metacopy = true
	case "mtime":
		return e.parseTime(value)
	default:
		if !strings.Contains(key, ".") {
			return errors.New("unknown word")
		}
		e.Xattrs[key] = value
	}
	return nil
}

func (e *Entry) parseTime(value string) error {
	if value == "new" {
		e.New = true
		return nil
	}
	sec, nsec, _ := strings.Cut(value, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return err
	}
	ns, err := strconv.ParseInt((nsec + "000000000")[:9], 10, 64)
	e.MTime = time.Unix(s, ns)
	return err
}
