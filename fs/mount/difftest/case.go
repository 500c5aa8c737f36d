package difftest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Case is what is done on both backends.
type Case struct {
	Lower   []string // the lower layers as trees of package testfs, the topmost first
	Options string   // mount options of both unions, such as redirect_dir=on
	Ops     []Op
}

// Op is one operation: its kind, see kinds, and its arguments. As User it is done as a user without privileges.
type Op struct {
	Kind string
	Args []string
	User bool
}

// String is the line of o in the text of a case: kind and arguments, behind "user" if it is done as one.
func (o Op) String() string {
	words := []string{o.Kind}
	if o.User {
		words = []string{"user", o.Kind}
	}
	for _, a := range o.Args {
		words = append(words, strconv.Quote(a))
	}
	return strings.Join(words, " ")
}

// String is c as a text archive with a file for each layer, and one with the operations.
func (c Case) String() string {
	var a txtar.Archive
	for i, text := range c.Lower {
		a.Files = append(a.Files, txtar.File{Name: fmt.Sprintf("lower%d", i), Data: []byte(text)})
	}
	if c.Options != "" {
		a.Files = append(a.Files, txtar.File{Name: "options", Data: []byte(c.Options + "\n")})
	}
	var ops strings.Builder
	for _, o := range c.Ops {
		fmt.Fprintln(&ops, o)
	}
	a.Files = append(a.Files, txtar.File{Name: "ops", Data: []byte(ops.String())})
	return string(txtar.Format(&a))
}

// Parse reads what String wrote.
func Parse(text string) (Case, error) {
	var c Case
	for _, f := range txtar.Parse([]byte(text)).Files {
		if f.Name == "options" {
			c.Options = strings.TrimSpace(string(f.Data))
			continue
		}
		if f.Name != "ops" {
			c.Lower = append(c.Lower, string(f.Data))
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(string(f.Data)), "\n") {
			o, err := parseOp(line)
			if err != nil {
				return c, fmt.Errorf("operation %q: %w", line, err)
			}
			c.Ops = append(c.Ops, o)
		}
	}
	if len(c.Lower) == 0 {
		return c, fmt.Errorf("no lower layer")
	}
	return c, nil
}

func parseOp(line string) (Op, error) {
	var o Op
	line, o.User = strings.CutPrefix(line, "user ")
	o.Kind, line, _ = strings.Cut(line, " ")
	k := kindNamed(o.Kind)
	if k == nil {
		return o, fmt.Errorf("unknown kind %q", o.Kind)
	}
	for line != "" {
		q, err := strconv.QuotedPrefix(line)
		if err != nil {
			return o, err
		}
		a, err := strconv.Unquote(q)
		if err != nil {
			return o, err
		}
		o.Args = append(o.Args, a)
		line = strings.TrimPrefix(line[len(q):], " ")
	}
	return o, nil
}
