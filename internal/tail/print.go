package tail

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// The widest that a column becomes. What is longer still is printed in full.
const (
	widestID   = 36 // a UUID
	widestType = 20
)

// columns prints events below each other. A column is as wide as it has had to
// be so far, so the first lines of a stream may be narrower than the rest.
type columns struct {
	id, kind int
}

// row is one event.
type row struct {
	at, last time.Time
	kind     string
	event    *sse.Event
}

// append appends the human form of an event: when it came, how long after the
// one before, its id, its type, and its data, with further lines of it below the
// first. JSON is left as it is.
func (c *columns) append(dst []byte, colours terminal.Palette, r row) []byte {
	id := ""
	if r.event.HasID {
		id = terminal.Clean(string(r.event.ID))
	}
	kind := terminal.Clean(r.kind)
	c.id = max(c.id, min(terminal.Width(id), widestID))
	c.kind = max(c.kind, min(terminal.Width(kind), widestType))

	var b strings.Builder
	since := ""
	if !r.last.IsZero() {
		since = "+" + interval(r.at.Sub(r.last))
	}
	b.WriteString(colours.Dim(r.at.Format("15:04:05.000")))
	b.WriteString(colours.Dim(strings.Repeat(" ", max(1, 9-len(since))) + since))
	b.WriteString("  ")
	if c.id > 0 {
		b.WriteString(colours.Cyan(id))
		b.WriteString(strings.Repeat(" ", max(0, c.id-terminal.Width(id))+2))
	}
	b.WriteString(colours.Green(kind))

	indent := len("15:04:05.000") + 9 + 2 + c.kind + 2
	if c.id > 0 {
		indent += c.id + 2
	}
	lines := strings.Split(string(r.event.Data), "\n")
	for i, line := range lines {
		space := indent
		if i == 0 {
			space = max(0, c.kind-terminal.Width(kind)) + 2
		} else {
			b.WriteByte('\n')
		}
		if line != "" {
			b.WriteString(strings.Repeat(" ", space))
			b.WriteString(terminal.Clean(line))
		}
	}
	b.WriteByte('\n')
	return append(dst, b.String()...)
}

// interval is d with as many digits as the one above and below it.
func interval(d time.Duration) string {
	if d >= time.Second-time.Millisecond/2 && d < time.Minute-5*time.Millisecond {
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return terminal.Duration(d)
}

// record is the JSON form of an event.
type record struct {
	Time  string  `json:"time"`
	ID    *string `json:"id,omitempty"` // only if the event has brought it
	Type  string  `json:"type"`
	Data  string  `json:"data"`
	Retry *int64  `json:"retry,omitempty"` // milliseconds

	// The id in force: what a reconnect would say.
	LastEventID string `json:"last_event_id,omitempty"`
}

// appendJSON appends the JSON form of an event, on a line. Data is text, even
// where it is JSON itself.
func appendJSON(dst []byte, at time.Time, kind string, e *sse.Event, id string) []byte {
	r := record{
		Time:        at.Format("2006-01-02T15:04:05.000Z07:00"),
		Type:        kind,
		Data:        string(e.Data),
		LastEventID: id,
	}
	if e.HasID {
		r.ID = new(string(e.ID))
	}
	if e.HasRetry {
		r.Retry = new(e.Retry.Milliseconds())
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(r) // ends with a newline, and cannot fail: all of it is text
	return append(dst, b.Bytes()...)
}
