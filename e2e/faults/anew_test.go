package faults

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// patience is how many events a connection that begins anew may have brought when its pace
// tells, a second after the first.
const patience = 12

// A lead is what came before an event in a topic that begins anew. Its events are
// the same each time, and only what came before one tells of which run it is.
type lead struct {
	reopened bool          // the client has another connection, on which no event has come yet
	begun    bool          // so has the origin: a connection of its own
	start    origins.Start // of that
}

// opened is called when the client has a connection.
func (c *checker) opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead = lead{reopened: true}
}

// reconnection takes a reconnection time, with which the origin tells how its connection
// begins.
func (c *checker) reconnection(retry time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if start, ok := origins.StartOf(retry); ok {
		c.lead.begun, c.lead.start = true, start
	}
}

// counted takes event n of a topic that begins anew. c.mu must be held.
func (c *checker) counted(n int) {
	was, last, told, started := c.lead, c.last, c.told, c.started
	c.lead, c.last, c.told, c.started = lead{}, n, false, true
	c.progress++
	if !started {
		return
	}
	follows := n > last && between(last, n) == 0
	first := between(0, n) == 0
	if first && !follows {
		c.startOvers++
	}
	switch {
	case told:
		// Whoever brings an id of several runs gets what follows the oldest.
		c.gaps++
	case was.begun && was.start == origins.StartsFirst && follows && !first:
		// As if the origin had gone on where it was: for a second, nobody can tell.
		if last > patience {
			c.lost += between(0, n)
			c.note("%d comes after %d, though the origin has begun anew with 1", n, last)
			return
		}
		c.taken++
	case was.begun && was.start == origins.StartsBacklog && follows && !first:
		c.taken++
	case follows:
	case first && was.begun && (was.start == origins.StartsFirst || was.start == origins.StartsBacklog):
	case first && !was.begun && was.reopened:
	case n > last:
		c.lost += between(last, n)
		c.note("%d comes after %d (%+v)", n, last, was)
	case was.begun && was.start != origins.StartsBehind:
		c.lost += between(0, n)
		c.note("%d comes after %d, of a run that is new (%+v)", n, last, was)
	default:
		c.repeated++
		c.note("%d comes again after %d (%+v)", n, last, was)
	}
}
