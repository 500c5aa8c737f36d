package layer

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
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
		{text: `lowerdir=/a:/b::/d\:e::/f`, want: Spec{Lower: []string{"/a", "/b"}, Data: []string{"/d:e", "/f"}}},
		{text: "lowerdir+=/a,datadir+=/d:e,datadir+=/f", want: Spec{Lower: []string{"/a"}, Data: []string{"/d:e", "/f"}}},
		{text: "lowerdir=/a::/d,lowerdir=/b", want: Spec{Lower: []string{"/b"}}},
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
		{text: "noatime,strictatime,nodiratime", want: Spec{Options: Options{Atime: AtimeAlways, NoDirTime: true}}},
		{text: "noatime,nodiratime,diratime,relatime", want: Spec{}},
		{text: "relatime,noatime", want: Spec{Options: Options{Atime: AtimeNever}}},
		{text: "rw,ro", want: Spec{Options: Options{ReadOnly: true}}},
		{text: `fsname=a\,b,subtype=s`, want: Spec{Options: Options{FsName: "a,b", Subtype: "s"}}},

		// What mount(8), podman and containerd add.
		{
			text: `rw,nosuid,nodev,relatime,defaults,_netdev,nofail,x-systemd.requires=/a,x-foo,comment=hi,` +
				`context="system_u:object_r:container_file_t:s0:c1,c2",allow_other,default_permissions,lowerdir=/a`,
			want: Spec{Lower: []string{"/a"}, Options: Options{NoSuid: true, NoDev: true}},
		},
		{text: "lazy=keep", want: Spec{Options: Options{FUSE: FUSEOptions{Lazy: LazyKeep}}}},
		{text: "passthrough=all", want: Spec{Options: Options{FUSE: FUSEOptions{Passthrough: PassthroughAll}}}},
		{
			text: "redirect_dir=on,metacopy=on,index=on,index=off",
			want: Spec{Options: Options{RedirectDir: RedirectOn, Metacopy: true}},
		},
		{text: "nfs_export=on", want: Spec{Options: Options{NFSExport: true}}},
		{text: "lower=immutable,lower=live", want: Spec{}},
		{text: "lower=immutable", want: Spec{Options: Options{LowerImmutable: true}}},
		{
			text:    `verity=on,sync,lowerdir=/a,ro=1,name="x,\"y",private,noxattrs=1`,
			want:    Spec{Lower: []string{"/a"}},
			unknown: []string{"verity=on", "sync", "ro=1", `name="x,\"y"`, "private", "noxattrs=1"},
		},

		// What is fuse-overlayfs's.
		{
			text: "uidmapping=:0:1000:1:1:100000:65536,gidmapping=0:7:1",
			want: fuseSpec(FUSEOptions{Owners: Owners{UID: IDMap{{0, 1000, 1}, {1, 100000, 65536}}, GID: IDMap{{0, 7, 1}}}}),
		},
		{
			text: "squash_to_root,squash_to_uid=0,squash_to_gid=7",
			want: fuseSpec(FUSEOptions{Owners: Owners{SquashToRoot: true, SquashUID: Squash{On: true}, SquashGID: Squash{true, 7}}}),
		},
		{text: "xattr_permissions=1,xattr_permissions=0", want: Spec{}},
		{text: "xattr_permissions=1", want: fuseSpec(FUSEOptions{OverrideStat: OverridePrivileged})},
		{
			text: "xattr_permissions=2,noacl,static_nlink,fsync=0,timeout=0.5,aufs_marks=on",
			want: fuseSpec(FUSEOptions{
				OverrideStat: OverrideContainers, NoACL: true, StaticNlink: true, NoFsync: true, AUFSMarks: true,
				Remember: Duration{true, 500 * time.Millisecond},
			}),
		},
		{text: "io_uring=on", want: fuseSpec(FUSEOptions{IOUring: IOUringOn})},
		{text: "timeout=0", want: fuseSpec(FUSEOptions{Remember: Duration{Given: true}})},
		{text: "fsync=1,threaded=1,writeback=0,fast_ino=0,xino=auto", want: Spec{Options: Options{Xino: XinoAuto}}},
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

func fuseSpec(o FUSEOptions) Spec { return Spec{Options: Options{FUSE: o}} }

func TestParseOptionsErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"lowerdir=/a:::/b", "drop the extra colon"},
		{"lowerdir=::/a", "drop the extra colon"},
		{"lowerdir=/a::", "drop the extra colon"},
		{"lowerdir=/a::/b:/c", "a lower layer follows a data-only one"},
		{"datadir+=/d,lowerdir+=/a", "a lower layer follows a data-only one"},
		{"datadir+=", "write datadir+=VALUE"},
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
		{"uidmapping=", "triples of numbers"},
		{"uidmapping=:", "triples of numbers"},
		{"gidmapping=0:1", "triples of numbers"},
		{"uidmapping=0,1:1000", "triples of numbers"},
		{"uidmapping=0:x:1", `"x" is no id`},
		{"uidmapping=0:4294967295:1", `"4294967295" is no id`},
		{"uidmapping=0:4294967000:1000", "leads beyond the last id"},
		{"uidmapping=0:0:0", "a range is empty"},
		{"squash_to_uid=-1", "the value must be one id"},
		{"squash_to_gid=4294967295", "the value must be one id"},
		{"xattr_permissions=3", "the value must be one of [0 1 2]"},
		{"fsync=no", "the value must be one of [0 1]"},
		{"timeout=-1", "a number of seconds"},
		{"timeout=NaN", "a number of seconds"},
		{"timeout=1e10", "a number of seconds"},
		{"xino=1", "the value must be one of [on auto off]"},
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
		Data:    []string{`/g:h,i`, "j"},
		Upper:   `/u:v,w`,
		Work:    `/x\`,
		Options: Options{ReadOnly: true, Volatile: true, FsName: "n,1"},
	}
	want := `ro,volatile,lowerdir=/a\:b\,c\\d\"e:\"/f\":relative,datadir+=/g:h\,i,datadir+=j,upperdir=/u:v\,w,workdir=/x\\,fsname=n\,1`
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
		{Spec{Lower: []string{"/a"}, Data: []string{""}}, "drop the extra colon"},
		{Spec{Data: []string{"/d"}}, "no lower layer"},
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
		`lowerdir=/a::/b`, `lowerdir=/a:/b::/c::/d,datadir+=e:f`, `lowerdir=/a\`, `upperdir="`, `,=,"",\`, `="`, `\="`, `lowerdir=\:`,
		"metacopy=on,uidmapping=:0:1000:1:1:100000:65536,fsname=a=b,subtype=s",
		"squash_to_root,squash_to_gid=5,xattr_permissions=2,noacl,static_nlink,fsync=0,timeout=0.3,aufs_marks=on,xino=on,lower=immutable",
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
