// Package check tells whether an event stream arrives as it was sent, or whether
// something on the way holds it back, cuts it or compresses it. It knows no
// Caddy.
package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// DefaultDuration is how long a stream is listened to.
const DefaultDuration = 30 * time.Second

// resumeTimeout is how long the second connection may take to bring its first
// event.
const resumeTimeout = 5 * time.Second

// plainTimeout is how long a stream that brings nothing is listened to without
// compression.
const plainTimeout = 10 * time.Second

// resumeFrom is how many events from the end the second connection begins.
const resumeFrom = 5

// What a browser says it can decode.
const browserEncodings = "gzip, deflate, br, zstd"

// Check is what to listen to, and for how long.
type Check struct {
	Client   eventsource.Client
	Duration time.Duration

	// Origin is the site whose pages are to read the stream, as in
	// "https://example.com", if it is not the stream's own.
	Origin string

	// Forced1 says that HTTP/1.1 was asked for, which is no fault of the server.
	Forced1 bool

	// Progress is called every second with what has been seen so far. May be nil.
	Progress func(elapsed, total time.Duration, events, heartbeats int)
}

// Run listens, and judges. If ctx ends, it judges what it has seen until then.
func (c *Check) Run(ctx context.Context) *Report {
	if c.Client.Header == nil {
		c.Client.Header = make(http.Header)
	}
	if c.Origin != "" {
		c.Client.Header.Set("Origin", c.Origin)
	}
	if c.Client.Header.Get("Accept-Encoding") == "" {
		c.Client.Header.Set("Accept-Encoding", browserEncodings)
	}

	main := c.listen(ctx)
	unread := ""
	if e, ok := errors.AsType[*eventsource.TypeError](main.err); ok && e.Encoding != "" {
		// It can be seen that it is compressed, but not what is inside.
		unread = e.Encoding
		c.Client.Header.Set("Accept-Encoding", "identity")
		main = c.listen(ctx)
	}

	report := newReport(c, main)
	if t, ok := c.Client.Transport.(*http.Transport); ok && t.Proxy != nil {
		if proxy, err := t.Proxy(&http.Request{URL: c.Client.URL}); err == nil && proxy != nil {
			report.Connection.Proxy = proxy.Redacted()
		}
	}
	j := &judge{observation: main, check: c, unread: unread, report: report}
	if main.response != nil && main.response.Header.Get("Content-Encoding") != "" && len(main.live()) == 0 && ctx.Err() == nil {
		plain := c.Client
		plain.Header = plain.Header.Clone()
		plain.Header.Set("Accept-Encoding", "identity")
		if o := observe(ctx, plain, min(plainTimeout, c.Duration), new(progress), nil); len(o.live()) > 0 && o.events > 0 {
			j.plain = o
		}
	}
	if len(main.ids) > 0 && main.err == nil && ctx.Err() == nil {
		j.resumed = c.resume(ctx, main.ids)
	}
	j.run()
	return j.report
}

// listen is the observation that all but one of the findings are made from.
func (c *Check) listen(ctx context.Context) *observation {
	var count progress
	if c.Progress != nil {
		begun := time.Now()
		done, finished := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(finished)
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			for {
				c.Progress(time.Since(begun), c.Duration, int(count.events.Load()), int(count.heartbeats.Load()))
				select {
				case <-ticker.C:
				case <-done:
					return
				}
			}
		}()
		defer func() { close(done); <-finished }()
	}
	return observe(ctx, c.Client, c.Duration, &count, nil)
}

// A resumption is what came of a second connection with an id.
type resumption struct {
	from, want, got string // ids
	err             error
}

// resume asks for what followed an event that has been seen, as a client that
// lost its connection there would.
func (c *Check) resume(ctx context.Context, ids []string) *resumption {
	i := max(0, len(ids)-1-resumeFrom)
	r := &resumption{from: ids[i]}
	if i+1 < len(ids) {
		r.want = ids[i+1]
	}
	client := c.Client
	client.LastEventID = r.from
	o := observe(ctx, client, resumeTimeout, new(progress), func(e *sse.Event) bool {
		if e.HasID && len(e.ID) > 0 && !isHeartbeat(e) {
			r.got = string(e.ID)
		}
		return r.got != ""
	})
	r.err = o.err
	return r
}

func (j *judge) resuming() {
	r := j.resumed
	switch {
	case j.events == 0:
		j.unseen("ids, and what happens to a client that comes back")
	case j.withID == 0:
		j.find(Warning, "resume", "Events have no ids, so a browser that reconnects misses what was sent in between.",
			"Send an id with each event and honour Last-Event-ID; in Caddy, sse_fanout with \"ids assign\" does both for you.")
	case r == nil:
		j.unseen("whether a client that comes back gets what it missed")
	case eventsource.IsTurnedAway(r.err):
		j.unseen("whether a client that comes back gets what it missed: " + r.err.Error())
	case r.err != nil:
		j.find(Warning, "resume", fmt.Sprintf("A second connection, with Last-Event-ID %s, was refused: %s.", quoted(r.from), r.err),
			"Browsers give up for good on that; let the server ignore an id that it cannot use, and allow enough connections.")
	case r.got == "":
		if r.want == "" {
			j.unseen("whether a client that comes back gets what it missed: there was only one id to come back with")
			return
		}
		j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server sent nothing within %s, though more had followed.", quoted(r.from), resumeTimeout),
			resumeFix)
	case r.want == "":
		if r.got == r.from {
			j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server sent that event again.", quoted(r.from)), resumeFix)
			return
		}
		j.unseen("whether a client that comes back gets all that it missed: there was only one id to come back with")
	case r.got == r.want:
		j.find(OK, "resume", fmt.Sprintf("Asked to go on after %s, the server went on with %s, as it should.", quoted(r.from), quoted(r.got)), "")
	case slices.Contains(j.ids[:slices.Index(j.ids, r.want)], r.got):
		j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server began again with %s: clients see events twice.", quoted(r.from), quoted(r.got)), resumeFix)
	default:
		j.find(Warning, "resume", fmt.Sprintf("Asked to go on after %s, the server went on with %s, not with %s: clients that reconnect miss events.",
			quoted(r.from), quoted(r.got), quoted(r.want)), resumeFix)
	}
}

const resumeFix = "Honour Last-Event-ID, or let sse_fanout do it: it remembers the last 1000 events, and needs only their ids."
