package relay

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// join makes s part of the catch-up for an id, which is started when its turn comes. It
// returns nil if there can be none. If the origin was quiet behind the catch-up that this
// one continues, it is parked.
func (g *catchups) join(s *Reader, id Claim) *catchup {
	g.mu.Lock()
	defer g.mu.Unlock()
	address := s.address
	if g.topic.relay.cfg.Catchups < 0 || g.closed {
		return nil
	}
	c := g.byID[id]
	if c != nil && c.hasEndedForNow() {
		g.forget(c) // its connection may be on its way out
		c = nil
	}
	if c == nil {
		if g.queued.Load() >= MaxQueued && !g.shortenLongest(address) {
			return nil
		}
		c = g.add(id)
		if c.past = s.leg; c.hasYielded() {
			c.asked = c.past.yielded
		}
		g.park(c)
	}
	c.subscribers[s] = struct{}{}
	if c.stage.now().isQueued() {
		if c.askers[address]++; c.askers[address] == 1 {
			g.enqueue(c, address)
		}
	}
	g.startNext()
	return c
}

// add makes a catch-up that is to wait for its turn. g.mu must be held.
func (g *catchups) add(id Claim) *catchup {
	cfg := &g.topic.relay.cfg
	c := &catchup{
		group: g,
		id:    id,
		// It ends when it has a log's worth and one event. With twice as much room, none
		// of its readers falls behind until then. An event has a byte at least.
		log: hub.NewAfter(id.ID, hub.Limits{
			Events: cfg.History.Bytes,
			Bytes:  int(min(2*(int64(cfg.History.Bytes)+cfg.MaxEventSize), math.MaxInt)),
			Age:    24 * time.Hour,
		}),
		lastID:      id.ID,
		subscribers: make(map[*Reader]struct{}),
		askers:      make(map[string]int),
		since:       time.Now(),
		asked:       time.Now(),
		finished:    make(chan struct{}),
		begun:       make(chan struct{}),
	}
	g.byID[id] = c
	g.any.Store(true)
	g.queued.Add(1)
	return c
}

// leave takes a subscriber off a catch-up. One that nobody waits for is given up.
func (c *catchup) leave(s *Reader) {
	g, address := c.group, s.address
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(c.subscribers, s)
	is := c.stage.now()
	if c.askers[address]--; c.askers[address] <= 0 {
		if is.isQueued() {
			g.dequeue(c, address)
		}
		delete(c.askers, address)
	}
	if len(c.subscribers) > 0 {
		return
	}
	g.forget(c) // it may take a while to end, which nobody can join any more
	switch {
	case is.isQueued():
		g.unqueue(c)
		g.stageOn(c, stageEnds)
	case is.isStarted():
		c.cancel()
	default:
		g.topic.relay.backlogs.release(c)
	}
}

// hasQueuedFor reports whether c has waited for its turn for as long as that, as others
// have the connections.
func (c *catchup) hasQueuedFor(d time.Duration) bool {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	return c.stage.is(stageWaiting) && time.Since(c.asked) > d
}

// startNext starts catch-ups as long as there is room. g.mu must be held.
func (g *catchups) startNext() {
	if g.closed || !g.topic.IsConnected() {
		return
	}
	now := time.Now()
	var later time.Duration // until it is worth looking again, if nothing happens before
	atLatest := func(d time.Duration) {
		if later == 0 || d < later {
			later = d
		}
	}
	if g.anyParked.Load() {
		g.resumeOverdue(now, atLatest)
	}
	// Addresses without a recent futile fetch come first.
	for _, failed := range []bool{false, true} {
		for passed := 0; passed < g.turns.Len() && g.hasRoom(); passed++ {
			if wait := g.rates.wait(now); wait > 0 {
				atLatest(wait)
				break
			}
			q := g.turns.Front().Value.(*queue)
			g.turns.MoveToBack(q.turn)
			if g.rates.hasFailed(q.ip, now) != failed || g.rates.waitFor(q.ip, now) > 0 || g.holdsItsShare(q.ip, now) {
				continue
			}
			passed = -1
			g.start(q.waiting[0], q.ip, now)
		}
	}
	g.expelOverdue(now, atLatest)
	g.wakeIn(later)
}

// start starts a catch-up in the turn of an address. g.mu must be held.
func (g *catchups) start(c *catchup, ip string, now time.Time) {
	g.unqueue(c)
	g.stageOn(c, stageStarts)
	g.rates.fetched(now)
	c.billed, c.since = ip, now
	g.rates.all.add(ip, +1, now) // until it is known what has become of it (see settle)
	g.running = append(g.running, c)
	ctx, cancel := context.WithCancel(g.topic.ctx)
	c.cancel = cancel
	g.topic.helpers.Go(func() {
		defer cancel()
		c.run(ctx)
		g.topic.relay.dropBacklogs(g.finished(c))
	})
}

// finished settles a catch-up that is over. It returns those whose logs are to be dropped.
func (g *catchups) finished(c *catchup) (drop []*catchup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settle(c)
	g.stageOn(c, stageEnds)
	g.running = slices.DeleteFunc(g.running, func(other *catchup) bool { return other == c })
	g.forget(c)
	if len(c.subscribers) > 0 {
		drop = g.topic.relay.backlogs.keep(c)
	}
	g.startNext()
	return drop
}

// mustYield reports whether c, for which the origin has sent nothing yet, leaves its place
// to a client of another address that waits: an id for which there is nothing must not hold
// one for long. In its second turn, it yields only to one that has had no turn yet, and whose
// address has had no futile fetch lately.
func (c *catchup) mustYield() bool {
	g, now := c.group, time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.id.ID == "" {
		return false
	}
	for turn := g.turns.Front(); turn != nil; turn = turn.Next() {
		q := turn.Value.(*queue)
		if q.ip != c.billed && (!c.hasYielded() || !q.waiting[0].hasYielded() && !g.rates.hasFailed(q.ip, now)) {
			return true
		}
	}
	return false
}

// hasRoom reports whether there can be one more connection. g.mu must be held.
func (g *catchups) hasRoom() bool {
	// Sources that have not noticed that they are not listened to count as soon as they
	// are many: FastCGI notices at its next byte, and until then others would wait.
	limit := g.topic.relay.cfg.Catchups
	connections := max(0, g.topic.source.Abandoned()-2*limit)
	for _, c := range g.running {
		if !c.stage.is(stageResting) {
			connections++
		}
	}
	return connections < limit
}

// rest leaves the place of c to others, until it is known what its refusal means:
// many clients with ids that the origin has forgotten must not wait for each other.
func (c *catchup) rest() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stageOn(c, stageRests)
	g.bill(c, refusedCost) // or many could be refused before the first is over
	g.startNext()
}

// askersHaveFailed reports whether other fetches for the address of c have lately come to
// nothing here.
func (c *catchup) askersHaveFailed() bool {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rates.hasFailed(c.billed, time.Now())
}

// proceed reports whether c may have another connection.
func (c *catchup) proceed() bool {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.stage.is(stageResting) {
		if !g.hasRoom() {
			return false
		}
		g.stageOn(c, stageProceeds)
	}
	g.refund(c)
	g.rates.fetched(time.Now())
	return true
}

// close gives up all catch-ups and takes no more.
func (g *catchups) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.alarm != nil {
		g.alarm.Stop()
	}
	for _, c := range g.byID {
		if c.stage.now().isStarted() {
			c.cancel()
		}
	}
}

// closing reports whether there can be no more because the topic ends.
func (g *catchups) closing() bool {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed || g.topic.ending.Load() != nil {
		return true
	}
	return g.topic.relay.IsOver()
}

// wakeIn makes startNext look again after some time. g.mu must be held.
func (g *catchups) wakeIn(d time.Duration) {
	switch {
	case d == 0:
	case g.alarm == nil:
		g.alarm = time.AfterFunc(d, g.wake)
	default:
		g.alarm.Reset(d)
	}
}

// wake starts what has waited for the topic to be connected, or for its time.
func (g *catchups) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.startNext()
}

// dropBacklogs ends those who still read catch-ups: they come back with the id that they
// have come to. A write that waits has an event, which may be large: it is cut. No lock may
// be held.
func (r *Relay) dropBacklogs(drop []*catchup) {
	for _, c := range drop {
		c.log.Drop()
		for _, s := range c.readers() {
			s.carrier.Cut()
		}
	}
	if len(drop) > 0 {
		r.observer.Dropped(uint64(len(drop)), r.backlogs.bound)
	}
}

// readers returns the subscribers, who read the log or are about to.
func (c *catchup) readers() (all []*Reader) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	for s := range c.subscribers {
		all = append(all, s)
	}
	return all
}

// unpark starts what was parked. came says that the topic's log has got an event: what
// was parked is then not found quiet again before it has got one.
func (g *catchups) unpark(came bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.anyParked.Store(false)
	g.end.Store(nil)
	now := time.Now()
	for c := range g.parked {
		c.tried = came
		g.resume(c, now)
	}
	g.startNext()
}
