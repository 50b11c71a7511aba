// Package origin asks an origin through a Caddy handler, and feeds what it answers to a
// relay's sink: it judges the answer, decompresses and decodes it, and waits for handlers that
// do not notice that their request is over.
package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A Caller is who asks a source.
type Caller interface {
	// Abandoned adds to the number of sources that nobody listens to any more.
	Abandoned(more int)

	// Deaf tells of a source that was silent for too long and goes on.
	Deaf(address string)

	// Closing is closed when nothing more is needed.
	Closing() <-chan struct{}
}

// Ask calls serve, which writes to a, and returns when it has answered to the end, or when
// ctx has ended and it was given some time to notice. What it has come to is returned,
// and with what error it has ended.
func Ask(ctx context.Context, caller Caller, a *Answer, serve func(context.Context) error) (relay.Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What a source is cancelled with must be context.Canceled itself: anything
	// else reverse_proxy logs as an error, and its passive health checks count it
	// against the origin.
	plain, cancelPlain := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelPlain()
	defer context.AfterFunc(ctx, cancelPlain)()
	done := make(chan error, 1)
	var left atomic.Bool // by the first of both to end, this call or the source
	go func() {
		done <- serve(plain)
		if left.Swap(true) {
			caller.Abandoned(-1)
		}
	}()

	err := awaitSource(ctx, cancel, done, caller, a)
	a.finish(err)
	cut := a.close()
	caller.Abandoned(+1)
	if left.Swap(true) {
		caller.Abandoned(-1)
	}
	return a.outcome(ctx, err, cut), err
}

// outcome returns what an answer has come to. Its source has ended with err, and it was
// cut because of cut, unless that is nil.
func (a *Answer) outcome(ctx context.Context, err, cut error) relay.Outcome {
	out := relay.Outcome{
		Verdict:     a.refusal.verdict,
		Status:      a.refusal.status,
		Header:      a.refusal.header,
		Body:        a.refusal.body.Bytes(),
		Restriction: a.refusal.restriction,
		Err:         err,
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cut, errNotWanted), errors.Is(cause, errNotWanted) && cut == nil:
		out.Err = nil
	case errors.Is(cause, errNotWanted):
		out.Err = cut
	case cause != nil:
		if out.Verdict != relay.Stream {
			// What a source makes of being cancelled is not the origin's word.
			out = relay.Outcome{}
		}
		out.Err = cause
	case cut != nil:
		out.Err = cut
	}
	out.Address = a.Address()
	out.RetryAfter = RetryAfter(out.Header, time.Now())
	return out
}

// PlainError returns err for people to read. Of an error of Caddy's it leaves out
// the line of code and the status: who reads this looks for what has happened.
func PlainError(err error) error {
	if httpErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok && httpErr.Err != nil {
		err = httpErr.Err
	}
	if errors.Is(err, http.ErrAbortHandler) {
		// It is all that reverse_proxy says when the origin has hung up.
		return &abortedError{err}
	}
	return err
}

// An abortedError is http.ErrAbortHandler in words.
type abortedError struct{ error }

// Error implements error.
func (a *abortedError) Error() string {
	return strings.Replace(a.error.Error(), http.ErrAbortHandler.Error(), "the connection to the origin broke", 1)
}

// Unwrap returns what is put in words.
func (a *abortedError) Unwrap() error { return a.error }

const (
	// SourceGrace is how long a source may take to end after its request has.
	SourceGrace = 2 * time.Second

	// refusalGrace is how long the body of an answer that is no event stream may
	// take. What is longer is a stream of another kind.
	refusalGrace = 250 * time.Millisecond
)

// awaitSource waits for the source to return. If it was cancelled, the error
// says why.
func awaitSource(ctx context.Context, cancel context.CancelCauseFunc, done <-chan error, caller Caller, a *Answer) error {
	select {
	case err := <-done:
		return err
	case <-a.refused:
		select {
		case err := <-done:
			return err
		case <-time.After(a.grace()):
			cancel(errNotWanted)
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	// Every handler of Caddy's own ends soon after its request, but FastCGI
	// notices only at its next byte.
	select {
	case <-done: //nolint:errcheck // that of a source that was cancelled says nothing
		return context.Cause(ctx)
	case <-time.After(SourceGrace):
	}
	if errors.Is(context.Cause(ctx), relay.ErrIdle) {
		// It was too quiet, and still holds its place at the origin. Another one beside
		// it would be as quiet, and after half an hour there were 55.
		caller.Deaf(a.Address())
		select {
		case <-done: //nolint:errcheck // see above
		case <-a.gone:
		case <-caller.Closing():
		}
	}
	return context.Cause(ctx) // what it still writes is refused
}

// Serve calls a source and turns a panic into an error: for a handler,
// http.ErrAbortHandler is the way to say that the stream broke.
func Serve(h caddyhttp.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = fmt.Errorf("reading the event stream: %w", p)
		default:
			err = fmt.Errorf("reading the event stream: the handler behind panicked: %v", p)
		}
	}()
	return h.ServeHTTP(w, r)
}
