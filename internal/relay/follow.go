package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// An upstream is a topic's way to its origin: it connects, decodes what comes
// into the topic's log, and connects again when the connection ends. One
// goroutine, started by the relay, owns it.
type upstream struct {
	topic *Topic

	// rerouted tells run that the topic has a new route.
	rerouted chan struct{}

	// Owned by run, and by the connection that it waits for.
	suspectID string    // may be why the last answer was no stream, or a silent one
	doubted   bool      // the opener's id is not used any more
	failures  int       // in a row, of connections that have not proved themselves
	noSince   time.Time // since when every answer has been a no
	since     time.Time // when the present state of the connection began
	troubled  time.Time // when the row of failures began

	condition atomic.Pointer[condition]

	retry atomic.Int64 // the origin's reconnection time, in nanoseconds; negative: none yet

	hasBegun atomic.Bool // an event has come

	starts       []runStart // what connections have begun with, the newest last
	endedCleanly bool       // the last connection

	wire []byte // reused by publish
}

const (
	// proofTime is how long a connection must last, if it brings no event, for
	// the next failure to count as the first.
	proofTime = 5 * time.Second

	// BeliefTime is how long every answer must have been a no for the
	// subscribers of a topic to be told: a deploy answers 404 for a while.
	BeliefTime = time.Minute

	// longestRetry bounds the reconnection time that clients are told at the end of
	// their stream, whatever the origin says: a browser does not take a number that
	// has overflowed.
	longestRetry = 24 * time.Hour

	// LongestRetryAfter bounds what an origin can make its clients wait.
	LongestRetryAfter = time.Hour
)

// run keeps the topic connected until ctx ends or the topic is over.
func (u *upstream) run(ctx context.Context) {
	u.since = time.Now()
	for ctx.Err() == nil {
		c := u.follow(ctx, u.open(ctx, u.next(), nil))
		silent := errors.Is(c.outcome.Err, errSilentToID)
		if ctx.Err() == nil && (silent || c.ID != "" && c.accepted.IsZero() && c.outcome.blamesID()) {
			// Only an answer to a request without an id is a verdict. If this
			// one is no stream either, the id was not to blame and is tried
			// again.
			u.suspectID = c.ID
			u.doubted = u.doubted || silent
			u.topic.disconnected(c.nth)
			c = u.follow(ctx, u.open(ctx, beginning{}, nil))
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
		select {
		case <-c.established:
			return c
		default:
		}
		if u.isLedElsewhere(c) {
			u.drain(&c.outcome)
			return old
		}
		if c.outcome.Verdict == Personal {
			old.cancel(errRerouted)
			<-old.ended
			break // the topic ends
		}
		u.topic.relay.observer.Stayed(u.topic, &c.outcome)
		return old
	case <-old.ended:
	case <-patience.C:
		old.cancel(errRerouted)
		<-old.ended
	}
	u.topic.disconnected(old.nth)
	return c
}

// A connection is one connection of an upstream to its source.
type connection struct {
	up *upstream
	beginning
	replaces *connection // that is to end when this one is accepted
	overlaps bool        // it resumes while that one goes on
	watchdog *time.Timer // nil without an idle timeout
	cancel   context.CancelCauseFunc

	established chan struct{} // closed when the origin has answered with an event stream
	ended       chan struct{} // closed when outcome is set
	outcome     Outcome

	mu sync.Mutex // held for each event: another connection may take over in between

	// Guarded by mu.
	isCut bool // another connection has taken over
	fresh bool // something was appended and nobody woken yet

	// Owned by the goroutine that feeds the sink, then by run.
	accepted  time.Time
	nth       int        // of the topic, from 1; 0 until it is accepted
	replaying bool       // all events so far were in the log already
	replayed  hub.Cursor // up to here
	begun     bool       // an event has come
	anew      bool       // the connection before has ended as a stream should
	rerun     rerun
	events    int // published, with data
}

// open starts a connection.
func (u *upstream) open(ctx context.Context, after beginning, replaces *connection) *connection {
	t := u.topic
	c := &connection{
		up:          u,
		beginning:   after,
		replaces:    replaces,
		overlaps:    replaces != nil && after.ID != "",
		anew:        replaces == nil && u.endedCleanly,
		established: make(chan struct{}),
		ended:       make(chan struct{}),
	}
	ctx, c.cancel = context.WithCancelCause(ctx)

	var watchdog *time.Timer
	if idle := t.relay.cfg.IdleTimeout; idle > 0 {
		watchdog = time.AfterFunc(idle, func() { c.cancel(ErrIdle) })
	}
	c.watchdog = watchdog
	go func() {
		defer close(c.ended)
		defer c.cancel(nil)
		if watchdog != nil {
			defer watchdog.Stop()
		}
		c.outcome = t.source.Follow(ctx, after.Resumption, c)
		if !c.accepted.IsZero() { // nothing is, any more
			t.relay.stats.Connections.Add(-1)
		}
		if errors.Is(c.outcome.Err, sse.ErrEventTooLarge) {
			t.relay.stats.Oversized.Add(1)
		}
	}()
	return c
}

// Shared implements Sink.
func (c *connection) Shared() bool { return true }

// Heard implements Sink.
func (c *connection) Heard() {
	if c.watchdog != nil {
		c.watchdog.Reset(c.up.topic.relay.cfg.IdleTimeout)
	}
}

// Decided implements Sink.
func (c *connection) Decided(session bool) { c.up.topic.decide(session) }

// Accept implements Sink.
func (c *connection) Accept(o Opening) (tell func()) {
	u, t := c.up, c.up.topic
	if old := c.replaces; old != nil {
		old.cancel(errRerouted)
		old.cut()
	}
	c.accepted = time.Now()
	t.relay.stats.Connections.Add(1)
	defer close(c.established)
	told := Connected{Address: o.Address, LastEventID: c.ID, Attempt: u.failures + 1, Reloaded: c.replaces != nil}
	c.nth, told.Without = t.connected(c.ID, c.brought, u.suspectID, o.Header)
	c.replaying = c.nth > 1
	c.replaces = nil // or each reload would keep one connection more in memory
	u.since = c.accepted
	u.condition.Store(u.condition.Load().connected(c.accepted, o.Address))
	return func() { t.relay.observer.Connected(t, told) }
}

// Flush implements Sink.
func (c *connection) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
}

func (c *connection) flush() {
	if c.fresh {
		c.fresh = false
		c.up.topic.published()
	}
}

// cut takes nothing more from the source, which may need a while to notice that it is
// not wanted any more.
func (c *connection) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	c.flush()
}

// Event implements Sink: it appends an event to the log.
func (c *connection) Event(e *sse.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isCut {
		c.publish(e)
	}
}

func (c *connection) publish(e *sse.Event) {
	u, t := c.up, c.up.topic
	t.relay.stats.Received.Add(1)
	if e.HasRetry {
		u.retry.Store(int64(min(e.Retry, longestRetry)))
		if t.relay.cfg.Retry > 0 {
			// The operator's word goes before the origin's.
			e.HasRetry = false
			if !e.HasID && !e.HasData {
				return
			}
		}
	}
	if c.brought && !u.hasBegun.Load() && eventID(e) == c.ID {
		// The origin returns what a client made it believe: that is no id of its own.
		e.HasID, e.ID = false, nil
		if !e.HasData && !e.HasRetry {
			return
		}
	}
	if c.replaying && e.HasID && !e.HasData {
		if _, known := t.log.After(eventID(e)); known {
			// A position, as a fan-out begins each connection with. It is not
			// news, and a replay may follow it.
			e.HasID, e.ID = false, nil
			if !e.HasRetry {
				return
			}
		}
	}
	entry := hub.Entry{SetsID: e.HasID, ID: eventID(e)}
	if t.epoch != "" && !e.HasID && e.HasData {
		entry.SetsID, entry.ID = true, t.assign(t.log.Newest().Cursor)
		e.HasID, e.ID = true, []byte(entry.ID)
	}
	u.wire = sse.Append(u.wire[:0], e)
	entry.Wire = u.wire

	if !e.HasID && !e.HasData {
		// A reconnection time alone, as many servers begin each connection with:
		// it neither ends a replay nor is a greeting.
		entry.Aside = true
		t.log.Append(entry)
		c.fresh = true
		return
	}
	u.hasBegun.Store(true)
	greets := t.greeting.greets(e, c.events)
	if !c.begun && !greets {
		c.begins(&entry)
	}
	if c.replaying && !greets && c.isReplay(entry) && !c.isNewRun(c.replayed) {
		return
	}
	if !greets && (entry.SetsID || c.replayed > 0 || !c.overlaps) {
		// Beside another connection, an event without an id, as some origins begin
		// each with, is no sign that what follows has not come there.
		c.replaying = false
	}
	c.append(entry)
	if greets {
		t.greeting.add(entry.Wire, c.events == 0, t.log.Newest().Cursor)
	}
	if e.HasData {
		c.events++
	}
	if cap(u.wire) > maxKeptBuffer {
		u.wire = nil
	}
}

// append adds an event to the log.
func (c *connection) append(entry hub.Entry) {
	t := c.up.topic
	awaited := entry.SetsID && entry.ID != "" && t.catchups.any.Load()
	if awaited {
		t.catchups.follows(t.log.Newest().ID, entry.ID)
	}
	t.log.Append(entry)
	if awaited {
		t.catchups.comes(entry.ID, t.log.Newest().Cursor)
	}
	if t.catchups.anyParked.Load() {
		t.catchups.unpark(true)
	}
	if len(entry.Wire) > maxKeptBuffer {
		// The next of its size may push it out of the log.
		t.log.Wake()
	}
	c.fresh = true
}

// maxKeptBuffer is how large a buffer is kept for the next event.
const maxKeptBuffer = 64 << 10

// isReplay reports whether an event at the start of a connection is in the log
// already, in its turn: an origin that ignores the last event id, or counts it
// differently, begins with what was there before.
func (c *connection) isReplay(e hub.Entry) bool {
	if !e.SetsID && c.replayed == 0 {
		return false
	}
	next, ok := c.up.topic.log.Match(c.replayed, e)
	if ok {
		c.replayed = next
	}
	return ok
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

	switch v := out.Verdict; v {
	case Stream:
		u.noSince = time.Time{}
		u.endedCleanly = out.Err == nil
		if u.endedCleanly && t.relay.cfg.CloseOnEnd {
			return u.over(Ending{Reason: EndUpstreamEnded, Drain: true}, out.Status)
		}
		if u.endedCleanly && t.relay.closeUnused(t) {
			u.closed(string(EndUpstreamEnded), out.Status, false)
			return 0, true
		}
	case Unavailable:
		u.noSince = time.Time{}
		if out.FallsBack && t.refuse(out) {
			u.closed(v.String(), out.Status, true)
			return 0, true
		}
	case Personal:
		t.mu.Lock()
		admitted := t.admitted
		t.mu.Unlock()
		u.closed(string(EndPersonal), out.Status, !admitted)
		t.restrict(out)
		return 0, true
	default:
		if t.refuse(out) {
			u.closed(v.String(), out.Status, true)
			return 0, true
		}
		if v == Gone {
			return u.over(Ending{Reason: EndUpstreamGone}, out.Status)
		}
		if u.noSince.IsZero() {
			u.noSince = time.Now()
		}
		if time.Since(u.noSince) >= BeliefTime {
			return u.over(Ending{Reason: EndRefused, Over: closeDelay}, out.Status)
		}
	}

	if c.events > 0 || !c.accepted.IsZero() && time.Since(c.accepted) >= proofTime {
		u.failures = 0
	}
	delay = max(u.backoff(), u.pause(out), out.RetryAfter)
	if u.failures == 0 {
		u.troubled = time.Now()
	}
	u.failures++
	t.relay.stats.Reconnects.Add(1)
	u.lost(c, delay)
	return delay, false
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
func (u *upstream) backoff() time.Duration {
	low := u.topic.relay.cfg.ReconnectMin
	high := u.topic.relay.cfg.ReconnectMax
	bound := low
	for range u.failures + 1 {
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
