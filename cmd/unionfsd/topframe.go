package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// frame is what is shown of the samples: all of the only one, or a line of each.
func frame(samples []sample) string {
	var b strings.Builder
	if len(samples) == 1 {
		samples[0].write(&b)
		return b.String()
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "REQUESTS/S\tP50\tP99\tIN FLIGHT\tREAD/S\tWRITTEN/S\tHITS\tCOPYING UP\t  MOUNTPOINT")
	for _, s := range samples {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%.0f\t  %s\n", count(s.rates.Total.Requests), duration(s.rates.Total.Median),
			duration(s.rates.Total.P99), s.rates.Total.InFlight, size(s.rates.Read), size(s.rates.Written),
			share(s.rates.HitShare, s.rates.Lookups), s.now.CopyingUp, oneLine(string(s.union.Mountpoint)))
	}
	w.Flush()
	return b.String()
}

// write shows one union: a line for each thing that can be slow, then the operations.
func (s sample) write(out io.Writer) {
	r, now := s.rates, s.now
	fmt.Fprintf(out, "%s  %s\n\n", oneLine(string(s.union.Mountpoint)), s.describe())
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-10s"+format+"\n", append([]any{name}, args...)...)
	}
	line("requests", "%s/s   p50 %s   p99 %s   %s failed/s   %.0f in flight", count(r.Total.Requests),
		duration(r.Total.Median), duration(r.Total.P99), count(r.Total.Failed), r.Total.InFlight)
	line("data", "read %s/s   written %s/s", size(r.Read), size(r.Written))
	line("lookups", "%s/s   %s hit   %s negative   %s whiteout   %.1f layers each", count(r.Lookups), share(r.HitShare, r.Lookups),
		share(r.NegativeShare, r.Lookups), share(r.HideShare, r.Lookups), r.LayersPerLookup)
	line("copy-ups", "%s/s   %s/s   %.0f in progress   %s since mounted", count(r.CopyUps), size(r.CopyUpBytes), now.CopyingUp, count(now.CopyUps))
	line("held", "%s nodes   %s files", count(now.Nodes), count(now.Files))
	if now.UpperSize > 0 {
		line("upper", "%s of %s available", size(now.UpperAvailable), size(now.UpperSize))
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "PER SECOND\tFAILED\tIN FLIGHT\tP50\tP99\t  OPERATION")
	for _, op := range r.Operations {
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t  %s\n", count(op.Requests), count(op.Failed), op.InFlight,
			duration(op.Median), duration(op.P99), op.Name)
	}
	w.Flush()
}

func (s sample) describe() string {
	text := s.union.Backend
	if spec, err := specOf(s.union); err == nil {
		text += fmt.Sprintf(", %d layers", layerCount(spec))
	}
	if !s.union.Since.IsZero() {
		text += ", since " + s.union.Since.Format(time.DateTime)
	}
	return text
}

// draw shows a frame in place of the one before, as much of it as the terminal has room for.
func draw(terminal *os.File, text string) error {
	const home, clearLine, clearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	window, err := windowSize(terminal)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	lines = lines[:min(len(lines), max(int(window.Row)-1, 1))]
	var b strings.Builder
	b.WriteString(home)
	for _, line := range lines {
		b.WriteString(cut(line, int(window.Col)) + clearLine + "\r\n")
	}
	b.WriteString(clearBelow)
	_, err = terminal.WriteString(b.String())
	return err
}

func windowSize(f *os.File) (*unix.Winsize, error) {
	return unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
}

func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width])
}

// count writes a number of things in at most five characters.
func count(n float64) string {
	switch {
	case n < 9.95 && n != math.Trunc(n):
		return fmt.Sprintf("%.1f", n)
	case n < 99999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 9.995e6:
		return fmt.Sprintf("%.0fk", n/1e3)
	default:
		return fmt.Sprintf("%.0fM", n/1e6)
	}
}

// size writes a number of bytes.
func size(n float64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%.0f B", n)
	}
	power := min(int(math.Log(n)/math.Log(1024)), len(units))
	return fmt.Sprintf("%.1f %ciB", n/math.Pow(1024, float64(power)), units[power-1])
}

// duration writes a time with two digits that matter; a dash for none.
func duration(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	digits := time.Duration(1)
	for d/digits >= 100 {
		digits *= 10
	}
	return d.Round(digits).String()
}

// share writes a part of a whole as per cent; a dash if the whole is nothing.
func share(part, whole float64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", part*100)
}
