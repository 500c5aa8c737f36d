package layer

import (
	"slices"
	"testing"
)

func TestWritableDirs(t *testing.T) {
	for _, test := range []struct {
		options string
		want    []string
	}{
		{`rw,lowerdir+=/l,upperdir=/u,workdir=/w,index=off`, []string{"/u", "/w"}},
		{`ro,lowerdir=/a:/b`, nil},
		{`rw,upperdir=/u\040v\054w,workdir=/w\075x`, []string{"/u v,w", "/w=x"}},
		{`rw,upperdir=/u\134\134v\134\054,workdir=/w`, []string{`/u\\v\,`, `/u\v,`, "/w"}},
	} {
		if got := writableDirs(test.options); !slices.Equal(got, test.want) {
			t.Errorf("writableDirs(%s) = %q, want %q", test.options, got, test.want)
		}
	}
}
