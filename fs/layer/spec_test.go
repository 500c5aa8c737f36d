package layer

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		text    string
		want    Spec
		unknown []string
	}{
		{text: ""},
		{text: ",,", want: Spec{}},
		{text: "lowerdir=/a", want: Spec{Lower: []string{"/a"}}},
		{text: "lowerdir=/top:/mid:/bottom", want: Spec{Lower: []string{"/top", "/mid", "/bottom"}}},
		{text: `lowerdir=/a\:b:/c`, want: Spec{Lower: []string{"/a:b", "/c"}}},
		{text: `lowerdir=/a\,b:/c\\d`, want: Spec{Lower: []string{"/a,b", `/c\d`}}},
		{text: `lowerdir=l/AB:l/CD`, want: Spec{Lower: []string{"l/AB", "l/CD"}}},
		{text: "lowerdir+=/a:b,lowerdir+=/c", want: Spec{Lower: []string{"/a:b", "/c"}}},
		{text: "lowerdir=/a:/b,lowerdir+=/c", want: Spec{Lower: []string{"/a", "/b", "/c"}}},
		{text: "lowerdir+=/a,lowerdir=/b", want: Spec{Lower: []string{"/b"}}},
		{text: "lowerdir=/a,lowerdir=", want: Spec{}},
		{
			text: "lowerdir=/l,upperdir=/u,workdir=/w",
			want: Spec{Lower: []string{"/l"}, Upper: "/u", Work: "/w"},
		},
		{text: "upperdir=/u=v,workdir=/w:x", want: Spec{Upper: "/u=v", Work: "/w:x"}},
		{text: "upperdir=/one,upperdir=/two", want: Spec{Upper: "/two"}},
		{text: `lowerdir=/a"b:/c"d,upperdir=/u"`, want: Spec{Lower: []string{`/a"b`, `/c"d`}, Upper: `/u"`}},
		{text: `upperdir="/u,v",ro`, want: Spec{Upper: "/u,v", Options: Options{ReadOnly: true}}},
		{text: `lowerdir="/a,b:/c"`, want: Spec{Lower: []string{"/a,b", "/c"}}},
		{text: `lowerdir="/a\"b\:,c"`, want: Spec{Lower: []string{`/a"b:,c`}}},
		{text: `upperdir=\"u`, want: Spec{Upper: `"u`}},
		{
			text: "ro,nosuid,nodev,noexec,userxattr,volatile",
			want: Spec{Options: Options{
				ReadOnly: true, NoSuid: true, NoDev: true, NoExec: true, UserXattr: true, Volatile: true,
			}},
		},
		{text: "ro,nosuid,nodev,noexec,rw,suid,dev,exec", want: Spec{}},
		{text: "rw,ro", want: Spec{Options: Options{ReadOnly: true}}},
		{text: `fsname=a\,b,subtype=s`, want: Spec{Options: Options{FsName: "a,b", Subtype: "s"}}},

		// What mount(8), podman and containerd add.
		{
			text: `rw,nosuid,nodev,relatime,defaults,_netdev,nofail,x-systemd.requires=/a,x-foo,comment=hi,` +
				`context="system_u:object_r:container_file_t:s0:c1,c2",allow_other,default_permissions,lowerdir=/a`,
			want: Spec{Lower: []string{"/a"}, Options: Options{NoSuid: true, NoDev: true}},
		},
		{
			text: "redirect_dir=on,metacopy=on,index=on,index=off",
			want: Spec{Options: Options{RedirectDir: RedirectOn, Metacopy: true}},
		},
		{
			text:    `verity=on,sync,lowerdir=/a,uidmapping=:0:1000:1,ro=1,name="x,\"y",private`,
			want:    Spec{Lower: []string{"/a"}},
			unknown: []string{"verity=on", "sync", "uidmapping=:0:1000:1", "ro=1", `name="x,\"y"`, "private"},
		},
	}
	for _, test := range tests {
		got, unknown, err := ParseOptions(test.text)
		if err != nil {
			t.Errorf("ParseOptions(%q): %v", test.text, err)
			continue
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("ParseOptions(%q) = %+v, want %+v", test.text, got, test.want)
		}
		if !slices.Equal(unknown, test.unknown) {
			t.Errorf("ParseOptions(%q): unknown %q, want %q", test.text, unknown, test.unknown)
		}
	}
}

func TestParseOptionsErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"lowerdir=/a::/b", "drop the extra colon"},
		{"lowerdir=:/a", "drop the extra colon"},
		{"lowerdir=/a:", "drop the extra colon"},
		{"lowerdir", "write lowerdir=DIR"},
		{"lowerdir+=", "write lowerdir+=VALUE"},
		{"lowerdir+", "write lowerdir+=VALUE"},
		{"upperdir", "write upperdir=VALUE"},
		{"upperdir=,workdir=/w", "write upperdir=VALUE"},
		{`workdir=""`, "write workdir=VALUE"},
		{`upperdir=/a\`, "nothing follows the last backslash"},
		{`lowerdir=/a:/b\`, "nothing follows the last backslash"},
		{`lowerdir="/a,upperdir=/b`, "the double quote is not closed"},
		{`upperdir="/a"b`, "text follows the closing double quote"},
	}
	for _, test := range tests {
		spec, unknown, err := ParseOptions(test.text)
		if err == nil {
			t.Errorf("ParseOptions(%q) = %+v, %q, want an error with %q", test.text, spec, unknown, test.want)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("ParseOptions(%q): %v, want %q in it", test.text, err, test.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("ParseOptions(%q): the error has more than one line: %q", test.text, err)
		}
	}
}

func TestSpecString(t *testing.T) {
	spec := Spec{
		Lower:   []string{`/a:b,c\d"e`, `"/f"`, "relative"},
		Upper:   `/u:v,w`,
		Work:    `/x\`,
		Options: Options{ReadOnly: true, Volatile: true, FsName: "n,1"},
	}
	want := `ro,volatile,lowerdir=/a\:b\,c\\d\"e:\"/f\":relative,upperdir=/u:v\,w,workdir=/x\\,fsname=n\,1`
	if got := spec.String(); got != want {
		t.Errorf("String() = %s\nwant       %s", got, want)
	}
	got, unknown, err := ParseOptions(want)
	if err != nil || len(unknown) > 0 || !reflect.DeepEqual(got, spec) {
		t.Errorf("ParseOptions(String()) = %+v, %q, %v, want %+v", got, unknown, err, spec)
	}
}

func TestSpecValidate(t *testing.T) {
	tests := []struct {
		spec Spec
		want string // "" is valid
	}{
		{Spec{Lower: []string{"/a"}}, ""},
		{Spec{Lower: []string{"/a"}, Upper: "/u", Work: "/w"}, ""},
		{Spec{}, "no lower layer"},
		{Spec{Upper: "/u", Work: "/w"}, "no lower layer"},
		{Spec{Lower: []string{"/a", ""}}, "drop the extra colon"},
		{Spec{Lower: []string{"/a"}, Upper: "/u"}, "add workdir="},
		{Spec{Lower: []string{"/a"}, Work: "/w"}, "add upperdir="},
	}
	for _, test := range tests {
		err := test.spec.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: %v", test.spec, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%+v: error %v, want %q in it", test.spec, err, test.want)
		}
	}
}

// FuzzParseOptions checks two laws on any text that parses: printing and parsing again changes nothing, and
// what was unknown stays unknown when it is added to the printed text.
func FuzzParseOptions(f *testing.F) {
	for _, seed := range []string{
		"lowerdir=/a:/b,upperdir=/u,workdir=/w",
		`lowerdir=/a\:b:/c\,d:/e\\f,ro,nosuid`,
		`lowerdir+=/a:b,lowerdir+=/c`,
		`lowerdir="/a,b:/c",upperdir="/u\"v"`,
		`lowerdir=/a"b,context="system_u:object_r:s0:c1,c2",x-systemd.automount`,
		`lowerdir=/a::/b`, `lowerdir=/a\`, `upperdir="`, `,=,"",\`, `="`, `\="`, `lowerdir=\:`,
		"metacopy=on,uidmapping=:0:1000:1:1:100000:65536,fsname=a=b,subtype=s",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spec, unknown, err := ParseOptions(text)
		if err != nil {
			return
		}
		printed := spec.String()
		again, left, err := ParseOptions(printed)
		if err != nil || len(left) > 0 || !reflect.DeepEqual(again, spec) {
			t.Fatalf("%q is %+v, which prints as %q, which is %+v, unknown %q, error %v",
				text, spec, printed, again, left, err)
		}
		if len(unknown) == 0 {
			return
		}
		joined := strings.Join(append([]string{printed}, unknown...), ",")
		again, left, err = ParseOptions(joined)
		if err != nil || !slices.Equal(left, unknown) || !reflect.DeepEqual(again, spec) {
			t.Fatalf("%q is %+v and unknown %q; joined as %q it is %+v, unknown %q, error %v",
				text, spec, unknown, joined, again, left, err)
		}
	})
}
