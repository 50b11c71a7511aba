package ssefanout

import (
	"context"
	"errors"
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
	request *request.Topic

	abandoned atomic.Int32 // sources that nobody listens to any more

	homes site.Homes // wrapping form

	outage observe.Outage // owned by the goroutine that feeds the topic
}

// upstreamOf returns the upstream of a topic.
func upstreamOf(t *relay.Topic) *upstream { return t.Source().(*upstream) }

// Follow implements relay.Source.
func (u *upstream) Follow(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
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
func (u *upstream) seek(h *Handler) {
	if u.pool.opts.Wrapping && u.pool.lineage.isNewest(h) && u.isConnectedThroughAnother(h) {
		u.topic.Reroute()
	}
}

// isConnectedThrough reports whether the connection goes through the configuration of h.
func (u *upstream) isConnectedThrough(h *Handler) bool {
	return u.topic.IsConnected() && u.homes.IsVia(h.server)
}

// isConnectedThroughAnother reports whether the stranger has been through other
// configurations than that of h alone, or the connection goes through one.
func (u *upstream) isConnectedThroughAnother(h *Handler) bool {
	return u.homes.AreElsewhere(h.server, u.topic.IsConnected())
}

// Interface guards
var _ relay.Source = (*upstream)(nil)
