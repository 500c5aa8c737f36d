package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

const contrib = "../../contrib"

// The alerts are raised by what they are for and by nothing else, says contrib/prometheus/unionfsd.rules.test.yml.
func TestAlerts(t *testing.T) {
	promtool := need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "unionfsd.rules.yml"}, {"test", "rules", "unionfsd.rules.test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = contrib + "/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A Prometheus that scrapes a union under load has an answer to every query of the dashboard and of the alerts.
func TestPrometheus(t *testing.T) {
	testfs.NeedRoot(t)
	server := need(t, "prometheus")
	need(t, "tar")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	u := mountForPrometheus(ctx, t)
	p := startPrometheus(ctx, t, server, u)
	native := startPrometheus(ctx, t, server, u, "--enable-feature=native-histograms")
	u.load(ctx, t)

	queries := dashboardQueries(t)
	for what, query := range alertQueries(ctx, t, p) {
		queries[what] = query
	}
	if len(queries) < 30 {
		t.Fatalf("only %d queries were found", len(queries))
	}
	deadline := time.Now().Add(time.Minute)
	for what, query := range queries {
		p.wantData(ctx, t, deadline, what, query)
	}
	for _, histogram := range []string{"unionfsd_request_duration_seconds", "unionfsd_lookup_layers", "unionfsd_copyup_duration_seconds"} {
		query := "histogram_quantile(0.99, sum(rate(" + histogram + "[30s])))"
		native.wantData(ctx, t, deadline, "native histogram", query)
	}
}

// need is the path of a program.
func need(t *testing.T, program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		testfs.Skip(t, "%s is not installed; apt-get install %s", program, strings.Replace(program, "promtool", "prometheus", 1))
	}
	return path
}

// served is a union that is scraped.
type served struct {
	t        *testing.T
	dir      string
	address  string // of its metrics
	textfile string // where the textfile is served, in the place of node_exporter
}

func mountForPrometheus(ctx context.Context, t *testing.T) *served {
	u := &served{t: t, dir: testfs.Tmpfs(t)}
	for _, dir := range []string{"lower", "upper", "work", "m"} {
		if err := os.Mkdir(filepath.Join(u.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20000 {
		if err := os.WriteFile(fmt.Sprintf("%s/lower/%d", u.dir, i), []byte("data\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	u.run("mount", "--metrics-listen", "127.0.0.1:0", "-l", "lower", "-u", "upper", "-w", "work", "m")
	t.Cleanup(func() { u.run("umount", "m") })
	u.run("run", "--rm", "--rootfs", "/", "true")
	u.run("metrics", "--textfile", "unionfsd.prom")
	textfile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, u.dir+"/unionfsd.prom")
	}))
	t.Cleanup(textfile.Close)
	u.textfile = textfile.Listener.Addr().String()
	var unions []unionInfo
	if err := json.Unmarshal(u.run("mounts", "--json"), &unions); err != nil {
		t.Fatal(err)
	}
	for _, info := range unions {
		if string(info.Mountpoint) == u.dir+"/m" {
			u.address = info.Metrics
		}
	}
	if u.address == "" {
		t.Fatal("the list of unions does not tell where the metrics are")
	}
	return u
}

// run runs unionfsd, with paths that are relative to the directory of the union.
func (u *served) run(args ...string) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"--root", u.dir + "/state"}, args...)...)
	cmd.Args[0] = "unionfsd"
	cmd.Dir = u.dir
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		u.t.Errorf("unionfsd %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// load uses the union in every way that is counted, until the test ends: it unpacks an archive, and changes and
// removes what the lower layer has.
func (u *served) load(ctx context.Context, t *testing.T) {
	const script = `
		i=0
		while [ $i -lt 20000 ]; do
			mkdir new && tar -C ../lower -cf - $(seq $i $((i + 99))) | tar -C new -xf - && ls -l new >/dev/null && rm -r new
			echo more >>$i; i=$((i + 1))
			cat $i >/dev/null
			chmod 600 $i; i=$((i + 1))
			rm $i; mkdir $i; rmdir $i; i=$((i + 1))
			cat nowhere 2>/dev/null
			dd if=0 of=/dev/null iflag=direct bs=4k status=none
			sleep 0.01
		done`
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = u.dir + "/m"
	cmd.Stderr = os.Stderr
	start(t, cmd)
}

// start starts a program in a process group of its own, which is killed when the test ends. What the program has
// started is ours then (see testfs.Main), and may use the union until it was waited for.
func start(t *testing.T, cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		group := -cmd.Process.Pid
		syscall.Kill(group, syscall.SIGKILL)
		cmd.Wait()
		for {
			if _, err := syscall.Wait4(group, nil, 0, nil); err != nil && err != syscall.EINTR {
				return
			}
		}
	})
}

// prometheus is a running one.
type prometheus struct{ url string }

func startPrometheus(ctx context.Context, t *testing.T, program string, u *served, flags ...string) *prometheus {
	dir := t.TempDir()
	rules, err := filepath.Abs(contrib + "/prometheus/unionfsd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: unionfsd, static_configs: [{targets: [%q]}]}
  - {job_name: textfile, static_configs: [{targets: [%q]}]}
`, rules, u.address, u.textfile)
	if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a free port
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	flags = append(flags, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data",
		"--web.listen-address="+address, "--log.level=warn")
	cmd := exec.CommandContext(ctx, program, flags...)
	cmd.Stdout, cmd.Stderr = log, log
	start(t, cmd)
	t.Cleanup(func() {
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("prometheus:\n%s", text)
		}
	})
	p := &prometheus{"http://" + address}
	for range 200 {
		if err := p.get(ctx, "/-/ready", nil); err == nil {
			return p
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("prometheus was not ready within 20 s")
	return nil
}

// get asks for a path and reads the answer into v, unless that is nil.
func (p *prometheus) get(ctx context.Context, path string, v any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	if v == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(v)
}

// wantData waits until a query has data.
func (p *prometheus) wantData(ctx context.Context, t *testing.T, deadline time.Time, what, query string) {
	t.Helper()
	for !p.hasData(ctx, t, query) {
		if time.Now().After(deadline) {
			t.Errorf("%s: no data for: %s", what, query)
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// hasData reports whether a query has a result that is a number.
func (p *prometheus) hasData(ctx context.Context, t *testing.T, query string) bool {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	for _, series := range answer.Data.Result {
		text, _ := series.Value[1].(string)
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) {
			return true
		}
	}
	return false
}

// dashboardQueries are the queries of the panels, with what Grafana would put in the place of its variables.
func dashboardQueries(t *testing.T) map[string]string {
	text, err := os.ReadFile(contrib + "/grafana/unionfsd.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "30s", "$__range", "1m", "$mountpoint", ".*")
	queries := map[string]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			query := variables.Replace(target.Expr)
			if strings.Contains(query, "$") {
				t.Errorf("panel %q: unknown variable in %s", panel.Title, query)
			}
			queries[fmt.Sprintf("panel %q %s", panel.Title, target.RefID)] = query
		}
	}
	return queries
}

// comparison is one with a number, as it stands in an alert.
var comparison = regexp.MustCompile(` (==|!=|<=?|>=?) ([0-9])`)

// alertQueries are the queries of the alerts. A healthy union raises none, so that they have no result; with every
// comparison made to yield 0 or 1 they have, if there are such series at all.
func alertQueries(ctx context.Context, t *testing.T, p *prometheus) map[string]string {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query string }
			}
		}
	}
	if err := p.get(ctx, "/api/v1/rules", &answer); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			query := comparison.ReplaceAllString(rule.Query, " $1 bool $2")
			if query == rule.Query {
				t.Errorf("alert %s compares nothing: %s", rule.Name, query)
			}
			queries["alert "+rule.Name] = query
		}
	}
	return queries
}
