package ssefanout

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/origin"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
)

// An upstream is how the origin of one topic is reached: through the source of the newest
// configuration that has started. It is asked anew for each connection, so that a topic
// outlives the handlers that it came through.
type upstream struct {
	// Static after construction.
	pool    *pool
	topic   *relay.Topic
	request *request.Shared
	shared  relay.Source // of the fleet, or nil

	abandoned atomic.Int32 // sources that nobody listens to any more

	homes site.Homes // wrapping form

	outage observe.Outage // owned by the goroutine that feeds the topic
}

// Outage implements observe.Source.
func (u *upstream) Outage() *observe.Outage { return &u.outage }

// upstreamOf returns the upstream of a topic.
func upstreamOf(t *relay.Topic) *upstream { return t.Source().(*upstream) }

// Follow implements relay.Source.
func (u *upstream) Follow(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	if u.shared == nil {
		return u.ask(ctx, from, sink)
	}
	// Another node may ask the origin. Whether this one's site leads strangers here is not for
	// that node to say. A catch-up is for those who share the topic already.
	if sink.Shared() {
		if out, leads := u.rehearse(ctx, sink); !leads {
			return out
		}
	}
	return u.shared.Follow(ctx, from, sink)
}

// rehearse sends a stranger as far as to the handler, in the wrapping form. It reports whether
// it gets there, and if not, what has come of it.
func (u *upstream) rehearse(ctx context.Context, sink relay.Sink) (out relay.Outcome, leads bool) {
	if !u.pool.opts.Wrapping {
		return out, true
	}
	src, ok := u.pool.source()
	if !ok {
		return relay.Outcome{Err: relay.ErrClosing}, false
	}
	q := &inquiry{upstream: u, settles: true, rehearses: true}
	q.answer = origin.NewAnswer(origin.Options{Restricts: u.restrictionOf}, sink)
	out, err := origin.Ask(ctx, caller{u}, q.answer, func(ctx context.Context) error { return src.serve(ctx, q) })
	if err != nil || !q.HasArrived() {
		return u.complete(ctx, out, err, q), false
	}
	u.homes.Connected(q.via)
	return out, true
}

// ask is Follow for a node that asks the origin itself.
func (u *upstream) ask(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	src, ok := u.pool.source()
	if !ok {
		return relay.Outcome{Err: relay.ErrClosing}
	}
	q := &inquiry{upstream: u, from: from, settles: sink.Shared()}
	q.answer = origin.NewAnswer(origin.Options{
		MaxEventSize: u.pool.opts.MaxEventSize,
		Guarded:      u.pool.opts.Wrapping,
		Restricts:    u.restrictionOf,
		Session:      string(pass.Session),
		Accepting: func() {
			if sink.Shared() {
				u.homes.Connected(q.via)
			}
		},
	}, sink)
	out, err := origin.Ask(ctx, caller{u}, q.answer, func(ctx context.Context) error { return src.serve(ctx, q) })
	return u.complete(ctx, out, err, q)
}

// complete adds to an outcome what the site has had to say. Its source has ended with err.
func (u *upstream) complete(ctx context.Context, out relay.Outcome, err error, q *inquiry) relay.Outcome {
	out.Elsewhere = errors.Is(out.Err, site.ErrMoved)
	out.FallsBack = u.fallsBack(out.Err)
	out.Err = origin.PlainError(out.Err)
	if front, ok := errors.AsType[*site.FrontError](err); ok && ctx.Err() == nil {
		out.RetryAfter = front.RetryAfter
		if front.Definite {
			out.Verdict, out.Status, out.Front = relay.Elsewhere, front.Status, front.Error()
		}
	}
	if r := q.answer.Request(); r != nil && ctx.Err() == nil {
		out.Unhandled, _ = caddyhttp.GetVar(r.Context(), "unhandled").(bool)
	}
	return out
}

// A caller is an upstream as those see it who ask its source.
type caller struct{ *upstream }

// Abandoned implements origin.Caller.
func (c caller) Abandoned(more int) {
	c.abandoned.Add(int32(more))
	if more < 0 {
		c.topic.SourceEnded()
	}
}

// Deaf implements origin.Caller.
func (c caller) Deaf(address string) {
	c.pool.Deaf(c.topic, address, time.Duration(c.pool.opts.IdleTimeout))
}

// Closing implements origin.Caller.
func (c caller) Closing() <-chan struct{} { return c.topic.Closing() }

// Abandoned implements relay.Source.
func (u *upstream) Abandoned() int { return int(u.abandoned.Load()) }

// Moved implements relay.Source.
func (u *upstream) Moved() bool {
	newest := u.pool.lineage.newestHandler()
	return newest != nil && u.isConnectedThroughAnother(newest)
}

// LeftBehind implements relay.Source: whether the newest configuration is one that the
// stranger has not got through.
func (u *upstream) LeftBehind() bool {
	newest := u.pool.lineage.newestHandler()
	return newest != nil && u.homes.LeaveBehind(newest.server)
}

// seek makes the topic go on through the configuration of h, if that is the newest and
// the topic is connected through others alone.
func (u *upstream) seek(h *instance) {
	if u.pool.opts.Wrapping && u.pool.lineage.isNewest(h) && u.isConnectedThroughAnother(h) {
		u.topic.Reroute()
	}
}

// isConnectedThrough reports whether the connection goes through the configuration of h.
func (u *upstream) isConnectedThrough(h *instance) bool {
	return u.topic.IsConnected() && u.homes.IsVia(h.server)
}

// isConnectedThroughAnother reports whether the stranger has passed through no configuration
// but others than that of h, or the present connection goes through another.
func (u *upstream) isConnectedThroughAnother(h *instance) bool {
	return u.homes.AreElsewhere(h.server, u.topic.IsConnected())
}

// restrictionOf returns what the header of an answer says against sharing it with
// the clients of the topic.
func (u *upstream) restrictionOf(header http.Header) relay.Restriction {
	return pass.RestrictionOf(u.pool.opts, header, u.request.Learned)
}

// A source answers upstream requests.
type source struct {
	// serve makes an inquiry, and returns when the source has answered to the end.
	// Its error may be a site.FrontError, or site.ErrMoved.
	serve func(ctx context.Context, q *inquiry) error
}

// fallsBack reports whether an error of the source is one for which the site has routes
// of its own (handle_errors). Then those who wait for a first answer get what these bring,
// as they would without us.
func (u *upstream) fallsBack(err error) bool {
	if _, ok := errors.AsType[caddyhttp.HandlerError](err); !ok || !u.pool.opts.Wrapping {
		return false
	}
	h := u.pool.lineage.newestHandler()
	return h != nil && h.server != nil && h.server.Errors != nil && len(h.server.Errors.Routes) > 0
}

// An inquiry is one upstream request. In the wrapping form, it arrives when it reaches a
// handler with the pool of the topic. That handler calls its next handler with the topic's
// own response writer. What the handlers in front do to the stranger's response is not used.
type inquiry struct {
	site.Visit

	upstream *upstream
	from     relay.Resumption // that the source is asked with
	answer   *origin.Answer

	// settles is true for the shared connection, and not for a catch-up. The handler that its
	// stranger reaches becomes the topic's home, and via is the route to it.
	settles bool
	via     site.Route

	// rehearses says that the source is not asked.
	rehearses bool
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
func (q *inquiry) serve(h *instance, r *http.Request, next caddyhttp.Handler) error {
	if q.HasArrived() {
		// A second line of this module, behind the one that shares.
		return next.ServeHTTP(q.answer, r)
	}
	if !h.wraps() || h.lineage.poolOf(h) != q.upstream.pool || h.surroundings().Never != "" {
		return q.Misled()
	}
	return q.Arrive(r, func() error {
		if err := q.arrive(h, r); err != nil || q.rehearses {
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
func (q *inquiry) arrive(h *instance, r *http.Request) error {
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

// Interface guards
var (
	_ relay.Source   = (*upstream)(nil)
	_ observe.Source = (*upstream)(nil)
)
