package direct

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A feed is what gives a socket its bytes: its group, or what it has for itself alone.
// All methods but progress are called by the shard's run.
type feed interface {
	// home returns the shard.
	home() *shard

	// arrive takes a socket in.
	arrive(k *Socket)

	// supply gives a socket without a rest what it gets next, as a rest if the socket has
	// not taken all of it at once. It reports whether there may be more to do for it now.
	supply(k *Socket) bool

	// took is told that a socket has taken all of a rest.
	took(k *Socket, r *rest)

	// ring is called when the alarm of a socket has gone off that is not ending.
	ring(k *Socket)

	// cutsAt is when a socket is cut that takes nothing, whatever it has taken before.
	cutsAt() time.Duration

	// forget is told that a socket is closed.
	forget(k *Socket)

	// progress is Socket.Progress.
	progress(k *Socket) (events, bytes uint64, cursor hub.Cursor)
}

// home implements feed.
func (g *group) home() *shard { return g.shard }

// supply implements feed. A socket that has caught up is one of a crowd again.
func (g *group) supply(k *Socket) bool {
	s := g.shard
	if k.ending && !g.drains() {
		s.farewell(k, k.reason)
		return true
	}
	limit := g.admit(k)
	c := g.crowdOf(k)
	if !k.ending && c.meets(k) {
		c.rejoin(k)
		return false
	}
	next := g.lookFor(k, limit)
	switch {
	case next.lagged:
		s.farewell(k, Slow)
	case len(next.bytes) > 0:
		k.rest = next.rest()
		s.patience(k)
	case k.ending:
		s.farewell(k, k.reason)
	default:
		c.round() // it is ahead of the others
	}
	return true
}

// ring implements feed: the time of the client is over.
func (g *group) ring(k *Socket) {
	k.ending = true
	k.schedule()
	g.shard.leaveGroup(k)
	if k.rest == nil {
		g.shard.serve(k)
	}
}

// cutsAt implements feed.
func (g *group) cutsAt() time.Duration { return g.cutAt }

// forget implements feed.
func (g *group) forget(k *Socket) {
	delete(g.behind, k)
	g.shard.leave(g)
}

// progress implements feed.
func (g *group) progress(k *Socket) (events, bytes uint64, cursor hub.Cursor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k.place == behind {
		return k.events, k.bytes, k.cursor
	}
	c := g.crowdOf(k)
	return k.events + c.events, k.bytes + c.bytes, c.cursor
}

// Interface guards
var (
	_ feed = (*group)(nil)
	_ feed = (*Solo)(nil)
)
