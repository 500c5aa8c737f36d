package union

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"testing"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/union/transport"
)

// request makes the message of an operation: in begins with a fuse.InHeader, the names follow.
func request[T any](op uint32, in T, names ...string) []byte {
	b := bytes.Clone(bytesOf(&in))
	for _, name := range names {
		b = append(append(b, name...), 0)
	}
	header := (*fuse.InHeader)(unsafe.Pointer(&b[0]))
	header.Opcode, header.Length, header.Unique = op, uint32(len(b)), 7
	return b
}

// messages are a request as /dev/fuse has it, where the answer takes the place of the request, and as io_uring has it, with the
// part of fixed size, of the given size, by itself.
func messages(request []byte, fixed int) map[string]*transport.Message {
	const header = 40
	shared := append(bytes.Clone(request), make([]byte, 4096)...)
	own := make([]byte, 4096)
	names := append(bytes.Clone(request[header+fixed:]), make([]byte, 4096)...)
	head := bytes.Clone(request[:header])
	return map[string]*transport.Message{
		"dev-fuse": {In: [][]byte{shared[:header], shared[header:len(request)]}, Out: [][]byte{shared[:outHeaderSize], shared[outHeaderSize:]}},
		"io_uring": {In: [][]byte{head, request[header : header+fixed], names[:len(request)-header-fixed]}, Out: [][]byte{head[:outHeaderSize], names}},
		"apart":    {In: [][]byte{request[:header], request[header:]}, Out: [][]byte{own[:outHeaderSize], own[outHeaderSize:]}},
	}
}

// What is answered without go-fuse is answered as go-fuse would.
func TestQuick(t *testing.T) {
	fs := benchFS(t, 2)
	s := &server{fs: fs, gate: newGate(gateOpen), log: log.New(io.Discard, "", 0)}
	s.protocol = fuse.NewProtocolServer(fs, &fuse.MountOptions{MaxWrite: transport.MaxData, Logger: s.log})
	dir := benchLookup(t, fs, rootID, "dir")
	file := benchLookup(t, fs, dir, benchName(0))
	node := func(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id, Caller: fuse.Caller{Pid: 1}} }
	create := func(name string) (id, fh uint64) {
		var out fuse.CreateOut
		if status := fs.Create(nil, &fuse.CreateIn{InHeader: node(dir), Flags: unix.O_WRONLY, Mode: 0o644}, name, &out); status != fuse.OK {
			t.Fatal(status)
		}
		return out.NodeId, out.Fh
	}
	upper, written := create("upper")
	if err := unix.Setxattr(fs.stack.Spec.Lower[0]+"/dir/"+benchName(0), "user.x", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	opened := func() uint64 {
		var out fuse.OpenOut
		if status := fs.Open(nil, &fuse.OpenIn{InHeader: node(file)}, &out); status != fuse.OK {
			t.Fatal(status)
		}
		return out.Fh
	}
	time.Sleep(50 * time.Millisecond) // a file that was changed just now may be cached or not
	opened()
	getxattr := func(size uint32, attr string) []byte {
		return request(opGetxattr, fuse.GetXAttrIn{InHeader: node(file), Size: size}, attr)
	}
	mode := fuse.SetAttrInCommon{InHeader: node(upper), Valid: fuse.FATTR_MODE, Mode: 0o600}
	fixed := func(in uintptr) int { return int(in - unsafe.Sizeof(fuse.InHeader{})) }
	same := func([]byte) {}
	number := func(out []byte) { clear(out[:8]) } // files are numbered in turn
	changed := func(out []byte) {
		attr := (*fuse.AttrOut)(unsafe.Pointer(&out[0]))
		attr.Ctime, attr.Ctimensec = 0, 0
	}
	tests := []struct {
		name  string
		fixed int
		mask  func([]byte) // clears what is another each time
		make  func() []byte
	}{
		{"lookup", 0, same, func() []byte { return request(opLookup, node(dir), benchName(0)) }},
		{"lookup in vain", 0, same, func() []byte { return request(opLookup, node(dir), "missing") }},
		{"lookup nowhere", 0, same, func() []byte { return request(opLookup, node(12345), "missing") }},
		{"getattr", fixed(unsafe.Sizeof(fuse.GetAttrIn{})), same, func() []byte { return request(opGetattr, fuse.GetAttrIn{InHeader: node(file)}) }},
		{"getattr nowhere", fixed(unsafe.Sizeof(fuse.GetAttrIn{})), same, func() []byte { return request(opGetattr, fuse.GetAttrIn{InHeader: node(12345)}) }},
		{"getxattr", fixed(unsafe.Sizeof(fuse.GetXAttrIn{})), same, func() []byte { return getxattr(100, "user.x") }},
		{"getxattr size", fixed(unsafe.Sizeof(fuse.GetXAttrIn{})), same, func() []byte { return getxattr(0, "user.x") }},
		{"getxattr too long", fixed(unsafe.Sizeof(fuse.GetXAttrIn{})), same, func() []byte { return getxattr(2, "user.x") }},
		{"getxattr in vain", fixed(unsafe.Sizeof(fuse.GetXAttrIn{})), same, func() []byte { return getxattr(100, "user.y") }},
		{"getxattr size in vain", fixed(unsafe.Sizeof(fuse.GetXAttrIn{})), same, func() []byte { return getxattr(0, "user.y") }},
		{"open", fixed(unsafe.Sizeof(fuse.OpenIn{})), number, func() []byte { return request(opOpen, fuse.OpenIn{InHeader: node(file)}) }},
		{"open nowhere", fixed(unsafe.Sizeof(fuse.OpenIn{})), same, func() []byte { return request(opOpen, fuse.OpenIn{InHeader: node(12345)}) }},
		{"read", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte {
			return request(opRead, fuse.ReadIn{InHeader: node(file), Fh: opened(), Size: 2000, Offset: 100})
		}},
		{"read beyond the end", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte {
			return request(opRead, fuse.ReadIn{InHeader: node(file), Fh: opened(), Size: 2000, Offset: 3000})
		}},
		{"read nothing", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte { return request(opRead, fuse.ReadIn{InHeader: node(file), Fh: 12345, Size: 2000}) }},
		{"write", fixed(unsafe.Sizeof(fuse.WriteIn{})), same, func() []byte {
			return request(opWrite, fuse.WriteIn{InHeader: node(upper), Fh: written, Size: 5}, "data")
		}},
		{"write nowhere", fixed(unsafe.Sizeof(fuse.WriteIn{})), same, func() []byte {
			return request(opWrite, fuse.WriteIn{InHeader: node(upper), Fh: 12345, Size: 5}, "data")
		}},
		{"readdir", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte { return request(opReaddir, fuse.ReadIn{InHeader: node(dir), Size: 2000}) }},
		{"readdir from the middle", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte {
			return request(opReaddir, fuse.ReadIn{InHeader: node(dir), Size: 2000, Offset: 10})
		}},
		{"readdirplus", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte { return request(opReaddirplus, fuse.ReadIn{InHeader: node(dir), Size: 3000}) }},
		{"readdir nowhere", fixed(unsafe.Sizeof(fuse.ReadIn{})), same, func() []byte { return request(opReaddir, fuse.ReadIn{InHeader: node(12345), Size: 2000}) }},
		{"release", fixed(unsafe.Sizeof(fuse.ReleaseIn{})), same, func() []byte {
			return request(opRelease, fuse.ReleaseIn{InHeader: node(file), Fh: opened()})
		}},
		{"unlink", 0, same, func() []byte { create("gone"); return request(opUnlink, node(dir), "gone") }},
		{"unlink in vain", 0, same, func() []byte { return request(opUnlink, node(dir), "missing") }},
		{"create in vain", fixed(unsafe.Sizeof(fuse.CreateIn{})), same, func() []byte {
			return request(opCreate, fuse.CreateIn{InHeader: node(12345), Mode: 0o644}, "new")
		}},
		{"setattr", fixed(unsafe.Sizeof(fuse.SetAttrIn{})), changed, func() []byte { return request(opSetattr, fuse.SetAttrIn{SetAttrInCommon: mode}) }},
	}
	for _, test := range tests {
		answers := map[string][]byte{}
		for via := range messages(request(opLookup, node(dir), "x"), 0) {
			m := messages(test.make(), test.fixed)[via]
			n, ok := s.quick(m)
			if !ok {
				t.Fatalf("%s, %s: left to go-fuse", test.name, via)
			}
			answers[via] = whole(m, n)
			m = messages(test.make(), test.fixed)[via]
			n, status := s.protocol.HandleRequest(m.In, m.Out)
			if !status.Ok() {
				t.Fatalf("%s, %s: go-fuse: %v", test.name, via, status)
			}
			answers["go-fuse, "+via] = whole(m, n)
		}
		for _, answer := range answers {
			test.mask(answer[outHeaderSize:])
		}
		want := answers["go-fuse, apart"]
		for via, got := range answers {
			if !bytes.Equal(got, want) {
				t.Errorf("%s: by %s\n%x\nby go-fuse\n%x", test.name, via, got, want)
			}
		}
	}
}

// whole is an answer of n bytes in one piece.
func whole(m *transport.Message, n int) []byte {
	return append(bytes.Clone(m.Out[0]), m.Out[1][:n-outHeaderSize]...)
}

// What cannot be taken apart, or may take long, is left to go-fuse.
func TestQuickLeaves(t *testing.T) {
	fs := benchFS(t, 1)
	s := &server{fs: fs, log: log.New(io.Discard, "", 0)}
	dir := benchLookup(t, fs, rootID, "dir")
	header := fuse.InHeader{NodeId: benchLookup(t, fs, dir, benchName(0))}
	truncated := request(opGetattr, fuse.GetAttrIn{InHeader: header})
	for what, msg := range map[string][]byte{
		"open for writing":  request(opOpen, fuse.OpenIn{InHeader: header, Flags: unix.O_WRONLY}),
		"open and truncate": request(opOpen, fuse.OpenIn{InHeader: header, Flags: unix.O_TRUNC}),
		"copy up":           request(opSetattr, fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header, Valid: fuse.FATTR_MODE}}),
		"half a request":    truncated[:len(truncated)-8],
		"statfs":            request(17, header),
	} {
		if n, ok := s.quick(messages(msg, 0)["apart"]); ok {
			t.Errorf("%s: answered with %d bytes", what, n)
		}
	}
}

// FORGET has no answer, and may be about many nodes.
func TestQuickForget(t *testing.T) {
	fs := benchFS(t, 1)
	s := &server{fs: fs, log: log.New(io.Discard, "", 0)}
	dir := benchLookup(t, fs, rootID, "dir")
	ids := make([]uint64, 3)
	for i := range ids {
		ids[i] = benchLookup(t, fs, dir, benchName(i))
	}
	type batch struct {
		fuse.InHeader
		Count, Dummy uint32
	}
	many := request(opBatchForget, batch{Count: 2})
	for _, id := range ids[:2] {
		many = binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(many, id), 1)
	}
	for i, msg := range [][]byte{many, request(opForget, fuse.ForgetIn{InHeader: fuse.InHeader{NodeId: ids[2]}, Nlookup: 1})} {
		if n, ok := s.quick(messages(msg, 8)["dev-fuse"]); n != 0 || !ok {
			t.Fatalf("message %d: %d, %v", i, n, ok)
		}
	}
	for i, id := range ids {
		if fs.node(id) != nil {
			t.Error(fmt.Sprint("node ", i, " was not forgotten"))
		}
	}
}
