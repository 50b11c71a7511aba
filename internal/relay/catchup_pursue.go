package relay

import (
	"context"
	"errors"
	"time"
)

// SecondThought is how long a catch-up waits, when its connection has ended,
// before it decides what that means: if the shared connection turns out to be
// lost too, it was the origin and not the id.
const SecondThought = 250 * time.Millisecond

// resumable reports whether another fetch can go on where this log ends. A
// greeting that has begun cannot be pieced together.
func (c *catchup) resumable() bool {
	c.mu.Lock()
	lastID, events := c.lastID, c.events
	c.mu.Unlock()
	if c.id.ID == "" {
		return events == 0
	}
	return c.group.topic.askableID(lastID) != ""
}

// run fetches events until the catch-up meets the log, or must be given up. What
// takes the shared connection away is not held against it: it goes on when that
// is back.
func (c *catchup) run(ctx context.Context) {
	t := c.group.topic
	started := time.Now()
	t.log.Wake() // those who have waited read c.log from now on

	c.mu.Lock()
	c.floor, c.start = t.log.Tail().Cursor, t.logEnd()
	if behind, ok := t.log.At(c.floor + 1); ok {
		c.floorID = behind.ID
	}
	if at := t.noticed(); at > 0 && at >= c.floor {
		c.floor, c.floorID = at, t.log.FirstID(at)
	}
	c.mu.Unlock()
	if c.meet() {
		return // while it was waiting, the log has come past its id
	}

	t.relay.stats.Catchups.Add(1)
	c.pursue(ctx)
	t.relay.observer.CaughtUp(t, CaughtUp{
		LastEventID: c.id.ID,
		Events:      c.events,
		Resumed:     c.progress.is(progressJoined),
		Reason:      c.why,
		Took:        time.Since(started),
		Missing:     c.met.missing,
		Jumping:     c.met.jumping,
	})
}

// A pursuit is a catch-up that makes one fetch after another until it is over.
type pursuit struct {
	*catchup
	fetched *fetch
	ended   <-chan struct{} // closed when the fetch has ended; nil once that was seen
	waited  <-chan struct{} // closed when an event has begun the catch-up; nil from then on
	beat    uint64
	wake    <-chan struct{}

	silent  *time.Timer   // no event has come in time
	slow    *time.Timer   // it has not met the log in time
	quiet   *time.Timer   // it is to be looked whether the origin has no more
	thought *time.Timer   // it is known what the end of a fetch means
	calm    time.Duration // how long the origin must be silent for that
	denied  bool          // the origin has refused the id once
	delay   time.Duration // before the next thought
}

// pursue makes one fetch after another until the catch-up is over.
func (c *catchup) pursue(ctx context.Context) {
	timeout := c.group.topic.relay.cfg.CatchupTimeout
	p := &pursuit{
		catchup: c,
		waited:  c.begun,
		beat:    c.group.topic.log.Look(0).Beat,
		calm:    min(QuietTime, timeout/2),
		silent:  time.NewTimer(timeout),
		slow:    time.NewTimer(SpliceTimeouts * timeout),
		thought: time.NewTimer(time.Hour),
		delay:   SecondThought,
	}
	p.quiet = time.NewTimer(p.calm)
	p.ask(ctx)
	defer func() {
		p.fetched.stop(nil)
		for _, timer := range []*time.Timer{p.silent, p.slow, p.quiet, p.thought} {
			timer.Stop()
		}
	}()
	for {
		p.look(ctx)
		if over := p.wait(ctx); over {
			return
		}
	}
}

// ask begins a fetch.
func (p *pursuit) ask(ctx context.Context) {
	p.fetched = p.fetch(ctx)
	p.ended = p.fetched.ended
}

// look does what the topic has come to meanwhile: its log may have what is here, it may
// have had a heartbeat, or another shared connection.
func (p *pursuit) look(ctx context.Context) {
	t, timeout := p.group.topic, p.group.topic.relay.cfg.CatchupTimeout
	var beat uint64
	p.wake, beat = t.log.Watch(p.wake)
	p.meet()
	if beat != p.beat {
		p.beat = beat
		p.log.Beat()
	} else {
		p.log.Wake() // a subscriber may have to end
	}
	connected, connects := t.connection()
	switch {
	case !connected || connects == p.fetched.connects || !p.resumable() || p.progress.is(progressWhole):
	case !p.proceed():
		p.thought.Reset(SecondThought)
	default:
		p.fetched.stop(nil)
		p.thought.Stop()
		p.ask(ctx)
		p.delay = SecondThought
		p.quiet.Reset(p.calm)
		if p.waited != nil {
			p.silent.Reset(timeout)
		}
		p.slow.Reset(SpliceTimeouts * timeout)
	}
}

// wait waits for what happens next, and does what that means. It reports whether the
// catch-up is over.
func (p *pursuit) wait(ctx context.Context) (over bool) {
	t := p.group.topic
	select {
	case <-p.finished:
		return true
	case <-p.waited:
		p.silent.Stop()
		p.waited = nil
	case <-p.wake:
	case <-p.ended:
		p.ended = nil
		if errors.Is(p.fetched.outcome.Err, ErrClosing) {
			p.fail(ErrClosing)
		}
		if p.fetched.outcome.blamesID() {
			p.rest()
		}
		p.thought.Reset(p.delay)
		p.delay = min(2*p.delay, t.relay.cfg.ReconnectMax)
	case <-p.thought.C:
		if p.ended == nil && p.isToGoOn() {
			p.ask(ctx)
		}
	case <-p.quiet.C:
		switch {
		case p.isQuiet(p.calm):
			p.endQuiet()
		case p.waited != nil && p.fetched.hasBroughtNothing(p.calm) && p.mustYield():
			p.fail(errCatchupYields)
		case p.waited != nil || t.isNowhere():
			p.quiet.Reset(p.calm / 4)
		}
	case <-p.silent.C:
		p.endSilent()
	case <-p.slow.C:
		if !p.disrupted() {
			p.fail(errCatchupSlow)
		}
	case <-ctx.Done():
		p.fail(ErrClosing) // or nobody is left to be told
	}
	return false
}

// isToGoOn decides what the end of a fetch means, and reports whether there is to be
// another.
func (p *pursuit) isToGoOn() bool {
	switch {
	case p.progress.is(progressWhole), p.disrupted():
	case p.fetched.outcome.blamesID():
		// An instance behind a balancer may be starting, and another one know the id. Those
		// who wait for the place are not to wait for that, and who brings many bad ids is
		// not believed.
		if !p.denied && p.fetched.outcome.Verdict != Personal && !p.askersHaveFailed() && p.proceed() {
			p.denied = true
			return true
		}
		p.fail(errCatchupRefused)
	case !p.resumable():
		p.fail(errCatchupEnded)
	case !p.hasBegun() && p.mustYield():
		p.fail(errCatchupYields)
	default:
		return p.proceed()
	}
	return false
}

// endSilent ends a catch-up for which no event has come in time.
func (p *pursuit) endSilent() {
	switch {
	case p.disrupted():
	case p.isQuiet(0):
		p.endQuiet()
	default:
		p.fail(p.silence())
	}
}

// hasBegun reports whether an event has come that is for the subscribers.
func (c *catchup) hasBegun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events > 0
}

// disrupted reports whether the topic has lost its shared connection since the fetch
// began, and the catch-up is to go on once there is another.
func (p *pursuit) disrupted() bool {
	connected, connects := p.group.topic.connection()
	return (!connected || connects != p.fetched.connects) && p.resumable()
}

// isQuiet reports whether the catch-up is to be parked, as the origin has sent nothing for
// some time.
func (p *pursuit) isQuiet(least time.Duration) bool {
	c, f, t := p.catchup, p.fetched, p.group.topic
	if !f.isSilent(least) || p.ended != nil && f.hasEnded() {
		return false
	}
	if connected, connects := t.connection(); !connected || connects != f.connects || !t.isNowhere() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.noIDs && least == 0 {
		return false
	}
	here := Claim{ID: c.lastID}
	return c.id.ID != "" && c.progress.is(progressFetching) && (c.events > 0 || !c.tried) &&
		here.Usable() && t.askableID(here.ID) != ""
}

// endQuiet ends the catch-up as the origin is quiet. Others that come to the same id need
// not wait.
func (p *pursuit) endQuiet() {
	c := p.catchup
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.progress.now().isOver() {
		return
	}
	c.quietOn = p.fetched.connects
	if c.events > 0 {
		end := c.lastID
		c.group.end.Store(&end)
	}
	c.finish(false, 0, errCatchupQuiet)
}
