package site

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/origin"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A Visit is one request of a stranger to a site. It belongs to the goroutine that serves the
// request.
type Visit struct {
	arrived   bool
	err       error // of the source, once arrived
	elsewhere bool  // the request reached a handler with another pool
}

// HasArrived reports whether the request has reached the handler that it is for.
func (v *Visit) HasArrived() bool { return v.arrived }

// Arrive has the source asked, as the request has reached the handler that it is for. Handlers
// in front get no error.
func (v *Visit) Arrive(r *http.Request, ask func() error) error {
	v.arrived = true
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	v.err = ask()
	return nil
}

// ErrElsewhere is what a handler answers to a stranger that is not its own.
var ErrElsewhere = caddyhttp.Error(http.StatusMisdirectedRequest,
	errors.New("serving a shared request of another sse_fanout"))

// Misled turns away a request that has reached another handler.
func (v *Visit) Misled() error {
	v.elsewhere = true
	return ErrElsewhere
}

// A FrontError is the error of a visit that has not arrived: the site has answered the
// stranger in front of the handler.
type FrontError struct {
	Status     int  // 0: it was aborted, or the site did not answer
	Definite   bool // strangers are not led here
	RetryAfter time.Duration
}

func (f *FrontError) Error() string {
	if f.Status == 0 {
		return "entering the site as a stranger: aborted in front of sse_fanout"
	}
	return fmt.Sprintf("entering the site as a stranger: answered with status %d in front of sse_fanout", f.Status)
}

// Enter sends the stranger's request into a site. It returns the error of the source, or a
// FrontError.
func Enter(door Door, r *http.Request, v *Visit) (err error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	front := &frontWriter{header: make(http.Header), answered: cancel}
	defer func() {
		p := recover()
		switch aborted := p == http.ErrAbortHandler; { //nolint:errorlint // net/http compares so, too
		case v.arrived:
			err = v.err
		case p != nil && !aborted:
			err = fmt.Errorf("entering the site as a stranger: a handler in front of sse_fanout panicked: %v", p)
		default:
			err = front.answer(v.elsewhere || aborted)
		}
	}()
	door.Enter(front, r.WithContext(ctx))
	return nil
}

// A frontWriter takes what the site answers a stranger who has not arrived. The
// status is all that matters, so the request is cancelled when that is known: the
// answer may be an endless stream of another block.
type frontWriter struct {
	header   http.Header
	status   int
	answered context.CancelFunc
}

func (f *frontWriter) Header() http.Header { return f.header }

func (f *frontWriter) WriteHeader(status int) {
	if f.status == 0 && status >= 200 {
		f.status = status
		f.answered()
	}
}

func (f *frontWriter) Write(p []byte) (int, error) {
	f.WriteHeader(http.StatusOK)
	return len(p), nil
}

// FlushError sends the header, as it does in net/http.
func (f *frontWriter) FlushError() error {
	f.WriteHeader(http.StatusOK)
	return nil
}

// A server sets deadlines for the requests of its clients. A stranger has none.

// SetReadDeadline does nothing.
func (f *frontWriter) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (f *frontWriter) SetWriteDeadline(time.Time) error { return nil }

// answer returns what the site has answered. An empty response is Caddy's 200.
func (f *frontWriter) answer(definite bool) *FrontError {
	status := f.status
	if status == 0 && !definite {
		status = http.StatusOK
	}
	v := origin.Judge(status, f.header)
	return &FrontError{
		Status:     status,
		Definite:   definite || v != relay.Unavailable,
		RetryAfter: origin.RetryAfter(f.header, time.Now()),
	}
}
