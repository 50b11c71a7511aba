// Package eventsource is a client of event streams that behaves as the
// EventSource of a browser does (WHATWG HTML, "Server-sent events"), except that
// it shows all that it sees. It knows no Caddy.
package eventsource

import (
	"bytes"
	"context"
	"errors"
	"html"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

const (
	// DefaultRetry is the reconnection time until the server names one.
	DefaultRetry = 3 * time.Second

	// DefaultMaxEventSize is that of the handler, too.
	DefaultMaxEventSize = 16 << 20

	// shortestRetry keeps a server that names no time at all from being asked in
	// a tight loop. Browsers have such a floor, too.
	shortestRetry = 100 * time.Millisecond

	// longestBackoff bounds what is added to the reconnection time while
	// nothing answers.
	longestBackoff = 30 * time.Second

	// How soon, and within how many bytes, a stream ends that turns a client away.
	turnAwayTime = time.Second
	turnAwaySize = 64

	// How long, and how much, of the body of a refusal is read.
	refusalTimeout = time.Second
	refusalSize    = 4096
)

// A Client is what it takes to read one stream.
type Client struct {
	URL       *url.URL
	Header    http.Header // sent with each request, on top of EventSource's own
	Transport http.RoundTripper

	// LastEventID is what the first request says. Run keeps it up to date.
	LastEventID string

	// NoReconnect makes Run return at the end of the first connection.
	NoReconnect bool

	// MaxEventSize bounds an event, and a line. Zero means the default.
	MaxEventSize int

	Observer
}

// An Observer is told what happens, by the goroutine of Run. Any of its functions
// may be nil. If one returns an error, Run returns it at once.
type Observer struct {
	// Redirected is called for each redirect, before it is followed.
	Redirected func(to *url.URL)

	// Opened is called for each connection that is an event stream, as soon as
	// its header is there.
	Opened func(*http.Response) error

	// Bytes is called with the bytes as they come, before they are decoded. They
	// are valid only until it returns.
	Bytes func(at time.Time, p []byte) error

	// Event is called for each block with data, an id or a reconnection time.
	// Only those with data are events to EventSource. The event is valid only
	// until it returns; id is the one in force after it.
	Event func(at time.Time, e *sse.Event, id string) error

	// Reconnecting is called when a connection has ended, broken or not come
	// about, before the time until the next is waited for. Err is nil if the
	// stream has ended as a stream should, and a TurnedAwayError if that was all
	// it did.
	Reconnecting func(err error, wait time.Duration) error
}

// errEnded is a stream that has ended without an error.
var errEnded = errors.New("the server ended the stream")

// Run reads the stream and follows it over reconnects, until ctx ends (it
// returns the cause then), the server refuses, or an observer has seen enough.
// A first connection that fails is final, for most likely the URL is wrong; once
// there has been one, Run goes on for ever, as a browser does. It returns nil, or
// a TurnedAwayError, only at the end of the stream with NoReconnect set.
func (c *Client) Run(ctx context.Context) error {
	retry := DefaultRetry
	failures := 0
	for opened := false; ; {
		was, err := c.connect(ctx, &retry)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if was {
			opened, failures = true, 0
		} else {
			failures++
		}

		switch _, unreachable := errors.AsType[*ConnectError](err); {
		case errors.Is(err, errEnded):
			err = nil
		case unreachable && opened:
		case !isLost(err) && !IsTurnedAway(err):
			return err
		}
		if c.NoReconnect {
			return err
		}

		wait := min(max(retry, shortestRetry), math.MaxInt64-longestBackoff)
		if failures > 1 {
			wait += min(time.Second<<min(failures-2, 10), longestBackoff)
		}
		if c.Reconnecting != nil {
			if err := c.Reconnecting(err, wait); err != nil {
				return err
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func isLost(err error) bool {
	_, ok := errors.AsType[*LostError](err)
	return ok
}

// connect makes one connection and reads it to its end. It reports whether it
// was one to an event stream.
func (c *Client) connect(ctx context.Context, retry *time.Duration) (opened bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := c.request(ctx)
	if err != nil {
		return false, err
	}
	client := &http.Client{
		Transport: c.Transport,
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			if len(via) > 20 { // as the Fetch standard has it
				return errors.New("more than 20 redirects")
			}
			if c.Redirected != nil {
				c.Redirected(request.URL)
			}
			return nil
		},
	}
	response, err := client.Do(request)
	if err != nil {
		return false, &ConnectError{err}
	}
	defer response.Body.Close()
	if err := judge(response, cancel); err != nil {
		return false, err
	}
	if c.Opened != nil {
		if err := c.Opened(response); err != nil {
			return true, err
		}
	}
	body, err := decoded(response)
	if err != nil {
		return true, err
	}
	return true, c.read(body, retry)
}

func (c *Client) request(ctx context.Context) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Accept-Encoding", "identity")
	// As a browser has them: sse_fanout tells a client that is one when to come back.
	request.Header.Set("Cache-Control", "no-cache")
	request.Header.Set("Pragma", "no-cache")
	request.Header.Set("User-Agent", "Mozilla/5.0 (compatible; caddy-sse-fanout)")
	maps.Copy(request.Header, c.Header)
	if host := c.Header.Get("Host"); host != "" {
		request.Host = host
		request.Header.Del("Host")
	}
	if c.LastEventID != "" {
		request.Header.Set("Last-Event-ID", c.LastEventID)
	}
	return request, nil
}

// judge returns what is wrong with a response that is no event stream.
func judge(response *http.Response, cancel context.CancelFunc) error {
	contentType := response.Header.Get("Content-Type")
	switch {
	case response.StatusCode == http.StatusNoContent:
		return ErrStopped
	case response.StatusCode != http.StatusOK:
		return &StatusError{
			Status:     terminal.Clip(response.Status, 100),
			Code:       response.StatusCode,
			Location:   response.Header.Get("Location"),
			RetryAfter: response.Header.Get("Retry-After"),
			Body:       beginning(response, cancel),
		}
	case !isEventStream(contentType):
		return &TypeError{ContentType: contentType, Body: beginning(response, cancel)}
	}
	return nil
}

func isEventStream(contentType string) bool {
	essence, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.Trim(essence, " \t"), "text/event-stream")
}

// beginning reads what a body begins with, if it is text that comes soon.
func beginning(response *http.Response, cancel context.CancelFunc) string {
	contentType := response.Header.Get("Content-Type")
	if response.Header.Get("Content-Encoding") != "" || contentType != "" &&
		!strings.HasPrefix(contentType, "text/") && !strings.Contains(contentType, "json") {
		return ""
	}
	timer := time.AfterFunc(refusalTimeout, cancel)
	defer timer.Stop()
	body, _ := io.ReadAll(io.LimitReader(response.Body, refusalSize))
	text := strings.ToValidUTF8(string(body), "")
	if strings.Contains(contentType, "html") {
		// Of a page, only its title is worth a line.
		match := title.FindStringSubmatch(text)
		if match == nil {
			return ""
		}
		text = html.UnescapeString(match[1])
	}
	return terminal.Clip(text, 120)
}

var title = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)

// read decodes the stream until it ends.
func (c *Client) read(body io.Reader, retry *time.Duration) error {
	limit := c.MaxEventSize
	if limit == 0 {
		limit = DefaultMaxEventSize
	}
	var at time.Time
	var stop error
	retried := false
	decoder := sse.NewDecoder(limit, func(e *sse.Event) {
		if stop != nil {
			return
		}
		if e.HasID {
			c.LastEventID = string(e.ID)
		}
		if e.HasRetry {
			*retry, retried = e.Retry, true
		}
		if c.Event != nil {
			stop = c.Event(at, e, c.LastEventID)
		}
	})
	buf := make([]byte, 32<<10)
	var start []byte
	for begun := time.Now(); ; {
		n, err := body.Read(buf)
		at = time.Now()
		start = append(start, buf[:min(n, turnAwaySize-len(start))]...)
		if n > 0 {
			if c.Bytes != nil {
				if err := c.Bytes(at, buf[:n]); err != nil {
					return err
				}
			}
			if _, err := decoder.Write(buf[:n]); err != nil {
				return err
			}
			if stop != nil {
				return stop
			}
		}
		switch {
		case errors.Is(err, io.EOF) && retried && oneLine(start) && at.Sub(begun) < turnAwayTime:
			return &TurnedAwayError{*retry}
		case errors.Is(err, io.EOF):
			return errEnded
		case err != nil:
			return &LostError{err}
		}
	}
}

// oneLine reports whether a stream that begins so is a single line. One that is too
// long to tell is not.
func oneLine(start []byte) bool {
	return len(start) < turnAwaySize && !bytes.ContainsAny(bytes.TrimRight(start, "\r\n"), "\r\n")
}
