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
		Resumed:     c.spliced,
		Reason:      c.why,
		Took:        time.Since(started),
	})
}

// pursue makes one fetch after another until the catch-up is over.
func (c *catchup) pursue(ctx context.Context) {
	t := c.group.topic
	timeout := t.relay.cfg.CatchupTimeout
	silent := time.NewTimer(timeout)
	defer silent.Stop()
	slow := time.NewTimer(SpliceTimeouts * timeout)
	defer slow.Stop()
	quietTime := min(QuietTime, timeout/2)
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	thought := time.NewTimer(time.Hour)
	defer thought.Stop()
	pause := SecondThought

	f := c.fetch(ctx)
	defer func() { f.stop() }()
	var last Outcome // of the fetch that has ended
	begun := c.begun
	beat := t.log.Look(0).Beat
	var wake <-chan struct{}
	for {
		var beats uint64
		wake, beats = t.log.Watch(wake)
		c.meet()
		if beats != beat {
			beat = beats
			c.log.Beat()
		} else {
			c.log.Wake() // a subscriber may have to end
		}
		if connected, connects := t.connection(); connected && connects != f.connects && c.resumable() && !c.isWhole() {
			if c.proceed() {
				f.stop()
				thought.Stop()
				f, pause = c.fetch(ctx), SecondThought
				quiet.Reset(quietTime)
				if begun != nil {
					silent.Reset(timeout)
				}
				slow.Reset(SpliceTimeouts * timeout)
			} else {
				thought.Reset(SecondThought)
			}
		}
		select {
		case <-c.finished:
			return
		case <-begun:
			silent.Stop()
			begun = nil
		case <-wake:
		case last = <-f.ended:
			if errors.Is(last.Err, ErrClosing) {
				c.fail(ErrClosing)
			}
			if last.blamesID() {
				c.rest()
			}
			thought.Reset(pause)
			pause = min(2*pause, t.relay.cfg.ReconnectMax)
		case <-thought.C:
			if c.isToGoOn(f, &last) {
				f = c.fetch(ctx)
			}
		case <-quiet.C:
			switch {
			case c.isQuiet(f, quietTime):
				c.endQuiet(f)
			case begun != nil && f.hasBroughtNothing(quietTime) && c.mustYield():
				c.fail(errCatchupYields)
			case begun != nil || t.isNowhere():
				quiet.Reset(quietTime / 4)
			}
		case <-silent.C:
			c.endSilent(f)
		case <-slow.C:
			if !c.disrupted(f) {
				c.fail(errCatchupSlow)
			}
		case <-ctx.Done():
			c.fail(ErrClosing) // or nobody is left to be told
		}
	}
}

// isToGoOn decides what the end of a fetch means, and reports whether there is to be
// another.
func (c *catchup) isToGoOn(f *fetch, last *Outcome) bool {
	switch {
	case c.isWhole(), c.disrupted(f):
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
