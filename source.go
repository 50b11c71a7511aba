package ssefanout

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/origin"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
)

// nothingBehind is what stands behind the source of the endpoint form: a
// configured handler that does not answer has nobody to leave it to.
var nothingBehind = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return caddyhttp.Error(http.StatusInternalServerError,
		errors.New("asking the source: it has not answered the request"))
})

// upstreamSource returns what answers the upstream requests of the topics of h.
func (h *instance) upstreamSource() source {
	if h.wraps() {
		return source{func(ctx context.Context, q *inquiry) error {
			r := q.stranger(context.WithValue(ctx, inquiryKey{}, q), h.server)
			return site.Enter(h.door, r, &q.Visit)
		}}
	}
	return source{func(ctx context.Context, q *inquiry) error {
		r := h.newEndpointRequest(ctx, q)
		q.answer.Asked(r)
		return origin.Serve(caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return h.source.ServeHTTP(w, r, nothingBehind)
		}), q.answer, r)
	}}
}

// newEndpointRequest makes the request that opens a topic's upstream in the
// endpoint form: a function of what defines the topic, and of what to resume with (R1).
func (h *instance) newEndpointRequest(ctx context.Context, q *inquiry) *http.Request {
	server := h.server
	if server == nil {
		server = new(caddyhttp.Server)
	}
	r := q.stranger(ctx, h.server)
	request.Resume(r, q.from)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), q.answer, server)
	q.upstream.request.Apply(r)
	return r
}
