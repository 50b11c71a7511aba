package direct

import (
	"math/rand/v2"
	"slices"
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
	log    *hub.Topic
	woken  atomic.Bool // it is in the shard's inbox
	stop   func()      // listening

	rendition *gzip.Rendition // nil: its clients get the log as it is

	size int // sockets, those behind included; guarded by shard.mu

	// Owned by shard.run.
	live   []*Socket
	fds    []int32 // of live
	behind map[*Socket]struct{}
	queued bool      // it is in shard.rounds
	beat   uint64    // heartbeats seen
	mark   gzip.Mark // of those in live, if they get gzip
	ending *Ending
	cutAt  time.Duration // of sockets that take nothing, if the stream ends

	mu sync.Mutex

	// Guarded by mu, and by Socket.Progress read by anybody. Only run writes them.
	cursor        hub.Cursor // of those in live
	events, bytes uint64
}

// join returns the group of a stream for a socket that arrives. s.mu must be held.
func (s *shard) join(h *Handover) *group {
	g := s.groups[h.Stream]
	if g == nil {
		g = &group{shard: s, stream: h.Stream, log: h.Log, cursor: h.Cursor, cutAt: never, behind: make(map[*Socket]struct{})}
		g.beat = h.Log.Look(h.Cursor).Beat
		if h.Gzip != nil {
			g.rendition, g.mark = h.Gzip.Rendition(), h.Gzip.Mark()
		}
		g.stop = h.Log.Listen(g.wake)
		s.groups[h.Stream] = g
	}
	g.size++
	return g
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
	for _, k := range g.live {
		g.end(k, &ending)
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

// round gives those in the group one parcel. It reports whether there may be more.
func (g *group) round() (more bool) {
	g.heed(g.stream.Ending())
	if len(g.live) == 0 {
		g.skip()
		return false
	}
	next := g.look(g.cursor, g.mark)
	switch {
	case next.lagged:
		for len(g.live) > 0 {
			k := g.live[len(g.live)-1]
			g.shard.farewell(k, Slow)
			g.shard.serve(k)
		}
		g.skip()
	case len(next.bytes) > largeFrame:
		g.part(&next)
		return true
	case len(next.bytes) > 0:
		frame := g.shard.frame(next.bytes)
		d := next.delivery
		g.advance(&next, d.Events, d.Bytes)
		if n := g.deliver(frame, d, next.isBeat); n > 0 {
			g.delivered(n, d, next.isBeat)
		}
		g.shard.released()
		return true
	case next.beat != g.beat:
		g.beat = next.beat
		if n := g.deliver(g.shard.frame(g.stream.Heartbeat()), Delivery{}, true); n > 0 {
			g.stream.Beaten(n)
		}
	}
	return false
}

// delivered counts what a number of clients have taken.
func (g *group) delivered(clients int, d Delivery, isBeat bool) {
	if isBeat {
		g.stream.Beaten(clients)
	} else {
		g.stream.Delivered(clients, d)
	}
}

// part sends a large parcel to each in the group by itself, and takes them back as they
// have got it.
func (g *group) part(p *parcel) {
	all := slices.Clone(g.live)
	for _, k := range all {
		g.drop(k)
	}
	g.advance(p, 0, 0)
	for _, k := range all {
		g.shard.serve(k)
	}
}

// advance moves the group on.
func (g *group) advance(p *parcel, events, bytes int) {
	g.mu.Lock()
	g.cursor = p.next
	g.events += uint64(events)
	g.bytes += uint64(bytes)
	g.mu.Unlock()
	g.beat = p.beat
	if leg := p.delivery.leg; leg != nil {
		g.mark = leg.to
	}
}

// skip moves a group that has nobody in it to the head of the log.
func (g *group) skip() {
	newest := g.log.Newest().Cursor
	if g.rendition != nil {
		g.mark = g.rendition.Newest()
		newest = g.mark.Cursor()
	}
	g.mu.Lock()
	g.cursor = newest
	g.mu.Unlock()
	g.beat = g.log.Look(newest).Beat
}

// deliver sends a frame to all in the group, and returns how many have taken all of
// it. Those that have not are served by themselves from now on.
func (g *group) deliver(frame []byte, d Delivery, beat bool) (taken int) {
	s := g.shard
	if cap(s.sent) < len(g.fds) {
		s.sent = make([]int32, 2*len(g.fds))
	}
	sent := s.sent[:len(g.fds)]
	s.network.SendAll(g.fds, frame, sent)
	held := false
	for i, n := range slices.Backward(sent) {
		switch n := int(n); {
		case n == len(frame):
			taken++
		case n < 0:
			s.remove(g.live[i], ClientGone)
		default:
			k := g.live[i]
			g.drop(k)
			g.count(k, -d.Events, -d.Bytes) // it has not got it yet
			if d.leg != nil {
				k.gzip.MoveTo(d.leg.from)
			}
			k.rest = &rest{bytes: frame[n:], delivery: d, beat: beat}
			s.patience(k)
			held = true
		}
	}
	if held {
		s.hold()
	}
	return taken
}

// drop takes a socket out of those in the group.
func (g *group) drop(k *Socket) {
	last := len(g.live) - 1
	other := g.live[last]
	g.live[k.place], g.fds[k.place] = other, g.fds[last]
	g.mu.Lock()
	other.place = k.place
	k.place = behind
	k.cursor = g.cursor
	k.events += g.events
	k.bytes += g.bytes
	g.mu.Unlock()
	if k.gzip != nil {
		k.gzip.MoveTo(g.mark)
	}
	g.live[last] = nil
	g.live, g.fds = g.live[:last], g.fds[:last]
	g.behind[k] = struct{}{}
}

// rejoin takes a socket back that has caught up.
func (g *group) rejoin(k *Socket) {
	delete(g.behind, k)
	g.mu.Lock()
	k.place = int32(len(g.live))
	k.events -= g.events
	k.bytes -= g.bytes
	g.mu.Unlock()
	g.live = append(g.live, k)
	g.fds = append(g.fds, k.fd)
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
