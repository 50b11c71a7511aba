package ssefanout

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A source answers upstream requests.
type source struct {
	handler caddyhttp.Handler
	server  *caddyhttp.Server
}

// nothingBehind is what stands behind the source of the endpoint form: a
// configured handler that does not answer has nobody to leave it to.
var nothingBehind = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return caddyhttp.Error(http.StatusInternalServerError,
		errors.New("asking the source: it has not answered the request"))
})

// endpoint returns the source of the endpoint form.
func (h *Handler) endpoint() source {
	return source{
		handler: caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return h.source.ServeHTTP(w, r, nothingBehind)
		}),
		server: h.server,
	}
}

// errNothingBehind is what the wrapping form answers when it is the last handler
// of its route.
var errNothingBehind = errors.New("sse_fanout has nothing to share: name upstreams, or put it in front of " +
	"the handler that answers, such as reverse_proxy, in the same block")

// strangerAddr is where upstream requests come from: an address that is
// nobody's (RFC 5737). Whatever judges by address, behind this handler or in
// the origin, judges a shared request a stranger.
const strangerAddr = "192.0.2.1:1"

// newUpstreamRequest makes the request that opens a topic's upstream: a function
// of what defines the topic, and of the id to resume with (R1).
func newUpstreamRequest(ctx context.Context, req *topicRequest, from resumption, server *caddyhttp.Server, w http.ResponseWriter) *http.Request {
	orig := from.inQuery(req.orig)
	r := &http.Request{
		Method:     http.MethodGet,
		URL:        &orig,
		RequestURI: orig.RequestURI(),
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header: http.Header{
			"Accept":          {"text/event-stream"},
			"Accept-Encoding": {"identity"},
			"Cache-Control":   {"no-cache"},
			"User-Agent":      {"caddy-sse-fanout"},
		},
		Body:       http.NoBody,
		Host:       req.host,
		RemoteAddr: strangerAddr,
	}
	if req.tls {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}
	}
	for name, values := range req.header {
		r.Header[name] = append([]string(nil), values...)
	}
	if from.id != "" {
		r.Header["Last-Event-Id"] = []string{from.id}
	}
	if server == nil {
		server = new(caddyhttp.Server)
	}

	repl := caddy.NewReplacer()
	for _, v := range req.vary {
		repl.Set(v.name, v.value)
	}
	r = caddyhttp.PrepareRequest(r.WithContext(ctx), repl, w, server)
	for _, v := range req.vars {
		caddyhttp.SetVar(r.Context(), v.name, v.value)
	}
	for _, v := range req.vary {
		if name, ok := strings.CutPrefix(v.name, "http.vars."); ok {
			caddyhttp.SetVar(r.Context(), name, v.value)
		}
	}
	// The original request that PrepareRequest has kept is the one before
	// rewrites; from here on it is the one that the source is to answer.
	current := from.inQuery(req.url)
	r.URL = &current
	r.RequestURI = current.RequestURI()
	return r
}

// inQuery returns u with the id in the query parameter that the client uses.
func (from resumption) inQuery(u url.URL) url.URL {
	if from.id == "" || from.param == "" {
		return u
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += url.QueryEscape(from.param) + "=" + url.QueryEscape(from.id)
	return u
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
func ask(ctx context.Context, src source, req *topicRequest, from resumption, a *answer) outcome {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What a source is cancelled with must be context.Canceled itself: anything
	// else reverse_proxy logs as an error, and its passive health checks count it
	// against the origin.
	plain, cancelPlain := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelPlain()
	defer context.AfterFunc(ctx, cancelPlain)()
	r := newUpstreamRequest(plain, req, from, src.server, a)
	a.request = r
	done := make(chan error, 1)
	go func() { done <- serveSource(src.handler, a, r) }()

	err := awaitSource(ctx, cancel, done, a)
	a.finish(err)
	cut := a.close()

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
	if ctx.Err() == nil {
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
func awaitSource(ctx context.Context, cancel context.CancelCauseFunc, done <-chan error, a *answer) error {
	select {
	case err := <-done:
		return err
	case <-a.refused:
		select {
		case err := <-done:
			return err
		case <-time.After(refusalGrace):
			cancel(errNotWanted)
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	// Every handler of Caddy's own ends soon after its request, but FastCGI
	// notices only at its next byte. What it writes is refused.
	select {
	case <-done: //nolint:errcheck // that of a source that was cancelled says nothing
	case <-time.After(sourceGrace):
	}
	return context.Cause(ctx)
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
