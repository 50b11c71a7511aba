package ssefanout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A source answers upstream requests.
type source struct {
	// serve asks for the topic of u on a, and returns when the source has answered to the end.
	// Its error may be a frontError, or errMoved.
	serve func(ctx context.Context, u *upstream, from relay.Resumption, a *answer) error
}

// nothingBehind is what stands behind the source of the endpoint form: a
// configured handler that does not answer has nobody to leave it to.
var nothingBehind = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return caddyhttp.Error(http.StatusInternalServerError,
		errors.New("asking the source: it has not answered the request"))
})

// upstreamSource returns what answers the upstream requests of the topics of h.
func (h *Handler) upstreamSource() source {
	if h.wraps() {
		local := localAddr(h.server)
		return source{func(ctx context.Context, u *upstream, from relay.Resumption, a *answer) error {
			return enterSite(ctx, h.door, local, &inquiry{upstream: u, from: from, answer: a})
		}}
	}
	return source{func(ctx context.Context, u *upstream, from relay.Resumption, a *answer) error {
		r := h.newEndpointRequest(ctx, u, from, a)
		a.request.Store(r)
		return serveSource(caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return h.source.ServeHTTP(w, r, nothingBehind)
		}), a, r)
	}}
}

// newEndpointRequest makes the request that opens a topic's upstream in the
// endpoint form: a function of what defines the topic, and of what to resume with (R1).
func (h *Handler) newEndpointRequest(ctx context.Context, u *upstream, from relay.Resumption, w http.ResponseWriter) *http.Request {
	server := h.server
	if server == nil {
		server = new(caddyhttp.Server)
	}
	r := newStrangerRequest(ctx, u, localAddr(h.server))
	resume(r, from)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
	u.request.applyValues(r)
	return r
}

// ask sends the request for a topic to its source and returns when the source
// has answered it to the end, or when ctx has ended and the source was given
// some time to notice.
func ask(ctx context.Context, src source, u *upstream, from relay.Resumption, a *answer) relay.Outcome {
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
		done <- src.serve(plain, u, from, a)
		if left.Swap(true) {
			u.abandoned.Add(-1)
			u.topic.SourceEnded()
		}
	}()

	err := awaitSource(ctx, cancel, done, u, a)
	a.finish(err)
	cut := a.close()
	u.abandoned.Add(1)
	if left.Swap(true) {
		u.abandoned.Add(-1)
	}
	return u.outcomeOf(ctx, a, err, cut)
}

// outcomeOf returns what an answer has come to. Its source has ended with err, and it was
// cut because of cut, unless that is nil.
func (u *upstream) outcomeOf(ctx context.Context, a *answer, err, cut error) relay.Outcome {
	out := relay.Outcome{
		Verdict:     a.refusal.verdict,
		Status:      a.refusal.status,
		Header:      a.refusal.header,
		Body:        a.refusal.body.Bytes(),
		Restriction: a.refusal.restriction,
	}
	ended := err
	switch cause := context.Cause(ctx); {
	case errors.Is(cut, errNotWanted), errors.Is(cause, errNotWanted) && cut == nil:
		ended = nil
	case errors.Is(cause, errNotWanted):
		ended = cut
	case cause != nil:
		ended = cause
		if out.Verdict != relay.Stream {
			// What a source makes of being cancelled is not the origin's word.
			out = relay.Outcome{}
		}
	case cut != nil:
		ended = cut
	}
	out.Elsewhere = errors.Is(ended, errMoved)
	out.FallsBack = u.fallsBack(ended)
	out.Err = plainError(ended)
	out.Address = a.address()
	out.RetryAfter = retryAfter(out.Header, time.Now())
	if front, ok := errors.AsType[*frontError](err); ok && ctx.Err() == nil {
		out.RetryAfter = front.retryAfter
		if front.definite {
			out.Verdict, out.Status, out.Front = relay.Elsewhere, front.status, front.Error()
		}
	}
	if r := a.request.Load(); r != nil && ctx.Err() == nil {
		out.Unhandled, _ = caddyhttp.GetVar(r.Context(), "unhandled").(bool)
	}
	return out
}

// fallsBack reports whether an error of the source is one for which the site has routes
// of its own (handle_errors). Then those who wait for a first answer get what these bring,
// as they would without us.
func (u *upstream) fallsBack(err error) bool {
	if _, ok := errors.AsType[caddyhttp.HandlerError](err); !ok || !u.pool.opts.wrapping {
		return false
	}
	h := u.pool.lineage.newestHandler()
	return h != nil && h.server != nil && h.server.Errors != nil && len(h.server.Errors.Routes) > 0
}

// plainError returns err for people to read. Of an error of Caddy's it leaves out
// the line of code and the status: who reads this looks for what has happened.
func plainError(err error) error {
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
	// sourceGrace is how long a source may take to end after its request has.
	sourceGrace = 2 * time.Second

	// refusalGrace is how long the body of an answer that is no event stream may
	// take. What is longer is a stream of another kind.
	refusalGrace = 250 * time.Millisecond
)

// awaitSource waits for the source to return. If it was cancelled, the error
// says why.
func awaitSource(ctx context.Context, cancel context.CancelCauseFunc, done <-chan error, u *upstream, a *answer) error {
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
	case <-time.After(sourceGrace):
	}
	if errors.Is(context.Cause(ctx), relay.ErrIdle) {
		// It was too quiet, and still holds its place at the origin. Another one beside
		// it would be as quiet, and after half an hour there were 55.
		u.logDeaf(a.address())
		select {
		case <-done: //nolint:errcheck // see above
		case <-a.gone:
		case <-u.topic.Closing():
		}
	}
	return context.Cause(ctx) // what it still writes is refused
}

// serveSource calls the source and turns a panic into an error: for a handler,
// http.ErrAbortHandler is the way to say that the stream broke.
func serveSource(h caddyhttp.Handler, w http.ResponseWriter, r *http.Request) (err error) {
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
