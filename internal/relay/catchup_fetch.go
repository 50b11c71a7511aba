package relay

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// SecondThought is how long a catch-up waits, when its connection has ended,
// before it decides what that means: if the shared connection turns out to be
// lost too, it was the origin and not the id.
const SecondThought = 250 * time.Millisecond

// A fetch is one connection of a catch-up to the origin.
type fetch struct {
	stop  func() // and wait for it to end
	ended chan Outcome
	began time.Time
	heard atomic.Int64 // when the answer or an event has come last, in Unix nanoseconds; 0: none has

	// connects is which connection of the topic was the shared one when the
	// fetch began.
	connects int
}

// fetch begins to take what the origin has after the newest event here.
func (c *catchup) fetch(ctx context.Context) *fetch {
	t := c.group.topic
	c.mu.Lock()
	from := Claim{c.lastID, c.id.Param}.resumption()
	c.mu.Unlock()
	_, connects := t.connection()
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{began: time.Now(), ended: make(chan Outcome, 1), connects: connects}

	stream := &catchupStream{catchup: c, heard: &f.heard}
	done := make(chan struct{})
	t.helpers.Go(func() {
		defer close(done)
		out := t.source.Follow(ctx, from, stream)
		if stream.accepted { // nothing is, any more
			t.relay.stats.Connections.Add(-1)
		}
		f.ended <- out
	})
	f.stop = func() {
		cancel()
		<-done
	}
	return f
}

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
	last    Outcome         // of the fetch that has ended
	waited  <-chan struct{} // closed when an event has begun the catch-up; nil from then on
	beat    uint64
	wake    <-chan struct{}

	silent  *time.Timer   // no event has come in time
	slow    *time.Timer   // it has not met the log in time
	quiet   *time.Timer   // it is to be looked whether the origin has no more
	thought *time.Timer   // it is known what the end of a fetch means
	calm    time.Duration // how long the origin must be silent for that
	delay   time.Duration // before the next thought
}

// pursue makes one fetch after another until the catch-up is over.
func (c *catchup) pursue(ctx context.Context) {
	timeout := c.group.topic.relay.cfg.CatchupTimeout
	p := &pursuit{
		catchup: c,
		fetched: c.fetch(ctx),
		waited:  c.begun,
		beat:    c.group.topic.log.Look(0).Beat,
		calm:    min(QuietTime, timeout/2),
		silent:  time.NewTimer(timeout),
		slow:    time.NewTimer(SpliceTimeouts * timeout),
		thought: time.NewTimer(time.Hour),
		delay:   SecondThought,
	}
	p.quiet = time.NewTimer(p.calm)
	defer func() {
		p.fetched.stop()
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
		p.fetched.stop()
		p.thought.Stop()
		p.fetched, p.delay = p.fetch(ctx), SecondThought
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
	case p.last = <-p.fetched.ended:
		if errors.Is(p.last.Err, ErrClosing) {
			p.fail(ErrClosing)
		}
		if p.last.blamesID() {
			p.rest()
		}
		p.thought.Reset(p.delay)
		p.delay = min(2*p.delay, t.relay.cfg.ReconnectMax)
	case <-p.thought.C:
		if p.isToGoOn(p.fetched, &p.last) {
			p.fetched = p.fetch(ctx)
		}
	case <-p.quiet.C:
		switch {
		case p.isQuiet(p.fetched, p.calm):
			p.endQuiet(p.fetched)
		case p.waited != nil && p.fetched.hasBroughtNothing(p.calm) && p.mustYield():
			p.fail(errCatchupYields)
		case p.waited != nil || t.isNowhere():
			p.quiet.Reset(p.calm / 4)
		}
	case <-p.silent.C:
		p.endSilent(p.fetched)
	case <-p.slow.C:
		if !p.disrupted(p.fetched) {
			p.fail(errCatchupSlow)
		}
	case <-ctx.Done():
		p.fail(ErrClosing) // or nobody is left to be told
	}
	return false
}

// isToGoOn decides what the end of a fetch means, and reports whether there is to be
// another.
func (c *catchup) isToGoOn(f *fetch, last *Outcome) bool {
	switch {
	case c.progress.is(progressWhole), c.disrupted(f):
	case last.blamesID():
		c.fail(errCatchupRefused)
	case !c.resumable():
		c.fail(errCatchupEnded)
	case !c.hasBegun() && c.mustYield():
		c.fail(errCatchupYields)
	default:
		return c.proceed()
	}
	return false
}

// endSilent ends a catch-up for which no event has come in time.
func (c *catchup) endSilent(f *fetch) {
	switch {
	case c.disrupted(f):
	case c.isQuiet(f, 0):
		c.endQuiet(f)
	default:
		c.fail(c.silence())
	}
}

// isSilent reports whether the origin has answered, and sent nothing for some time.
func (f *fetch) isSilent(least time.Duration) bool {
	heard := f.heard.Load()
	return heard > 0 && time.Since(time.Unix(0, heard)) >= least
}

// hasBroughtNothing reports whether the origin has sent nothing for some time, not even an
// answer.
func (f *fetch) hasBroughtNothing(least time.Duration) bool {
	return f.isSilent(least) || f.heard.Load() == 0 && time.Since(f.began) >= least
}

// hasBegun reports whether an event has come that is for the subscribers.
func (c *catchup) hasBegun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events > 0
}

// disrupted reports whether the topic has lost its shared connection since f
// began, and the catch-up is to go on once there is another.
func (c *catchup) disrupted(f *fetch) bool {
	connected, connects := c.group.topic.connection()
	return (!connected || connects != f.connects) && c.resumable()
}

// A catchupStream takes what the origin sends to a catch-up.
type catchupStream struct {
	catchup  *catchup
	heard    *atomic.Int64
	wire     []byte
	accepted bool
	missed   bool // it was not listened to: what it has from then on is no continuation

	held      []hub.Entry // until there is one with an id
	heldBytes int
	withData  int // events that are not held
}

// Shared implements Sink.
func (s *catchupStream) Shared() bool { return false }

// Heard implements Sink.
func (s *catchupStream) Heard() {}

// Decided implements Sink.
func (s *catchupStream) Decided(bool) {}

// Accept implements Sink.
func (s *catchupStream) Accept(Opening) (tell func()) {
	s.accepted = true
	s.heard.Store(time.Now().UnixNano())
	s.catchup.group.topic.relay.stats.Connections.Add(1)
	return nil
}

// Flush implements Sink.
func (s *catchupStream) Flush() { s.catchup.log.Wake() }

// Interface guards
var _ Sink = (*catchupStream)(nil)
