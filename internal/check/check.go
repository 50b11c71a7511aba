// Package check tells whether an event stream arrives as it was sent, or whether
// something on the way holds it back, cuts it or compresses it. It knows no
// Caddy.
package check

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
)

// DefaultDuration is how long a stream is listened to.
const DefaultDuration = 30 * time.Second

// plainTimeout is how long a stream that brings nothing is listened to without
// compression.
const plainTimeout = 10 * time.Second

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
