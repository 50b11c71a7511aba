package ssefanout

import "time"

// Fetches of a topic have a rate. Clients that come back with an id each cost the
// origin no more than if they had asked it themselves, and that many a second it is
// asked: a full queue is emptied within the default timeout. Ids differ by few where
// clients lag by about the same, and fetches of equal ids are shared.
const (
	fetchRate  = maxQueued / 10 // a second
	fetchBurst = 50
)

// A fetch that comes to nothing was made for an id that the origin does not know: one
// that it has forgotten, or that was made up. It costs the address for which it was made
// one, and one more for each second in which it held a connection, up to a bound. One
// that the origin has refused has held none, and costs less. An address may have some
// of these at once, since there may be an office or a proxy behind it, whose clients all
// come back from an outage with ids that are forgotten, and then has to wait.
const (
	futileBurst = 20
	futileRate  = 1   // a second
	maxHeld     = 10  // seconds
	refusedCost = 0.2 // with 1, the 60 clients of a topic in the fault test were told of gaps that were none
)

// fetchRates bounds how often a topic's origin is asked, and how often in vain for one
// client address. It is guarded by catchups.mu.
type fetchRates struct {
	spent  debt            // fetches
	futile map[string]debt // by client address: the cost of what has come to nothing
	sweep  int             // how many addresses there may be before the idle ones are dropped
}

// A debt is what was spent, and is forgiven at a rate.
type debt struct {
	amount float64
	at     time.Time
}

func (d debt) now(rate float64, now time.Time) float64 {
	return max(0, d.amount-now.Sub(d.at).Seconds()*rate)
}

// wait returns how long it takes until there is room for one more below a bound.
func (d debt) wait(rate, bound float64, now time.Time) time.Duration {
	over := d.now(rate, now) + 1 - bound
	if over <= 0 {
		return 0
	}
	return time.Duration(over/rate*float64(time.Second)) + time.Millisecond
}

// fetched accounts for a fetch.
func (r *fetchRates) fetched(now time.Time) {
	r.spent = debt{r.spent.now(fetchRate, now) + 1, now}
}

// wait returns how long it takes until the origin may be asked again.
func (r *fetchRates) wait(now time.Time) time.Duration {
	return r.spent.wait(fetchRate, fetchBurst, now)
}

// waitFor returns how long it takes until it may be asked for an address.
func (r *fetchRates) waitFor(ip string, now time.Time) time.Duration {
	return r.futile[ip].wait(futileRate, futileBurst, now)
}

// hasFailed reports whether a fetch for an address has lately come to nothing.
func (r *fetchRates) hasFailed(ip string, now time.Time) bool {
	return r.futile[ip].now(futileRate, now) > 0
}

// failed accounts for the cost of a fetch for an address that has come to nothing. It is
// negative for one that was accounted for and has come to something after all.
func (r *fetchRates) failed(ip string, cost float64, now time.Time) {
	if r.futile == nil {
		r.futile = make(map[string]debt)
	}
	r.futile[ip] = debt{max(0, r.futile[ip].now(futileRate, now)+cost), now}
	if len(r.futile) < max(r.sweep, 100) {
		return
	}
	for other, d := range r.futile {
		if d.now(futileRate, now) == 0 {
			delete(r.futile, other)
		}
	}
	r.sweep = 2 * len(r.futile) // those left have failed within the last seconds: the rate bounds them
}

// holdsItsShare reports whether an address for which fetches have come to nothing has
// all the connections that it may have: if others wait, it leaves one to them. g.mu must
// be held.
func (g *catchups) holdsItsShare(ip string, now time.Time) bool {
	if g.turns.Len() == 1 || !g.rates.hasFailed(ip, now) {
		return false
	}
	held := 0
	for _, c := range g.running {
		if c.billed == ip && !c.resting {
			held++
		}
	}
	return held >= max(1, g.topic.pool.opts.Catchup.Connections-1)
}

// giveUpOverdue gives up what has waited for longer than a catch-up may take, because
// too many fetches for its addresses have come to nothing: a gap is better than no
// events. g.mu must be held.
func (g *catchups) giveUpOverdue(now time.Time, atLatest func(time.Duration)) {
	if len(g.rates.futile) == 0 {
		return
	}
	patience := time.Duration(g.topic.pool.opts.Catchup.Timeout)
	for ip := range g.rates.futile {
		q := g.queues[ip]
		if q == nil {
			continue
		}
		wait := g.rates.waitFor(ip, now)
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
			g.dequeue(c, ip)
			if c.queues == 0 {
				g.giveUp(c)
			}
		}
	}
}

// settle accounts for whether a catch-up that is over has come to something. g.mu must
// be held.
func (g *catchups) settle(c *catchup) {
	c.mu.Lock()
	served := c.spliced || c.events > 0 && goesOn(c.why)
	c.mu.Unlock()
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
