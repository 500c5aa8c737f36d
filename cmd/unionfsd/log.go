package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// The log of a detached container has a line for each that its programs write, in the format of the Kubernetes CRI:
//
//	2026-11-25T04:37:05.123456789Z stdout F text of the line
//
// with P in the place of F where the line goes on in the next one.

// stream is where a line was written to.
type stream string

const (
	streamOut stream = "stdout"
	streamErr stream = "stderr"
)

// maxLog is the size at which a log is put aside; one that was before is dropped then.
const maxLog = 16 << 20

// containerLog writes a log.
type containerLog struct {
	path    string
	readers sync.WaitGroup

	mu   sync.Mutex
	file *os.File
	size int64
}

func newLog(path string) (*containerLog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &containerLog{path: path, file: f}, nil
}

// pipes returns what a program writes its output to; the caller closes them.
func (l *containerLog) pipes() (stdout, stderr *os.File, err error) {
	var files [2]*os.File
	for i, s := range []stream{streamOut, streamErr} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		files[i] = w
		l.take(r, s)
	}
	return files[0], files[1], nil
}

// take logs what comes from r until its end.
func (l *containerLog) take(r io.ReadCloser, s stream) {
	l.readers.Go(func() {
		defer r.Close()
		lines := bufio.NewReaderSize(r, 16<<10)
		for {
			text, err := lines.ReadSlice('\n')
			if len(text) > 0 {
				l.write(s, text)
			}
			if err != nil && err != bufio.ErrBufferFull {
				return // also EIO: the other end of a terminal is closed
			}
		}
	})
}

// write adds a line. What cannot be written is lost: the program is not to stop for it.
func (l *containerLog) write(s stream, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	whole := "F"
	if !bytes.HasSuffix(text, []byte("\n")) {
		whole, text = "P", append(text[:len(text):len(text)], '\n')
	}
	n, _ := fmt.Fprintf(l.file, "%s %s %s %s", time.Now().UTC().Format(time.RFC3339Nano), s, whole, text)
	if l.size += int64(n); l.size > maxLog {
		l.rotate()
	}
}

// Preconditions: l.mu is held.
func (l *containerLog) rotate() {
	if os.Rename(l.path, l.path+".1") != nil {
		return
	}
	if next, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
		l.file.Close()
		l.file, l.size = next, 0
	}
}

// close waits until all was read, which is when the container has ended.
func (l *containerLog) close() {
	l.readers.Wait()
	l.file.Close()
}

// logLine is one line of a log.
type logLine struct {
	when  string
	from  stream
	text  string
	whole bool
}

func parseLogLine(line string) (logLine, bool) {
	f := strings.SplitN(line, " ", 4)
	if len(f) < 4 {
		return logLine{}, false // half of one, by a crash
	}
	return logLine{when: f[0], from: stream(f[1]), whole: f[2] == "F", text: strings.TrimSuffix(f[3], "\n")}, true
}
