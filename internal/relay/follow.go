package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// run keeps the topic connected until ctx ends or the topic is over.
func (f *follower) run(ctx context.Context) {
	f.since = time.Now()
	for ctx.Err() == nil {
		c := f.attempt(ctx, f.next)
		if ctx.Err() == nil && f.isToBlame(c) {
			// If the answer to this one is no stream either, the id was not to blame
			// and is tried again.
			f.suspectID = c.ID
			f.doubted = f.doubted || errors.Is(c.outcome.Err, errSilentToID)
			f.topic.disconnected(c.nth)
			c = f.attempt(ctx, f.nextWithout)
			f.suspectID = ""
		}
		if ctx.Err() != nil {
			break
		}
		delay, over := f.conclude(c)
		if over {
			return
		}
		f.sleep(ctx, delay)
	}
	reason := "no_subscribers"
	if e := f.topic.ending.Load(); e != nil {
		reason = string(e.Reason) // why there are none
	}
	f.closed(reason, 0, false)
}

// nextWithout is next without the id that is suspected. Once the topic has another one, it is asked
// for what follows that: the source may come again before the attempt is over.
func (f *follower) nextWithout() beginning {
	if b := f.next(); b.ID != f.suspectID {
		return b
	}
	return beginning{}
}

// MaxDenials is how often in a row the origin must have denied a stream to an id that it has
// given out before it is asked without one.
const MaxDenials = 3

// isToBlame reports whether the id that a connection was asked with seems to be why it has
// brought nothing: then the origin is asked without it. An id that a client has brought may
// be made up. One that the origin has given out is asked with again at first: of several
// instances behind a balancer, one may be starting, and its 404 says nothing about the id. To
// ask without the id makes all clients miss events, or get them twice.
func (f *follower) isToBlame(c *connection) bool {
	if errors.Is(c.outcome.Err, errSilentToID) {
		return true
	}
	if !c.deniesID() {
		f.denials = 0
		return false
	}
	f.denials++
	isBelieved := !f.noSince.IsZero() && time.Since(f.noSince) >= BeliefTime
	if !c.brought && !isBelieved && f.denials < MaxDenials {
		return false
	}
	f.denials = 0
	return true
}

// deniesID reports whether the origin has given another answer than an event stream to a
// request with an id. Only its answer to a request without one is a verdict.
func (c *connection) deniesID() bool {
	return c.ID != "" && !c.wasAccepted() && c.outcome.blamesID() && c.outcome.Verdict != Personal
}

// attempt makes connections until one ends that has something to say of the origin.
func (f *follower) attempt(ctx context.Context, next func() beginning) *connection {
	for {
		c := f.follow(ctx, f.open(ctx, next(), nil))
		if !c.outcome.Again || ctx.Err() != nil {
			return c
		}
		f.topic.disconnected(c.nth)
	}
}

// follow waits for a connection to end. When a reload has brought the topic a
// new route, the connection is replaced by one through it. One that was opened with a
// client's id ends if it brings nothing while others wait.
func (f *follower) follow(ctx context.Context, c *connection) *connection {
	for {
		var doubt <-chan time.Time
		if c.brought && !f.hasBegun.Load() {
			doubt = time.After(f.topic.relay.cfg.CatchupTimeout)
		}
		select {
		case <-c.ended:
			return c
		case <-f.rerouted:
			// Several clients may have asked for it, and the first was heard.
			if f.topic.source.Moved() {
				c = f.replace(ctx, c)
			}
		case <-doubt:
			if !f.hasBegun.Load() && f.topic.roster.hasBystanders() {
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
func (f *follower) replace(ctx context.Context, old *connection) *connection {
	c := f.open(ctx, f.next(), old)
	patience := time.NewTimer(f.topic.relay.cfg.Wait)
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
		if f.isLedElsewhere(c) {
			f.drain(&c.outcome)
			return old
		}
		if c.outcome.Verdict == Personal {
			old.stop(errRerouted)
			break // the topic ends
		}
		f.topic.relay.observer.Stayed(f.topic, &c.outcome)
		return old
	case <-old.ended:
	case <-patience.C:
		old.stop(errRerouted)
	}
	f.topic.disconnected(old.nth)
	return c
}

// conclude decides what the end of a connection means. Unless the topic is
// over, it returns how long to wait before the next one.
func (f *follower) conclude(c *connection) (delay time.Duration, over bool) {
	t, out := f.topic, &c.outcome
	closeDelay := t.relay.cfg.Spread
	t.disconnected(c.nth)
	if e := t.ending.Load(); e != nil {
		return f.over(*e, out.Status) // its subscribers are leaving
	}
	if f.isLedElsewhere(c) {
		return f.over(Ending{Reason: EndDrained, Over: closeDelay}, out.Status)
	}
	if errors.Is(out.Err, ErrClosing) {
		// The relay is over: who is still here finds the new configuration.
		return f.over(Ending{Reason: EndDrained, Over: closeDelay}, out.Status)
	}

	if c.deniesID() {
		f.noteNo(out)
	} else if f.obey(out) {
		return 0, true
	}
	if c.sieve.events > 0 || c.wasAccepted() && time.Since(c.accepted) >= proofTime {
		f.failures = 0
	}
	failures := f.failures
	if c.deniesID() {
		failures = f.denials - 1 // it is there, however long it was away before
	}
	delay = max(f.backoff(failures), f.pause(out), out.RetryAfter)
	if f.failures == 0 {
		f.troubled = time.Now()
	}
	f.failures++
	t.relay.stats.Reconnects.Add(1)
	f.lost(c, delay)
	return delay, false
}

// obey does what a verdict means, and reports whether the topic is over.
func (f *follower) obey(out *Outcome) (over bool) {
	t := f.topic
	switch v := out.Verdict; v {
	case Stream:
		f.noSince = time.Time{}
		f.endedCleanly = out.Err == nil
		if f.endedCleanly && t.relay.cfg.CloseOnEnd {
			_, over = f.over(Ending{Reason: EndUpstreamEnded, Drain: true}, out.Status)
		} else if over = f.endedCleanly && t.relay.closeUnused(t); over {
			f.closed(string(EndUpstreamEnded), out.Status, false)
		}
	case Unavailable:
		f.noSince = time.Time{}
		if over = out.FallsBack && t.refuse(out); over {
			f.closed(v.String(), out.Status, true)
		}
	case Personal:
		f.closed(string(EndPersonal), out.Status, !t.hasAdmitted())
		t.restrict(out)
		over = true
	default:
		over = f.obeyNo(out)
	}
	return over
}

// obeyNo is obey for an answer that is no event stream, and that asking again may not
// change.
func (f *follower) obeyNo(out *Outcome) (over bool) {
	t := f.topic
	if t.refuse(out) {
		f.closed(out.Verdict.String(), out.Status, true)
		return true
	}
	f.noteNo(out)
	switch {
	case out.Verdict == Gone:
		_, over = f.over(Ending{Reason: EndUpstreamGone}, out.Status)
	case time.Since(f.noSince) >= BeliefTime:
		_, over = f.over(Ending{Reason: EndRefused, Over: t.relay.cfg.Spread}, out.Status)
	}
	return over
}

// noteNo notes since when every answer has been a no.
func (f *follower) noteNo(out *Outcome) {
	switch {
	case out.Verdict == Unavailable:
		f.noSince = time.Time{}
	case f.noSince.IsZero():
		f.noSince = time.Now()
	}
}

// pause returns how long the origin has asked to be left alone. A stream that has ended as
// it should is asked for no sooner than an EventSource would.
func (f *follower) pause(out *Outcome) time.Duration {
	retry := time.Duration(f.retry.Load())
	if retry < 0 && out.Verdict == Stream && out.Err == nil {
		retry = DefaultRetry
	}
	return min(retry, LongestRetryAfter)
}

// isLedElsewhere reports whether the source does not lead any more where it led the
// clients of the topic.
func (f *follower) isLedElsewhere(c *connection) bool {
	return c.outcome.Elsewhere || c.outcome.Verdict == Elsewhere && f.topic.source.LeftBehind()
}

// drain makes the subscribers come back over time, to where they are led now. Their
// connection to the origin goes on for as long as they are here.
func (f *follower) drain(out *Outcome) {
	t := f.topic
	t.relay.observer.Drained(t, out)
	t.Conclude(Ending{Reason: EndDrained, Over: t.relay.cfg.Spread})
}

// over ends the topic, for it is not to be connected again.
func (f *follower) over(e Ending, status int) (time.Duration, bool) {
	f.closed(string(e.Reason), status, false)
	f.topic.Conclude(e)
	return 0, true
}

// backoff returns a random time between the minimum and a bound that doubles
// with each failure.
func (f *follower) backoff(failures int) time.Duration {
	low := f.topic.relay.cfg.ReconnectMin
	high := f.topic.relay.cfg.ReconnectMax
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
func (f *follower) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.rerouted:
	case <-ctx.Done():
	}
}

// lost records a connection that has ended, or could not be made.
func (f *follower) lost(c *connection, delay time.Duration) {
	now := time.Now()
	l := Lost{
		Outcome:  &c.outcome,
		Accepted: c.wasAccepted(),
		For:      now.Sub(f.since),
		Outage:   now.Sub(f.troubled),
		Attempts: f.failures,
		Delay:    delay,
		Events:   c.sieve.events,
	}
	if l.Accepted {
		f.since = now
	}
	f.condition.Store(&condition{
		since:     f.since,
		address:   c.outcome.Address,
		attempts:  f.failures,
		next:      now.Add(delay),
		lastError: c.outcome.Explain(),
		failed:    now,
	})
	f.topic.relay.observer.Lost(f.topic, l)
}

// closed records that no further connection will be made.
func (f *follower) closed(reason string, status int, quiet bool) {
	f.topic.relay.observer.Closed(f.topic, Closed{
		Reason:  reason,
		Address: f.condition.Load().address,
		Status:  status,
		For:     time.Since(f.since),
		Quiet:   quiet,
	})
}
