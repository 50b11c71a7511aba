// Package tail prints the events of a stream as they come. It knows no Caddy.
package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// A Form is how events are printed.
type Form int

// The forms.
const (
	Human Form = iota // columns
	JSON              // an object for each event, each on a line
	Raw               // the bytes as they come
)

// silence is how long a server may take to answer before it is worth a word.
const silence = 5 * time.Second

// longestDelay keeps a sum of durations from overflowing.
const longestDelay = 1 << 62

// Tail is what is printed, and where.
type Tail struct {
	Form  Form
	Types []string // of events to print; none means all
	Count int      // how many events to print; 0 means no limit
	Quiet bool     // no notices

	Out, Notices              io.Writer
	OutColours, NoticeColours terminal.Palette

	mu       sync.Mutex // guards Notices: the notice of a silent server comes from a timer
	columns  columns
	raw      *sse.Decoder // finds the events in the bytes, for Count
	printed  int
	received int
	losses   int
	last     time.Time // when the last event came
	openedAt time.Time // when the first connection was opened
	tried    time.Time // when the current connection was begun
	waiting  *time.Timer
}

// ErrTimeout is the cause of a context that ended because time was up.
var ErrTimeout = errors.New("time is up")

// errEnough is how the printer tells the client that Count is reached.
var errEnough = errors.New("enough")

// Run prints the stream until it is over: nil if it came to an end that was
// asked for, by the count, by NoReconnect, or by the end of ctx, unless the cause
// of that is ErrTimeout.
func (t *Tail) Run(ctx context.Context, client *eventsource.Client) error {
	client.Observer = eventsource.Observer{
		Opened: func(r *http.Response) error {
			t.opened(r)
			return nil
		},
		Event:        t.event,
		Reconnecting: t.reconnecting,
	}
	if t.Form == Raw {
		client.Bytes = t.bytes
		limit := client.MaxEventSize
		if limit == 0 {
			limit = eventsource.DefaultMaxEventSize
		}
		t.raw = sse.NewDecoder(limit, func(e *sse.Event) {
			if e.HasData {
				t.printed++
			}
		})
	}
	t.begin(0)
	err := client.Run(ctx)
	t.waiting.Stop()
	switch {
	case errors.Is(err, errEnough):
		err = nil
	case ctx.Err() != nil && !errors.Is(err, ErrTimeout):
		err = nil // interrupted
	}
	if !t.openedAt.IsZero() {
		sign := t.NoticeColours.Dim("■")
		if ctx.Err() != nil && terminal.Is(t.Notices) {
			sign = "\r" + sign // over the ^C that the terminal shows
		}
		t.summarize(sign)
	}
	return err
}

// begin starts the wait for the answer to a request that is sent after delay.
func (t *Tail) begin(delay time.Duration) {
	t.tried = time.Now().Add(delay)
	t.waiting = time.AfterFunc(min(delay, longestDelay)+silence, func() {
		t.notice(t.NoticeColours.Yellow("…"), "no answer yet after %s; a browser would wait as well", terminal.Duration(silence))
	})
}

func (t *Tail) opened(r *http.Response) {
	t.waiting.Stop()
	now := time.Now()
	if t.openedAt.IsZero() {
		t.openedAt = now
	}
	// An event that follows a gap in the connection says nothing by its time.
	t.last = time.Time{}
	if t.raw != nil {
		t.raw.Reset()
	}
	t.notice(t.NoticeColours.Green("●"), "%s  %s", t.NoticeColours.Bold(terminal.Clean(r.Request.URL.Redacted())),
		t.NoticeColours.Dim(fmt.Sprintf("%s %s after %s", r.Proto, terminal.Clip(r.Status, 50), terminal.Duration(now.Sub(t.tried)))))
}

func (t *Tail) reconnecting(err error, wait time.Duration) error {
	t.waiting.Stop()
	why := "the server ended the stream"
	if _, unreachable := errors.AsType[*eventsource.ConnectError](err); unreachable {
		why = "no connection: " + err.Error()
	} else if err != nil {
		why = err.Error()
	}
	t.losses++
	t.notice(t.NoticeColours.Yellow("○"), "%s; trying again in %s", why, terminal.Duration(wait))
	t.begin(wait)
	return nil
}

func (t *Tail) summarize(sign string) {
	text := plural(t.received, "event")
	if t.Form != Raw && t.printed != t.received {
		text = fmt.Sprintf("%d of %s", t.printed, text)
	}
	text += " in " + terminal.Duration(time.Since(t.openedAt))
	if t.losses > 0 {
		text += ", " + plural(t.losses, "reconnect")
	}
	t.notice(sign, "%s", t.NoticeColours.Dim(text))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (t *Tail) notice(sign, format string, args ...any) {
	if t.Quiet {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.Notices, "%s %s\n", sign, fmt.Sprintf(format, args...))
}

// bytes prints the raw form, up to the end of the last event that was asked for.
func (t *Tail) bytes(_ time.Time, p []byte) error {
	if t.Count == 0 {
		_, err := t.Out.Write(p)
		return err
	}
	for line := range bytes.SplitAfterSeq(p, []byte("\n")) {
		if _, err := t.Out.Write(line); err != nil {
			return err
		}
		// An event that is too large is the client's to complain of.
		_, _ = t.raw.Write(line)
		if t.printed >= t.Count {
			t.received = t.printed
			return errEnough
		}
	}
	return nil
}

// event prints e, unless it is none to EventSource or of another type.
func (t *Tail) event(at time.Time, e *sse.Event, id string) error {
	if !e.HasData {
		return nil
	}
	t.received++
	if t.Form == Raw {
		return nil
	}
	kind := "message"
	if len(e.Type) > 0 {
		kind = string(e.Type)
	}
	if len(t.Types) > 0 && !slices.Contains(t.Types, kind) {
		return nil
	}
	var text []byte
	if t.Form == JSON {
		text = appendJSON(nil, at, kind, e, id)
	} else {
		text = t.columns.append(nil, t.OutColours, row{at: at, last: t.last, kind: kind, event: e})
	}
	t.last = at
	if _, err := t.Out.Write(text); err != nil {
		return err
	}
	if t.printed++; t.Count > 0 && t.printed >= t.Count {
		return errEnough
	}
	return nil
}
