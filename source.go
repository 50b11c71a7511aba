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
)

// A source answers upstream requests.
type source struct {
	// serve asks for t on a, and returns when the source has answered to the end.
	// Its error may be a frontError, or errMoved.
	serve func(ctx context.Context, t *topic, from resumption, a *answer) error
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
		return source{func(ctx context.Context, t *topic, from resumption, a *answer) error {
			return enterSite(ctx, h.door, local, &inquiry{topic: t, from: from, answer: a})
		}}
	}
	return source{func(ctx context.Context, t *topic, from resumption, a *answer) error {
		r := h.newEndpointRequest(ctx, t, from, a)
		a.request.Store(r)
		return serveSource(caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return h.source.ServeHTTP(w, r, nothingBehind)
		}), a, r)
	}}
}

// newEndpointRequest makes the request that opens a topic's upstream in the
// endpoint form: a function of what defines the topic, and of what to resume with (R1).
func (h *Handler) newEndpointRequest(ctx context.Context, t *topic, from resumption, w http.ResponseWriter) *http.Request {
	server := h.server
	if server == nil {
		server = new(caddyhttp.Server)
	}
	r := newStrangerRequest(ctx, t, localAddr(h.server))
	from.apply(r)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
	t.request.applyValues(r)
	return r
}

// sendableID reports whether an id can be the value of a header field; if not,
// the request would never leave.
func sendableID(id string) bool {
	return id != "" && strings.IndexFunc(id, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

// An outcome is how a connection to a source ended.
type outcome struct {
	refusal
	err        error         // why it ended, nil for a clean end
	address    string        // of the origin, if the source names it
	retryAfter time.Duration // what the origin asked for
}

// ask sends the request for a topic to its source and returns when the source
// has answered it to the end, or when ctx has ended and the source was given
// some time to notice.
func ask(ctx context.Context, src source, t *topic, from resumption, a *answer) outcome {
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
		done <- src.serve(plain, t, from, a)
		if left.Swap(true) {
			t.abandoned.Add(-1)
			t.catchups.wake()
		}
	}()

	err := awaitSource(ctx, cancel, done, t, a)
	a.finish(err)
	cut := a.close()
	t.abandoned.Add(1)
	if left.Swap(true) {
		t.abandoned.Add(-1)
	}

	out := outcome{refusal: a.refusal, err: err, address: a.address()}
	switch cause := context.Cause(ctx); {
	case errors.Is(cut, errNotWanted), errors.Is(cause, errNotWanted) && cut == nil:
		out.err = nil
	case errors.Is(cause, errNotWanted):
		out.err = cut
	case cause != nil:
		out.err = cause
		if out.verdict != verdictStream {
			// What a source makes of being cancelled is not the origin's word.
			out.refusal = refusal{}
		}
	case cut != nil:
		out.err = cut
	}
	out.retryAfter = retryAfter(out.header, time.Now())
	if front, ok := errors.AsType[*frontError](err); ok && ctx.Err() == nil {
		out.retryAfter = front.retryAfter
		if front.definite {
			out.verdict, out.status, out.front = verdictElsewhere, front.status, front.Error()
		}
	}
	if r := a.request.Load(); r != nil && ctx.Err() == nil {
		out.unhandled, _ = caddyhttp.GetVar(r.Context(), "unhandled").(bool)
	}
	return out
}

const (
	// sourceGrace is how long a source may take to end after its request has.
	sourceGrace = 2 * time.Second

	// refusalGrace is how long the body of an answer that is no event stream may
	// take. What is longer is a stream of another kind.
	refusalGrace = 250 * time.Millisecond
)

// awaitSource waits for the source to return. If it was cancelled, the error
// says why.
func awaitSource(ctx context.Context, cancel context.CancelCauseFunc, done <-chan error, t *topic, a *answer) error {
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
	if errors.Is(context.Cause(ctx), errIdle) {
		// It was too quiet, and still holds its place at the origin. Another one beside
		// it would be as quiet, and after half an hour there were 55.
		t.upstream.logDeaf(a.address())
		select {
		case <-done: //nolint:errcheck // see above
		case <-a.gone:
		case <-t.ctx.Done():
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
