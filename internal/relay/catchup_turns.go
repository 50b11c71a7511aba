package relay

import (
	"slices"
)

// enqueue puts a catch-up into the queue of an address. g.mu must be held.
func (g *catchups) enqueue(c *catchup, ip string) {
	q := g.queues[ip]
	if q == nil {
		q = &queue{ip: ip}
		g.queues[ip] = q
		g.asking.Add(1)
	}
	c.queues++
	if c.stage.is(stageParked) {
		q.parked = append(q.parked, c)
		return
	}
	q.waiting = append(q.waiting, c)
	if q.turn == nil {
		q.turn = g.turns.PushBack(q)
	}
}

// dequeue takes a catch-up out of the queue of an address. g.mu must be held.
func (g *catchups) dequeue(c *catchup, ip string) {
	q := g.queues[ip]
	if q == nil {
		return
	}
	from := &q.waiting
	if c.stage.is(stageParked) {
		from = &q.parked
	}
	i := slices.Index(*from, c)
	if i < 0 {
		return
	}
	*from = slices.Delete(*from, i, i+1)
	c.queues--
	if len(q.waiting) == 0 && q.turn != nil {
		g.turns.Remove(q.turn)
		q.turn = nil
	}
	if q.len() == 0 {
		delete(g.queues, ip)
		g.asking.Add(-1)
	}
}

// shortenLongest expels the last catch-up that waits for the address with the most, if
// those are more than wait for address: nobody can fill the queue for all. Whoever
// waits for it is told at the next event or heartbeat. One that others ask for as well
// stays with them. g.mu must be held.
func (g *catchups) shortenLongest(address string) bool {
	for {
		var most *queue
		for _, q := range g.queues {
			if most == nil || q.len() > most.len() {
				most = q
			}
		}
		own := 0
		if q := g.queues[address]; q != nil {
			own = q.len()
		}
		if most == nil || most.len()-1 <= own {
			return false
		}
		c := most.last()
		g.dequeue(c, most.ip)
		if c.queues == 0 {
			g.expel(c)
			return true
		}
	}
}

// expel ends a catch-up that waits. g.mu must be held.
func (g *catchups) expel(c *catchup) {
	g.unqueue(c)
	g.forget(c)
	g.stageOn(c, stageEnds)
	c.fail(errCatchupQueue)
}

// unqueue takes a catch-up from among those that wait. g.mu must be held.
func (g *catchups) unqueue(c *catchup) {
	for ip := range c.askers {
		g.dequeue(c, ip)
	}
	delete(g.parked, c)
}

// forget makes the next who asks for the id of c start anew. g.mu must be held.
func (g *catchups) forget(c *catchup) {
	if g.byID[c.id] == c {
		delete(g.byID, c.id)
		g.any.Store(len(g.byID) > 0)
	}
}
