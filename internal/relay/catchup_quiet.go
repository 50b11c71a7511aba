package relay

import (
	"errors"
	"time"
)

// The log of a topic that has just been opened has no id yet that a catch-up could come
// to, and if the origin is quiet it gets none. Then a catch-up is parked: it gives its
// connection up, for which others wait. Its subscribers go on as if they had come back
// with the last id that they have got, and the origin is asked for what follows that
// once the topic has got an event. So they lose nothing, even if the origin was not
// quiet but slow, and all that have come to the same id are served at once.

// QuietTime is how long the origin must have sent nothing to be quiet.
const QuietTime = 2 * time.Second

// hasEndedForNow reports whether c is over, and is for nobody who asks for its id now.
func (c *catchup) hasEndedForNow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Is(c.why, errCatchupQuiet) || errors.Is(c.why, errCatchupYields)
}

// goesOn reports whether those who have all of a catch-up that is over ask for what
// follows.
func goesOn(why error) bool {
	return errors.Is(why, errCatchupQuiet) || errors.Is(why, errCatchupFull) || errors.Is(why, errCatchupYields)
}

// isAtEnd reports whether c has come to where another has found the origin quiet, and
// is to be parked, too. c.mu must be held.
func (c *catchup) isAtEnd() bool {
	end := c.group.end.Load()
	if end == nil || *end != c.lastID || c.id.ID == "" || !c.group.topic.isNowhere() {
		return false
	}
	_, c.quietOn = c.group.topic.connection()
	return true
}

// hasYielded reports whether the subscribers of c have had a turn before, and left it to
// others.
func (c *catchup) hasYielded() bool { return !c.past.yielded.IsZero() }

// A quiet origin is left alone for as long as this, and longer each time that it has
// had nothing.
const (
	shortestQuiet = 10 * time.Second
	longestQuiet  = 10 * time.Minute
)

// park makes a catch-up wait for the topic's next event before the origin is asked.
// g.mu must be held.
func (g *catchups) park(c *catchup) {
	if c.past.quietOn == 0 {
		return
	}
	g.anyParked.Store(true)
	if connected, connects := g.topic.connection(); connected && connects == c.past.quietOn && g.topic.isNowhere() {
		g.stageOn(c, stageParks)
		g.parked[c] = struct{}{}
	}
}

// resume makes a catch-up that was parked wait for its turn. g.mu must be held.
func (g *catchups) resume(c *catchup, now time.Time) {
	for ip := range c.askers {
		g.dequeue(c, ip)
	}
	delete(g.parked, c)
	g.stageOn(c, stageResumes)
	c.since, c.asked = now, now
	for ip := range c.askers {
		g.enqueue(c, ip)
	}
}

// resumeOverdue resumes those whose pause is over: the origin may have been slow, and
// not quiet. g.mu must be held.
func (g *catchups) resumeOverdue(now time.Time, atLatest func(time.Duration)) {
	for c := range g.parked {
		if left := c.past.pause - now.Sub(c.since); left > 0 {
			atLatest(left)
		} else {
			g.resume(c, now)
		}
	}
}

// here returns the id that a client has which has got all that is here. A quiet origin is
// left alone for longer each time that it had nothing.
func (c *catchup) here() (id Claim, was leg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was = leg{firstID: c.firstID, quietOn: c.quietOn}
	if errors.Is(c.why, errCatchupYields) {
		was.yielded = c.asked
	}
	switch {
	case c.quietOn == 0:
	case c.events == 0:
		was.pause = min(max(shortestQuiet, 2*c.past.pause), longestQuiet)
	default:
		was.pause = shortestQuiet
	}
	return Claim{c.lastID, c.id.Param}, was
}
