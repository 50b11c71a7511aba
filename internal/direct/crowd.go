package direct

import (
	"slices"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A crowd is the sockets of a group that are at one place, and get the same frames.
type crowd struct {
	group *group

	// Owned by shard.run.
	live []*Socket
	fds  []int32 // of live
	beat uint64  // heartbeats seen
	mark gzip.Mark

	oldest hub.Cursor // since which one of those that wait has had nothing but the log, before mark

	// Guarded by group.mu, and by Socket.Progress read by anybody. Only run writes them.
	cursor        hub.Cursor
	events, bytes uint64
}

// waits reports whether those in the crowd get stored blocks of gzip.
func (c *crowd) waits() bool { return c == c.group.waiting }

// round gives those in the crowd one parcel. It reports whether there may be more.
func (c *crowd) round() (more bool) {
	limit := everything
	if c.waits() {
		limit = c.admit()
	}
	if len(c.live) == 0 {
		c.skip()
		return false
	}
	s := c.group.shard
	next := c.look(limit)
	switch {
	case next.lagged:
		for len(c.live) > 0 {
			k := c.live[len(c.live)-1]
			s.farewell(k, Slow)
			s.serve(k)
		}
		c.skip()
	case len(next.bytes) > largeFrame:
		c.part(&next)
		return true
	case len(next.bytes) > 0:
		frame := s.frame(&next)
		c.advance(&next, next.delivery.Events, next.delivery.Bytes)
		if n := c.deliver(frame, next.delivery, next.isBeat); n > 0 {
			c.group.delivered(n, next.delivery, next.isBeat)
		}
		s.released()
		return true
	}
	return false
}

// admit lets those that wait get in step, if there is a restart point where they are. It
// returns where the next may be. A heartbeat comes first: the rendition may have it before the
// restart point.
func (c *crowd) admit() (limit hub.Cursor) {
	g := c.group
	if len(c.live) == 0 || g.log.Look(c.cursor).Beat != c.beat {
		return everything
	}
	limit, isDue := g.rendition.Await(c.since(), c.cursor)
	if !isDue {
		return limit
	}
	for _, k := range c.dropAll() {
		g.shard.serve(k)
	}
	if len(c.live) == 0 {
		return everything
	}
	limit, _ = g.rendition.Await(c.since(), c.cursor) // those who wait for another restart point
	return limit
}

// since returns the cursor since which some of those that wait have had nothing but the log.
func (c *crowd) since() hub.Cursor { return max(c.oldest, c.mark.Since()) }

// part sends a large parcel to each in the crowd by itself, and takes them back as they
// have got it.
func (c *crowd) part(p *parcel) {
	all := c.dropAll()
	c.advance(p, 0, 0)
	for _, k := range all {
		c.group.shard.serve(k)
	}
}

// dropAll lets each in the crowd be served by itself.
func (c *crowd) dropAll() []*Socket {
	all := slices.Clone(c.live)
	for _, k := range all {
		c.drop(k)
	}
	return all
}

// advance moves the crowd on.
func (c *crowd) advance(p *parcel, events, bytes int) {
	c.group.mu.Lock()
	c.cursor = p.next
	c.events += uint64(events)
	c.bytes += uint64(bytes)
	c.group.mu.Unlock()
	c.beat = p.beat
	if leg := p.delivery.leg; leg != nil {
		c.mark = leg.to
	}
}

// skip moves a crowd that has nobody in it to the head of the log.
func (c *crowd) skip() {
	g := c.group
	newest := g.log.Newest().Cursor
	switch {
	case c.waits():
		c.mark = c.mark.Jump(newest)
	case g.rendition != nil:
		c.mark = g.rendition.Newest()
		newest = c.mark.Cursor()
	}
	g.mu.Lock()
	c.cursor = newest
	g.mu.Unlock()
	c.beat = g.log.Look(newest).Beat
}

// deliver sends a frame to all in the crowd, and returns how many have taken all of
// it. Those that have not are served by themselves from now on.
func (c *crowd) deliver(frame []byte, d Delivery, beat bool) (taken int) {
	s := c.group.shard
	if cap(s.sent) < len(c.fds) {
		s.sent = make([]int32, 2*len(c.fds))
	}
	sent := s.sent[:len(c.fds)]
	s.network.SendAll(c.fds, frame, sent)
	held := false
	for i, n := range slices.Backward(sent) {
		switch n := int(n); {
		case n == len(frame):
			taken++
		case n < 0:
			s.remove(c.live[i], ClientGone)
		default:
			k := c.live[i]
			c.drop(k)
			c.group.count(k, -d.Events, -d.Bytes) // it has not got it yet
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

// drop takes a socket out of the crowd.
func (c *crowd) drop(k *Socket) {
	g := c.group
	last := len(c.live) - 1
	other := c.live[last]
	c.live[k.place], c.fds[k.place] = other, c.fds[last]
	g.mu.Lock()
	other.place = k.place
	k.place = behind
	k.cursor = c.cursor
	k.events += c.events
	k.bytes += c.bytes
	g.mu.Unlock()
	if k.gzip != nil {
		k.gzip.MoveTo(c.mark)
	}
	c.live[last] = nil
	c.live, c.fds = c.live[:last], c.fds[:last]
	g.behind[k] = struct{}{}
}

// meets reports whether a socket that is behind is where the crowd is.
func (c *crowd) meets(k *Socket) bool {
	if c.group.rendition != nil && !c.waits() {
		return k.gzip.Mark().Is(c.mark)
	}
	return k.cursor == c.cursor
}

// rejoin takes a socket back that has caught up.
func (c *crowd) rejoin(k *Socket) {
	g := c.group
	delete(g.behind, k)
	g.mu.Lock()
	k.place = int32(len(c.live))
	k.events -= c.events
	k.bytes -= c.bytes
	g.mu.Unlock()
	if c.waits() {
		if len(c.live) == 0 {
			c.oldest = everything
		}
		c.oldest = min(c.oldest, k.gzip.Since())
		k.gzip.Share(c.mark)
	}
	c.live = append(c.live, k)
	c.fds = append(c.fds, k.fd)
}
