package cow

import (
	"bytes"
	"fmt"
	"testing"
)

// FuzzDecode checks that whatever overlay.origin holds, what decode takes for a file handle is what encode makes, and fits
// into what was there.
func FuzzDecode(f *testing.F) {
	uuid := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	for _, handle := range [][]byte{nil, {1}, bytes.Repeat([]byte{7}, 8), bytes.Repeat([]byte{8}, 0xff-fbHeader)} {
		f.Add(encode(uuid, 1, handle, 0))
	}
	good := encode(uuid, 0x81, []byte("12345678"), 0)
	for _, i := range []int{0, 1, 2, 3} { // version, magic, length, flags
		bad := bytes.Clone(good)
		bad[i] ^= 0xff
		f.Add(bad)
	}
	f.Add(good[:fbHeader-1])
	f.Add(append(bytes.Clone(good), 0))
	f.Add([]byte{})
	f.Add([]byte("y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		uuid, typ, handle, ok := decode(b)
		if !ok {
			return
		}
		again := encode(uuid, typ, handle, 0)
		const flags = 3 // the only byte of which more than one value is taken
		if len(again) != len(b) || !bytes.Equal(again[:flags], b[:flags]) || !bytes.Equal(again[flags+1:], b[flags+1:]) {
			t.Fatalf("%x is taken for\n%x", b, again)
		}
		if b[flags]&fbAnyEndian == 0 && b[flags]&fbBigEndian != endianness() {
			t.Fatalf("%x has another byte order", b)
		}
	})
}

// FuzzLinks checks that whatever overlay.nlink holds, it is taken for a number of names or not at all.
func FuzzLinks(f *testing.F) {
	for _, text := range []string{"U+1", "L-1", "U+0", "L+2147483647", "U-5", "X+1", "U1", "U+", "U+-1", "", "U++1"} {
		f.Add(text, uint64(2), uint64(3))
	}
	f.Fuzz(func(t *testing.T, text string, lower, upper uint64) {
		lower, upper = lower%1e6, upper%1e6
		n, ok := parseLinks(text, lower, upper)
		if !ok {
			return
		}
		base := upper
		if text[0] == 'L' {
			base = lower
		}
		if again, ok := parseLinks(fmt.Sprintf("%c%+d", text[0], int64(n)-int64(base)), lower, upper); n == 0 || !ok || again != n {
			t.Fatalf("%q is taken for %d, and what is written of that for %d", text, n, again)
		}
	})
}
