package direct

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A group is the clients that a shard has of one stream.
type group struct {
	shard  *shard
	stream Stream
	log    *hub.Log
	woken  atomic.Bool // it is in the shard's inbox
	stop   func()      // listening

	rendition *gzip.Rendition // nil: its clients get the log as it is

	size int // sockets, those behind included; guarded by shard.mu

	// Owned by shard.run.
	current crowd  // those that get the log as it is, or the pieces of its rendition
	waiting *crowd // those that wait for a restart point of the rendition; nil without one
	behind  map[*Socket]struct{}
	queued  bool // it is in shard.rounds
	ending  *Ending
	cutAt   time.Duration // of sockets that take nothing, if the stream ends

	mu sync.Mutex // guards where crowds and sockets are; held for nothing else
}

// join returns the group of a stream for a socket that arrives. s.mu must be held.
func (s *shard) join(h *Handover) *group {
	g := s.groups[h.Stream]
	if g == nil {
		g = &group{shard: s, stream: h.Stream, log: h.Log, cutAt: never, behind: make(map[*Socket]struct{})}
		g.current = crowd{group: g, cursor: h.Cursor, beat: h.Log.Look(h.Cursor).Beat}
		if h.Gzip != nil {
			g.rendition, g.current.mark = h.Gzip.Rendition(), h.Gzip.Mark()
			g.waiting = &crowd{group: g, cursor: h.Cursor, beat: g.current.beat, mark: gzip.Mark{}.Jump(h.Cursor)}
		}
		g.stop = h.Log.Listen(g.wake)
		s.groups[h.Stream] = g
	}
	g.size++
	return g
}

// crowds returns those that there are.
func (g *group) crowds() []*crowd {
	if g.waiting == nil {
		return []*crowd{&g.current}
	}
	return []*crowd{&g.current, g.waiting}
}

// crowdOf returns the crowd of a socket, also if that is behind.
func (g *group) crowdOf(k *Socket) *crowd {
	if k.waits {
		return g.waiting
	}
	return &g.current
}

// leave is called when a socket of a group is gone.
func (s *shard) leave(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.size--; g.size == 0 {
		g.stop()
		delete(s.groups, g.stream)
	}
}

// wake makes the shard look at the log.
func (g *group) wake() {
	if !g.woken.Swap(true) {
		g.shard.post(func() { g.shard.woken = append(g.shard.woken, g) })
	}
}

// arrive implements feed.
func (g *group) arrive(k *Socket) {
	g.behind[k] = struct{}{}
	k.schedule()
	if e := g.ending; e != nil {
		g.end(k, e)
	}
	g.heed(g.stream.Ending())
	g.shard.serve(k)
	// What was published before anybody listened has woken nobody.
	g.shard.queue(g)
}

// drains reports whether those that end get what is in the log first.
func (g *group) drains() bool { return g.ending != nil && g.ending.Drain }

// heed looks whether the stream is to end.
func (g *group) heed(e Ending, now bool) {
	if !now || g.ending != nil && e == *g.ending {
		return
	}
	ending := e // allocated once, and not whenever it is asked for
	g.ending = &ending
	if e.Grace > 0 {
		g.cutAt = min(g.cutAt, g.shard.writer.now()+e.Grace)
	}
	for _, c := range g.crowds() {
		for _, k := range c.live {
			g.end(k, &ending)
		}
	}
	for k := range g.behind {
		g.end(k, &ending)
	}
}

// end makes a client end as the stream does.
func (g *group) end(k *Socket, e *Ending) {
	over := time.Duration(0)
	if e.Over > 0 {
		over = rand.N(e.Over)
	}
	k.endBy(g.shard.writer.now()+over, e.Reason)
	if k.rest != nil {
		k.cutAt = min(k.cutAt, g.cutAt)
		k.schedule()
	}
}

// round gives each crowd one parcel. It reports whether there may be more. Those that wait come
// first: they need no compressor.
func (g *group) round() (more bool) {
	g.heed(g.stream.Ending())
	if g.waiting != nil {
		more = g.waiting.round()
	}
	return g.current.round() || more
}

// delivered counts what a number of clients have taken.
func (g *group) delivered(clients int, d Delivery, isBeat bool) {
	if isBeat {
		g.stream.Beaten(clients)
	} else {
		g.stream.Delivered(clients, d)
	}
}

// admit lets a socket that is behind get in step, if it waits for a restart point and there is
// one where it is. It returns where the next may be.
func (g *group) admit(k *Socket) (limit hub.Cursor) {
	if !k.waits {
		return everything
	}
	limit, ok := k.gzip.Enter(k.cursor, g.waiting.beat)
	if ok {
		g.mu.Lock()
		k.waits = false
		g.mu.Unlock()
	}
	return limit
}

// took implements feed.
func (g *group) took(k *Socket, r *rest) {
	d := r.delivery
	if d.leg != nil {
		k.gzip.MoveTo(d.leg.to)
	}
	if d.Events > 0 {
		g.count(k, d.Events, d.Bytes)
	}
	if d.Events > 0 || r.beat {
		g.delivered(1, d, r.beat)
	}
}

// count moves a socket that is behind on, or back.
func (g *group) count(k *Socket, events, bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k.cursor += hub.Cursor(events)
	k.events += uint64(events)
	k.bytes += uint64(bytes)
}
