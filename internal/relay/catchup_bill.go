package relay

import "time"

// holdsItsShare reports whether an address for which fetches have come to nothing has
// all the connections that it may have: if others wait, it leaves one to them. g.mu must
// be held.
func (g *catchups) holdsItsShare(ip string, now time.Time) bool {
	if g.turns.Len() == 1 || !g.rates.hasFailed(ip, now) {
		return false
	}
	held := 0
	for _, c := range g.running {
		if c.billed == ip && !c.stage.is(stageResting) {
			held++
		}
	}
	return held >= max(1, g.topic.relay.cfg.Catchups-1)
}

// expelOverdue expels what has waited for longer than a catch-up may take, because
// too many fetches for its addresses have come to nothing: a gap is better than no
// events. g.mu must be held.
func (g *catchups) expelOverdue(now time.Time, atLatest func(time.Duration)) {
	patience := g.topic.relay.cfg.CatchupTimeout
	for turn := g.turns.Front(); turn != nil; {
		q := turn.Value.(*queue)
		turn = turn.Next() // before q loses its turn
		wait := g.rates.waitFor(q.ip, now)
		if wait == 0 {
			continue
		}
		atLatest(wait)
		for len(q.waiting) > 0 {
			c := q.waiting[0]
			if left := patience - now.Sub(c.since); left > 0 {
				atLatest(left)
				break
			}
			g.dequeue(c, q.ip)
			if c.queues == 0 {
				g.expel(c)
			}
		}
	}
}

// settle accounts for whether a catch-up that is over has come to something. g.mu must
// be held.
func (g *catchups) settle(c *catchup) {
	c.mu.Lock()
	served := c.progress.is(progressJoined) || c.events > 0 && goesOn(c.why)
	c.mu.Unlock()
	g.rates.all.add(c.billed, -1, time.Now())
	if served {
		g.refund(c)
	} else {
		g.bill(c, 1+min(time.Since(c.since).Seconds(), maxHeld))
	}
}

// bill charges a fetch that has come to nothing, once. g.mu must be held.
func (g *catchups) bill(c *catchup, cost float64) {
	if c.cost == 0 {
		c.cost = cost
		g.rates.failed(c.billed, cost, time.Now())
	}
}

// refund takes back what bill has charged. g.mu must be held.
func (g *catchups) refund(c *catchup) {
	if c.cost > 0 {
		g.rates.failed(c.billed, -c.cost, time.Now())
		c.cost = 0
	}
}
