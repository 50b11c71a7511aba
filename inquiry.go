package ssefanout

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/origin"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
)

// An inquiry is one upstream request. In the wrapping form, it arrives when it reaches a
// handler with the pool of the topic. That handler calls its next handler with the topic's
// own response writer. What the handlers in front do to the stranger's response is not used.
type inquiry struct {
	site.Visit

	upstream *upstream
	from     relay.Resumption // that the source is asked with
	answer   *origin.Answer

	// settles says that the shared connection is answered: where its stranger arrives is
	// the topic's home, which via leads through then.
	settles bool
	via     site.Route
}

// inquiryKey is where the context of a stranger's request has its inquiry.
type inquiryKey struct{}

func inquiryOf(r *http.Request) *inquiry {
	q, _ := r.Context().Value(inquiryKey{}).(*inquiry)
	return q
}

// stranger returns the request of an inquiry, for a handler of a server.
func (q *inquiry) stranger(ctx context.Context, server *caddyhttp.Server) *http.Request {
	u := q.upstream
	return u.request.Stranger(ctx, u.pool.opts.Stranger, site.LocalAddr(server))
}

// serve is called when the stranger has reached h: it asks the source, which is
// next. Handlers in front get neither its response nor its error.
func (q *inquiry) serve(h *Handler, r *http.Request, next caddyhttp.Handler) error {
	if q.HasArrived() {
		// A second line of this module, behind the one that shares.
		return next.ServeHTTP(q.answer, r)
	}
	if !h.wraps() || h.lineage.poolOf(h) != q.upstream.pool || h.surroundings().Never != "" {
		return q.Misled()
	}
	return q.Arrive(r, func() error {
		if err := q.arrive(h, r); err != nil {
			return err
		}
		q.upstream.request.Apply(r)
		request.Resume(r, q.from)
		q.answer.Asked(r)
		return origin.Serve(next, q.answer, r)
	})
}

// arrive is called when the stranger of a topic has reached h, with its request as the
// site has made it. An error means that the topic is not to be served from there.
func (q *inquiry) arrive(h *Handler, r *http.Request) error {
	u := q.upstream
	if !u.request.Matches(r.Header, h.settings.VaryHeaders) {
		// What stands in front has changed what the topic's key was made from.
		return &site.FrontError{Definite: true}
	}
	place, found := h.place(), h.factsOf(r)
	h.front.Reached()
	route, isNew, err := u.homes.Settle(place, found, q.settles)
	switch {
	case errors.Is(err, site.ErrUnsettled):
		u.topic.Reroute()
	case isNew:
		u.topic.Changed()
	}
	q.via = route
	return err
}
