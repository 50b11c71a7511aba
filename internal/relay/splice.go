package relay

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// continues reports whether the event with an id, behind which the topic's log has
// the position at, is the one that follows all that is here: then the origin has
// sent all that lies between. c.mu must be held.
func (c *catchup) continues(at hub.Cursor, id string) bool {
	t := c.group.topic
	before, known := t.log.At(at - 1)
	if c.id.ID == "" || known && before.ID == c.lastID {
		return true
	}
	from := max(c.floor, t.noticed())
	first, ok := t.log.At(from)
	if !ok {
		// The log has lost its beginning while the origin was silent, or was
		// away. That must have come by here, unless it is what came after the
		// log's end that is met (see jumped).
		_, passed := c.log.After(c.floorID)
		if at <= c.start.Cursor && c.floorID != "" && !passed && id != c.floorID {
			return false
		}
		first = t.log.Tail()
		from = first.Cursor
	}
	// Nor is anything missing that the log itself has not: what is before the
	// event, from the log's beginning or from a gap in it on, set no id.
	return at <= from+1 || known && first.ID == before.ID
}

// jumped reports whether the origin has passed over where the log ended when the
// catch-up began, to go on with what came later: it has ignored the id, and its
// next events came here sooner than to the log. at is behind an event that both
// have. c.mu must be held.
func (c *catchup) jumped(at hub.Cursor) bool {
	if c.id.ID == "" || c.firstID == "" || at <= c.start.Cursor {
		return false // a greeting, or nothing has come that has an id
	}
	if c.group.topic.refusedSince(c.start.Cursor) {
		return false // an origin that refuses an id ignores none
	}
	if next := c.successor.Load(); next != nil {
		return *next != c.firstID // it was a newer id, to which the log has come
	}
	passed := c.start.ID
	if next := c.next.Load(); passed == "" && next != nil {
		passed = *next // there was no event yet, or none since a gap
	}
	_, ok := c.log.After(passed)
	return !ok && passed != ""
}

// meet looks whether the topic's log has come to have what is here: the catch-up
// may run ahead of it. Then no more is taken from the origin, and the catch-up is
// spliced as soon as the log has the last event too.
func (c *catchup) meet() (met bool) {
	t := c.group.topic
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.lastID == "" {
		return c.over
	}
	if c.whole && t.noticed() > c.wholeAt {
		c.whole = false // there is a gap in the log, and it may never have the last event
	}
	at, ok := c.met()
	if !ok && c.events > 0 && !c.whole {
		newest := t.logEnd()
		if newest.ID == "" || newest.ID == c.id.ID {
			return false
		}
		if _, here := c.log.After(newest.ID); !here {
			return false
		}
		c.whole, c.wholeAt = true, newest.Cursor
		at, ok = c.met() // it may just have come
	}
	switch {
	case !ok:
		return false
	case c.jumped(at):
		c.finish(false, at, errCatchupIgnored)
	default:
		c.finish(true, at, nil)
	}
	return true
}

// met returns where in the topic's log the last id here is, or was: nothing more is
// taken from the origin if the catch-up is whole. c.mu must be held.
func (c *catchup) met() (hub.Cursor, bool) {
	if a := c.newest.Load(); c.whole && a != nil && a.id == c.lastID {
		if at := hub.Cursor(a.come.Load()); at > 0 {
			return at, true
		}
	}
	at, ok := c.group.topic.log.KeptAfter(c.lastID)
	return at.Cursor, ok
}

func (c *catchup) isWhole() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole
}
