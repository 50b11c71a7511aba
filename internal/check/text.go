package check

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// What the human form measures: the width of a line, and of what stands in front
// of a finding.
const (
	lineWidth   = 84
	indentWidth = 17
)

// A page is a report for people, as far as it is written.
type page struct {
	strings.Builder
	colours terminal.Palette
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer, colours terminal.Palette) error {
	p := &page{colours: colours}
	p.connection(r)
	p.arrivals(r)
	p.WriteByte('\n')
	for _, f := range r.Findings {
		p.finding(f)
	}
	p.notObserved(r.NotObserved)
	p.summary(r)
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, "  "+format+"\n", args...) }

// connection is the way to the stream, and how much came.
func (p *page) connection(r *Report) {
	p.line("%s", p.colours.Bold(terminal.Clean(r.URL)))
	for _, to := range r.Connection.Redirects {
		p.line("%s", p.colours.Dim("↳ "+terminal.Clean(to)))
	}
	c := &r.Connection
	if c.Status == "" {
		return
	}
	text := fmt.Sprintf("%s, %s", c.Status, c.Protocol)
	if c.Remote != "" {
		text += " from " + c.Remote
	}
	if c.Proxy != "" {
		text += " by way of the proxy " + terminal.Clean(c.Proxy)
	}
	if len(c.Recognized) > 0 {
		text += "; " + strings.Join(c.Recognized, ", ")
	}
	p.line("%s", p.colours.Dim(text))
	text = fmt.Sprintf("header after %s", fromMS(c.HeaderMS))
	switch first := fromMS(c.FirstMS); {
	case r.Stream.Bytes == 0:
	case first == "0ms":
		text += ", first bytes with it"
	default:
		text += fmt.Sprintf(", first bytes %s later", first)
	}
	p.line("%s", p.colours.Dim(text))
	p.line("%s", p.colours.Dim(fmt.Sprintf("%s, %s, %s in %s", count(r.Stream.Events, "event"),
		count(r.Stream.Heartbeats, "heartbeat"), size(r.Stream.Bytes), fromMS(r.Stream.ListenedMS))))
}

// arrivals is the strip, above its time axis.
func (p *page) arrivals(r *Report) {
	if r.strip == "" {
		return
	}
	p.WriteByte('\n')
	p.line("%s", p.colours.Cyan(r.strip))
	end := fromMS(r.Stream.ListenedMS)
	p.line("%s", p.colours.Dim("0s"+strings.Repeat(" ", max(1, stripWidth-2-len(end)))+end))
}

func (p *page) finding(f Finding) {
	var sign string
	switch f.Level {
	case Note:
		sign = p.colours.Dim("·")
	case Warning:
		sign = p.colours.Yellow("!")
	case Failure:
		sign = p.colours.Red("✗")
	default:
		sign = p.colours.Green("✓")
	}
	about := terminal.Pad(f.About, indentWidth-5)
	if f.Level == Note {
		about = p.colours.Dim(about)
	} else {
		about = p.colours.Bold(about)
	}
	for i, text := range wrap(terminal.Clean(f.Text), lineWidth-indentWidth) {
		if f.Level == Note {
			text = p.colours.Dim(text)
		}
		if i == 0 {
			p.line("%s %s %s", sign, about, text)
		} else {
			p.line("%s%s", strings.Repeat(" ", indentWidth-2), text)
		}
	}
	for i, text := range wrap(terminal.Clean(f.Fix), lineWidth-indentWidth-2) {
		arrow := "  "
		if i == 0 {
			arrow = p.colours.Cyan("→ ")
		}
		p.line("%s%s%s", strings.Repeat(" ", indentWidth-2), arrow, text)
	}
}

func (p *page) notObserved(list []string) {
	if len(list) == 0 {
		return
	}
	p.WriteByte('\n')
	for i, what := range list {
		about := "             "
		if i == 0 {
			about = "Not observed:"
		}
		for k, text := range wrap(what, lineWidth-indentWidth-2) {
			mark := "- "
			if k > 0 {
				about, mark = "             ", "  "
			}
			p.line("%s", p.colours.Dim(about+"  "+mark+terminal.Clean(text)))
		}
	}
}

func (p *page) summary(r *Report) {
	summary := r.Summary
	switch r.Verdict {
	case Failure:
		summary = p.colours.Red("✗ ") + p.colours.Bold(summary)
	case Warning:
		summary = p.colours.Yellow("! ") + p.colours.Bold(summary)
	default:
		summary = p.colours.Green("✓ ") + p.colours.Bold(summary)
	}
	p.WriteByte('\n')
	p.line("%s", summary)
}

func fromMS(ms float64) string {
	return terminal.Duration(time.Duration(ms * float64(time.Millisecond)))
}

func size(n int) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// wrap breaks text into lines of at most width characters, between words.
func wrap(text string, width int) []string {
	var lines []string
	var line strings.Builder
	for word := range strings.FieldsSeq(text) {
		if line.Len() > 0 && terminal.Width(line.String())+1+terminal.Width(word) > width {
			lines = append(lines, line.String())
			line.Reset()
		}
		if line.Len() > 0 {
			line.WriteByte(' ')
		}
		line.WriteString(word)
	}
	if line.Len() > 0 {
		lines = append(lines, line.String())
	}
	return lines
}
