package layer

import (
	"fmt"
	"strings"
)

// ParseOptions reads the comma-separated text after -o as Linux overlayfs and fuse-overlayfs do
// (fs/overlayfs/params.c, fuse-overlayfs(1)). The syntax:
//
//	lowerdir=A:B   the lower layers, A topmost; replaces those named before
//	lowerdir=A:B::D::E  the same, and the data-only lower layers D and E
//	lowerdir+=C    one more lower layer below the others; a colon is part of its name
//	datadir+=D     one more data-only lower layer, likewise; after all others
//	upperdir=U  workdir=W  fsname=NAME  subtype=NAME
//	ro rw suid nosuid dev nodev exec noexec noatime relatime strictatime diratime nodiratime userxattr volatile
//	redirect_dir=on|follow|nofollow|off  metacopy=on|off  index=on|off  nfs_export=on|off
//	xino=on|auto|off
//	lower=immutable|live  whether others may change the lower layers while they are mounted; live is the default
//
// and what only the FUSE backend does, see [FUSEOptions]:
//
//	uidmapping=DISK:SHOWN:COUNT[:...]  gidmapping=...  squash_to_root  squash_to_uid=N  squash_to_gid=N
//	xattr_permissions=0|1|2  noacl  static_nlink  fsync=0|1  timeout=SECONDS  aufs_marks=on|off
//	passthrough=auto|all|off  lazy=on|keep|off  io_uring=auto|on|off
//
// A backslash takes the meaning from the character after it: \: \, \\ and \" stand for themselves. A value
// wholly in double quotes may hold bare commas. Of two options that contradict each other the last one wins.
//
// Options that mount(8) hands to every helper and that change nothing here are dropped. What is left is
// returned in unknown, each as it was written; whether that is an error is the caller's to say. err is for
// options that are known but malformed. The Spec may be incomplete: see [Spec.Validate].
func ParseOptions(text string) (spec Spec, unknown []string, err error) {
	for rest, more := text, true; more; {
		var option string
		if option, rest, more, err = cutOption(rest); err != nil {
			return Spec{}, nil, err
		}
		known, err := spec.set(option)
		if err != nil {
			return Spec{}, nil, err
		}
		if !known && option != "" {
			unknown = append(unknown, option)
		}
	}
	return spec, unknown, nil
}

// cutOption returns the first option of text as it is written, and what follows its comma.
func cutOption(text string) (option, rest string, more bool, err error) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"' && quoted:
			quoted = false
			if i+1 < len(text) && text[i+1] != ',' {
				return "", "", false, fmt.Errorf("option %q: text follows the closing double quote: quote the whole value, or write \\\" for a quote in a name", text)
			}
		case c == '"' && i > 0 && strings.IndexByte(text, '=') == i-1:
			// Only at the start of a value. Elsewhere a quote is an ordinary character, as it is to the kernel.
			quoted = true
		case c == ',' && !quoted:
			return text[:i], text[i+1:], true, nil
		}
	}
	if quoted {
		return "", "", false, fmt.Errorf("option %q: the double quote is not closed: close it, or write \\\" for a quote in a name", text)
	}
	return text, "", false, nil
}

// set applies one option as it is written. It reports false for an option that means nothing to a union.
func (s *Spec) set(option string) (known bool, err error) {
	name, value, hasValue := strings.Cut(option, "=")
	if strings.HasPrefix(value, `"`) {
		value = value[1 : len(value)-1] // cutOption has seen the other one
	}
	if field := s.text(name); field != nil {
		*field, err = onlyValue(name, value)
		return true, err
	}
	switch {
	case name == "lowerdir+":
		dir, err := onlyValue(name, value)
		if len(s.Data) > 0 {
			return true, fmt.Errorf("option %s: %w", option, errLowerAfterData)
		}
		s.Lower = append(s.Lower, dir)
		return true, err
	case name == "datadir+":
		dir, err := onlyValue(name, value)
		s.Data = append(s.Data, dir)
		return true, err
	case name == "lowerdir" && hasValue:
		s.Lower, s.Data, err = lowerList(value)
		return true, err
	case name == "lowerdir":
		return true, fmt.Errorf("option %q has no value: write lowerdir=DIR[:DIR]", option)
	case name == "redirect_dir":
		s.Options.RedirectDir, err = oneOf(name, RedirectMode(value), RedirectOn, RedirectFollow, RedirectNoFollow, RedirectOff)
		return true, err
	case name == "xino":
		s.Options.Xino, err = oneOf(name, Xino(value), XinoOn, XinoAuto, XinoOff)
		return true, err
	case name == "lower" && hasValue:
		word, err := oneOf(name, value, "immutable", "live")
		s.Options.LowerImmutable = word == "immutable"
		return true, err
	case !hasValue && (name == "relatime" || name == "atime" || name == "nostrictatime"):
		s.Options.Atime = AtimeDefault
		return true, nil
	case !hasValue && (Atime(name) == AtimeNever || Atime(name) == AtimeAlways):
		s.Options.Atime = Atime(name)
		return true, nil
	case strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"):
		return true, nil
	case hasValue:
		if field := s.Options.onOff(name); field != nil {
			word, err := oneOf(name, value, "on", "off")
			*field = word == "on"
			return true, err
		}
		if known, err := s.Options.FUSE.set(name, value); known {
			return true, err
		}
		return ignoredValues[name], nil
	}
	for _, f := range s.Options.flags() {
		if name == f.on || name == f.off {
			*f.field = name == f.on
			return true, nil
		}
	}
	return ignoredFlags[name], nil
}

// text returns the field that the option called name sets to its value.
func (s *Spec) text(name string) *string {
	switch name {
	case "upperdir":
		return &s.Upper
	case "workdir":
		return &s.Work
	case "fsname":
		return &s.Options.FsName
	case "subtype":
		return &s.Options.Subtype
	}
	return nil
}

// onOff returns the field that the option called name switches on or off.
func (o *Options) onOff(name string) *bool {
	switch name {
	case "metacopy":
		return &o.Metacopy
	case "index":
		return &o.Index
	case "nfs_export":
		return &o.NFSExport
	case "aufs_marks":
		return &o.FUSE.AUFSMarks
	}
	return nil
}

// oneOf returns value if it is one of the allowed ones.
func oneOf[T ~string](name string, value T, allowed ...T) (T, error) {
	for _, a := range allowed {
		if value == a {
			return value, nil
		}
	}
	return "", fmt.Errorf("option %s=%s: the value must be one of %v", name, value, allowed)
}

// flag is an option without a value: on sets field, off, where there is such a word, clears it.
type flag struct {
	on, off string
	field   *bool
}

// flags lists the flags in the order in which they are printed.
func (o *Options) flags() []flag {
	return []flag{
		{"ro", "rw", &o.ReadOnly},
		{"nosuid", "suid", &o.NoSuid},
		{"nodev", "dev", &o.NoDev},
		{"noexec", "exec", &o.NoExec},
		{"nodiratime", "diratime", &o.NoDirTime},
		{"userxattr", "", &o.UserXattr},
		{"volatile", "", &o.Volatile},
		{"squash_to_root", "", &o.FUSE.Owners.SquashToRoot},
		{"noacl", "acl", &o.FUSE.NoACL},
		{"static_nlink", "", &o.FUSE.StaticNlink},
	}
}

// ignoredFlags and ignoredValues are what mount(8), fstab(5) and container engines hand to every file system:
// notes to mount(8) itself, wishes about when times reach the disk, FUSE permissions that are
// always on, and SELinux contexts. Not here, because to drop them would break a promise: sync and dirsync.
var ignoredFlags = words(`defaults async auto noauto nofail _netdev user users nouser owner group nogroup
	norelatime lazytime nolazytime
	silent loud mand nomand iversion noiversion allow_other default_permissions kernel_cache`)

// Of fuse-overlayfs there are wishes about how to serve (threaded, writeback, fast_ino).
var ignoredValues = words(`comment user context fscontext defcontext rootcontext threaded writeback fast_ino`)

func words(text string) map[string]bool {
	set := make(map[string]bool)
	for _, word := range strings.Fields(text) {
		set[word] = true
	}
	return set
}

// onlyValue returns the value of an option that has exactly one, and that may not be empty.
func onlyValue(name, raw string) (string, error) {
	value, err := unescape(name, raw)
	if err == nil && value == "" {
		err = fmt.Errorf("option %q has no value: write %s=VALUE", name, name)
	}
	return value, err
}

// lowerList splits the value of lowerdir= at its bare colons. What follows two of them is a data-only layer. An empty value
// names no layer, as in the kernel.
func lowerList(raw string) (lowers, data []string, err error) {
	if raw == "" {
		return nil, nil, nil
	}
	isData := false
	for start, i := 0, 0; i <= len(raw); i++ {
		switch {
		case i >= len(raw) || raw[i] == ':':
			dir, err := unescape("lowerdir", raw[start:i])
			if err == nil && dir == "" {
				err = fmt.Errorf("option lowerdir=%s: %w", raw, errEmptyLower)
			}
			if err == nil && !isData && len(data) > 0 {
				err = fmt.Errorf("option lowerdir=%s: %w", raw, errLowerAfterData)
			}
			if err != nil {
				return nil, nil, err
			}
			if isData {
				data = append(data, dir)
			} else {
				lowers = append(lowers, dir)
			}
			if isData = strings.HasPrefix(raw[i:], "::"); isData {
				i++
			}
			start = i + 1
		case raw[i] == '\\' && i+1 < len(raw):
			i++
		}
	}
	return lowers, data, nil
}

// unescape drops each backslash and keeps the character after it (ovl_unescape in fs/overlayfs/params.c).
func unescape(name, raw string) (string, error) {
	if strings.IndexByte(raw, '\\') < 0 {
		return raw, nil
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' {
			if i++; i == len(raw) {
				return "", fmt.Errorf("option %s=%s: nothing follows the last backslash: write \\\\ for a backslash in a name", name, raw)
			}
		}
		b.WriteByte(raw[i])
	}
	return b.String(), nil
}

// String returns the Spec as the text that [ParseOptions] reads back to an equal Spec, if [Spec.Validate] has
// no complaint.
func (s Spec) String() string {
	var options []string
	for _, f := range s.Options.flags() {
		if *f.field {
			options = append(options, f.on)
		}
	}
	if s.Options.Atime != AtimeDefault {
		options = append(options, string(s.Options.Atime))
	}
	if len(s.Lower) > 0 {
		lowers := make([]string, len(s.Lower))
		for i, dir := range s.Lower {
			lowers[i] = escapeLower.Replace(dir)
		}
		options = append(options, "lowerdir="+strings.Join(lowers, ":"))
	}
	for _, dir := range s.Data {
		options = append(options, "datadir+="+escapeValue.Replace(dir))
	}
	if mode := s.Options.RedirectDir; mode != RedirectDefault {
		options = append(options, "redirect_dir="+string(mode))
	}
	if s.Options.Xino != XinoDefault {
		options = append(options, "xino="+string(s.Options.Xino))
	}
	for _, name := range []string{"metacopy", "index", "nfs_export", "aufs_marks"} {
		if *s.Options.onOff(name) {
			options = append(options, name+"=on")
		}
	}
	if s.Options.LowerImmutable {
		options = append(options, "lower=immutable")
	}
	options = append(options, s.Options.FUSE.options()...)
	for _, name := range []string{"upperdir", "workdir", "fsname", "subtype"} {
		if value := *s.text(name); value != "" {
			options = append(options, name+"="+escapeValue.Replace(value))
		}
	}
	return strings.Join(options, ",")
}

var (
	escapeValue = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `"`, `\"`)
	escapeLower = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `"`, `\"`, `:`, `\:`)
)
