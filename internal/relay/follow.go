package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// run keeps the topic connected until ctx ends or the topic is over.
func (u *upstream) run(ctx context.Context) {
	u.since = time.Now()
	for ctx.Err() == nil {
		c := u.attempt(ctx, u.next)
		if ctx.Err() == nil && u.isToBlame(c) {
			// If the answer to this one is no stream either, the id was not to blame
			// and is tried again.
			u.suspectID = c.ID
			u.doubted = u.doubted || errors.Is(c.outcome.Err, errSilentToID)
			u.topic.disconnected(c.nth)
			c = u.attempt(ctx, func() beginning { return beginning{} })
			u.suspectID = ""
		}
		if ctx.Err() != nil {
			break
		}
		delay, over := u.conclude(c)
		if over {
			return
		}
		u.sleep(ctx, delay)
	}
	reason := "no_subscribers"
	if e := u.topic.ending.Load(); e != nil {
		reason = string(e.Reason) // why there are none
	}
	u.closed(reason, 0, false)
}

// maxDenials is how often in a row the origin must have denied a stream to an id that it has
// given out before it is asked without one.
const maxDenials = 3

// isToBlame reports whether the id that a connection was asked with seems to be why it has
// brought nothing: then the origin is asked without it. An id that a client has brought may
// be made up. One that the origin has given out is asked with again at first: of several
// instances behind a balancer, one may be starting, and its 404 says nothing about the id. To
// ask without the id makes all clients miss events, or get them twice.
func (u *upstream) isToBlame(c *connection) bool {
	if errors.Is(c.outcome.Err, errSilentToID) {
		return true
	}
	if !c.deniesID() {
		u.denials = 0
		return false
	}
	u.denials++
	isBelieved := !u.noSince.IsZero() && time.Since(u.noSince) >= BeliefTime
	if !c.brought && !isBelieved && u.denials < maxDenials {
		return false
	}
	u.denials = 0
	return true
}

// deniesID reports whether the origin has given another answer than an event stream to a
// request with an id. Only its answer to a request without one is a verdict.
func (c *connection) deniesID() bool {
	return c.ID != "" && !c.wasAccepted() && c.outcome.blamesID() && c.outcome.Verdict != Personal
}

// attempt makes connections until one ends that has something to say of the origin.
func (u *upstream) attempt(ctx context.Context, next func() beginning) *connection {
	for {
		c := u.follow(ctx, u.open(ctx, next(), nil))
		if !c.outcome.Again || ctx.Err() != nil {
			return c
		}
		u.topic.disconnected(c.nth)
	}
}

// follow waits for a connection to end. When a reload has brought the topic a
// new route, the connection is replaced by one through it. One that was opened with a
// client's id ends if it brings nothing while others wait.
func (u *upstream) follow(ctx context.Context, c *connection) *connection {
	for {
		var doubt <-chan time.Time
		if c.brought && !u.hasBegun.Load() {
			doubt = time.After(u.topic.relay.cfg.CatchupTimeout)
		}
		select {
		case <-c.ended:
			return c
		case <-u.rerouted:
			// Several clients may have asked for it, and the first was heard.
			if u.topic.source.Moved() {
				c = u.replace(ctx, c)
			}
		case <-doubt:
			if !u.hasBegun.Load() && u.topic.roster.hasBystanders() {
				c.cancel(errSilentToID)
			}
		}
	}
}

// replace makes a new connection before it breaks the old one, and returns the
// one that is to be followed. An origin with a single worker cannot serve both:
// after a while the old one is broken first. If the new one fails, the old one
// stays. It stays for those who are being drained, too, when the new configuration
// does not lead the stranger where it leads them.
func (u *upstream) replace(ctx context.Context, old *connection) *connection {
	c := u.open(ctx, u.next(), old)
	patience := time.NewTimer(u.topic.relay.cfg.Wait)
	defer patience.Stop()
	select {
	case <-c.established:
		// It has closed the old one itself, to begin where that one ends.
		<-old.ended
		return c
	case <-c.ended:
		if c.wasEstablished() {
			return c
		}
		if u.isLedElsewhere(c) {
			u.drain(&c.outcome)
			return old
		}
		if c.outcome.Verdict == Personal {
			old.stop(errRerouted)
			break // the topic ends
		}
		u.topic.relay.observer.Stayed(u.topic, &c.outcome)
		return old
	case <-old.ended:
	case <-patience.C:
		old.stop(errRerouted)
	}
	u.topic.disconnected(old.nth)
	return c
}

// conclude decides what the end of a connection means. Unless the topic is
// over, it returns how long to wait before the next one.
func (u *upstream) conclude(c *connection) (delay time.Duration, over bool) {
	t, out := u.topic, &c.outcome
	closeDelay := t.relay.cfg.Spread
	t.disconnected(c.nth)
	if e := t.ending.Load(); e != nil {
		return u.over(*e, out.Status) // its subscribers are leaving
	}
	if u.isLedElsewhere(c) {
		return u.over(Ending{Reason: EndDrained, Over: closeDelay}, out.Status)
	}
	if errors.Is(out.Err, ErrClosing) {
		// The relay is over: who is still here finds the new configuration.
		return u.over(Ending{Reason: EndDrained, Over: closeDelay}, out.Status)
	}

	if c.deniesID() {
		u.noteNo(out)
	} else if u.obey(out) {
		return 0, true
	}
	if c.sieve.events > 0 || c.wasAccepted() && time.Since(c.accepted) >= proofTime {
		u.failures = 0
	}
	failures := u.failures
	if c.deniesID() {
		failures = u.denials - 1 // it is there, however long it was away before
	}
	delay = max(u.backoff(failures), u.pause(out), out.RetryAfter)
	if u.failures == 0 {
		u.troubled = time.Now()
	}
	u.failures++
	t.relay.stats.Reconnects.Add(1)
	u.lost(c, delay)
	return delay, false
}

// obey does what a verdict means, and reports whether the topic is over.
func (u *upstream) obey(out *Outcome) (over bool) {
	t := u.topic
	switch v := out.Verdict; v {
	case Stream:
		u.noSince = time.Time{}
		u.endedCleanly = out.Err == nil
		if u.endedCleanly && t.relay.cfg.CloseOnEnd {
			_, over = u.over(Ending{Reason: EndUpstreamEnded, Drain: true}, out.Status)
		} else if over = u.endedCleanly && t.relay.closeUnused(t); over {
			u.closed(string(EndUpstreamEnded), out.Status, false)
		}
	case Unavailable:
		u.noSince = time.Time{}
		if over = out.FallsBack && t.refuse(out); over {
			u.closed(v.String(), out.Status, true)
		}
	case Personal:
		u.closed(string(EndPersonal), out.Status, !t.hasAdmitted())
		t.restrict(out)
		over = true
	default:
		over = u.obeyNo(out)
	}
	return over
}

// obeyNo is obey for an answer that is no event stream, and that asking again may not
// change.
func (u *upstream) obeyNo(out *Outcome) (over bool) {
	t := u.topic
	if t.refuse(out) {
		u.closed(out.Verdict.String(), out.Status, true)
		return true
	}
	u.noteNo(out)
	switch {
	case out.Verdict == Gone:
		_, over = u.over(Ending{Reason: EndUpstreamGone}, out.Status)
	case time.Since(u.noSince) >= BeliefTime:
		_, over = u.over(Ending{Reason: EndRefused, Over: t.relay.cfg.Spread}, out.Status)
	}
	return over
}

// noteNo notes since when every answer has been a no.
func (u *upstream) noteNo(out *Outcome) {
	switch {
	case out.Verdict == Unavailable:
		u.noSince = time.Time{}
	case u.noSince.IsZero():
		u.noSince = time.Now()
	}
}

// pause returns how long the origin has asked to be left alone. A stream that has ended as
// it should is asked for no sooner than an EventSource would.
func (u *upstream) pause(out *Outcome) time.Duration {
	retry := time.Duration(u.retry.Load())
	if retry < 0 && out.Verdict == Stream && out.Err == nil {
		retry = DefaultRetry
	}
	return min(retry, LongestRetryAfter)
}

// isLedElsewhere reports whether the source does not lead any more where it led the
// clients of the topic.
func (u *upstream) isLedElsewhere(c *connection) bool {
	return c.outcome.Elsewhere || c.outcome.Verdict == Elsewhere && u.topic.source.LeftBehind()
}

// drain makes the subscribers come back over time, to where they are led now. Their
// connection to the origin goes on for as long as they are here.
func (u *upstream) drain(out *Outcome) {
	t := u.topic
	t.relay.observer.Drained(t, out)
	t.Conclude(Ending{Reason: EndDrained, Over: t.relay.cfg.Spread})
}

// over ends the topic, for it is not to be connected again.
func (u *upstream) over(e Ending, status int) (time.Duration, bool) {
	u.closed(string(e.Reason), status, false)
	u.topic.Conclude(e)
	return 0, true
}

// backoff returns a random time between the minimum and a bound that doubles
// with each failure.
func (u *upstream) backoff(failures int) time.Duration {
	low := u.topic.relay.cfg.ReconnectMin
	high := u.topic.relay.cfg.ReconnectMax
	bound := low
	for range failures + 1 {
		if bound = 2 * bound; bound >= high {
			bound = high
			break
		}
	}
	if bound <= low {
		return low
	}
	return low + rand.N(bound-low)
}

// sleep waits before the next connection. A new route is tried at once.
func (u *upstream) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-u.rerouted:
	case <-ctx.Done():
	}
}

// lost records a connection that has ended, or could not be made.
func (u *upstream) lost(c *connection, delay time.Duration) {
	now := time.Now()
	l := Lost{
		Outcome:  &c.outcome,
		Accepted: c.wasAccepted(),
		For:      now.Sub(u.since),
		Outage:   now.Sub(u.troubled),
		Attempts: u.failures,
		Delay:    delay,
		Events:   c.sieve.events,
	}
	if l.Accepted {
		u.since = now
	}
	u.condition.Store(&condition{
		since:     u.since,
		address:   c.outcome.Address,
		attempts:  u.failures,
		next:      now.Add(delay),
		lastError: c.outcome.Explain(),
		failed:    now,
	})
	u.topic.relay.observer.Lost(u.topic, l)
}

// closed records that no further connection will be made.
func (u *upstream) closed(reason string, status int, quiet bool) {
	u.topic.relay.observer.Closed(u.topic, Closed{
		Reason:  reason,
		Address: u.condition.Load().address,
		Status:  status,
		For:     time.Since(u.since),
		Quiet:   quiet,
	})
}
