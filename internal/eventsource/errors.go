package eventsource

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// ErrStopped is returned when the server has answered 204, by which it asks a
// client not to come back.
var ErrStopped = errors.New("the server asked not to come back (204 No Content)")

// A ConnectError means that there was no answer at all.
type ConnectError struct {
	Err error
}

func (e *ConnectError) Error() string { return plain(e.Err) }
func (e *ConnectError) Unwrap() error { return e.Err }

// A StatusError is an answer with another status than 200 and 204. EventSource
// gives up for good on it.
type StatusError struct {
	Status     string // as in "404 Not Found"
	Code       int
	Location   string // of a redirection that could not be followed
	RetryAfter string
	Body       string // how the body begins
}

func (e *StatusError) Error() string {
	text := e.Status
	if e.Location != "" {
		text += " to " + terminal.Clip(e.Location, 200)
	}
	if e.Body != "" {
		text += ": " + e.Body
	}
	return text
}

// A TypeError is an answer that is no event stream, or is encoded in a way that
// was not asked for. EventSource gives up for good on the first.
type TypeError struct {
	ContentType string
	Encoding    string // if this is what is wrong
	Body        string // how the body begins
}

func (e *TypeError) Error() string {
	switch {
	case e.Encoding != "":
		return fmt.Sprintf("the answer is encoded with %q, which cannot be read", e.Encoding)
	case e.ContentType == "":
		return "not an event stream: the answer has no Content-Type"
	}
	text := "not an event stream: Content-Type is " + terminal.Clip(e.ContentType, 100)
	if e.Body != "" {
		text += " (" + e.Body + ")"
	}
	return text
}

// A LostError means that a stream broke off, as opposed to ended.
type LostError struct {
	Err error
}

func (e *LostError) Error() string { return "the connection broke: " + plain(e.Err) }
func (e *LostError) Unwrap() error { return e.Err }

// A TurnedAwayError is a stream that ended as soon as it was opened, with nothing
// but a reconnection time. EventSource comes back after it, as it would not after
// an error, so this is how servers, sse_fanout among them, say no for now.
type TurnedAwayError struct {
	Retry time.Duration
}

// IsTurnedAway reports whether err is a TurnedAwayError.
func IsTurnedAway(err error) bool {
	_, ok := errors.AsType[*TurnedAwayError](err)
	return ok
}

func (e *TurnedAwayError) Error() string {
	return fmt.Sprintf("the server turned this client away and asked it to come back in %s: probably a limit is reached, or it is restarting",
		terminal.Duration(e.Retry))
}

// plain is what err says, without the URL that net/http puts in front.
func plain(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	text := terminal.Clip(err.Error(), 500)
	if errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(text, "HTTP response to HTTPS client") {
		return "the server speaks HTTP here, not HTTPS"
	}
	return text
}
