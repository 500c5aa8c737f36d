package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAddresses(t *testing.T) {
	for text, want := range map[string]Address{
		"127.0.0.1:9737": {"tcp", "127.0.0.1:9737"},
		":9737":          {"tcp", "127.0.0.1:9737"},
		"0.0.0.0:1":      {"tcp", "0.0.0.0:1"},
		"[::]:1":         {"tcp", "[::]:1"},
		"unix:/run/a":    {"unix", "/run/a"},
		"unix:":          {},
		"9737":           {},
		"localhost":      {},
		"localhost:":     {},
		"":               {},
	} {
		got, err := ParseAddress(text)
		if got != want || (err == nil) != (want != Address{}) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "; write ") {
			t.Errorf("%q: the error %q does not say what to write", text, err)
		}
	}
}

func TestListenUnix(t *testing.T) {
	a := Address{"unix", filepath.Join(t.TempDir(), "s")}
	l, err := a.Listen()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(a.Address); err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("socket: %v, %v; want no access for others", st.Mode(), err)
	}
	if _, err := a.Listen(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second one: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as if the process had been killed
	if l, err = a.Listen(); err != nil {
		t.Fatalf("after one that was killed: %v", err)
	}
	l.Close()
	if err := os.WriteFile(a.Address, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Listen(); err == nil {
		t.Error("a file was taken for a socket")
	}
	if _, err := os.Stat(a.Address); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestHTTP(t *testing.T) {
	a := Address{"tcp", "127.0.0.1:0"}
	var sick error
	for _, profiling := range []bool{false, true} {
		l, err := a.Listen()
		if err != nil {
			t.Fatal(err)
		}
		server := Serve(l, full(t).Handler(func() error { return sick }, profiling))
		defer server.Close()
		get := func(path string) (int, string) {
			client := http.Client{Timeout: 10 * time.Second}
			defer client.CloseIdleConnections()
			response, err := client.Get("http://" + l.Addr().String() + path)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			return response.StatusCode, string(text)
		}
		if code, text := get("/metrics"); code != 200 || !strings.Contains(text, "\nunionfsd_faults_total{mountpoint=\"/m\"} 3\n") {
			t.Errorf("/metrics: %d\n%s", code, text)
		}
		sick = nil
		if code, text := get("/healthz"); code != 200 || text != "ok\n" {
			t.Errorf("/healthz: %d %q", code, text)
		}
		sick = errors.New("not mounted")
		if code, text := get("/healthz"); code != 503 || text != "not mounted\n" {
			t.Errorf("/healthz of a sick one: %d %q", code, text)
		}
		want := 404
		if profiling {
			want = 200
		}
		if code, _ := get("/debug/pprof/"); code != want {
			t.Errorf("/debug/pprof/ with profiling %v: %d", profiling, code)
		}
	}
}

// What is fetched is what is gathered there, native histograms included.
func TestFetch(t *testing.T) {
	l, err := Address{"tcp", "127.0.0.1:0"}.Listen()
	if err != nil {
		t.Fatal(err)
	}
	r := full(t)
	server := Serve(l, r.Handler(func() error { return nil }, false))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	got, err := Fetch(ctx, dial)
	if err != nil {
		t.Fatal(err)
	}
	same(t, fixed(text(t, got.Own())), fixed(text(t, gather(t, r).Own())))
	for _, family := range got {
		if family.GetName() == "unionfsd_request_duration_seconds" && len(family.Metric[0].Histogram.PositiveSpan) == 0 {
			t.Error("the native histogram is gone")
		}
	}
	server.Close()
	if _, err := Fetch(ctx, dial); err == nil {
		t.Error("fetched from nobody")
	}
}
