package ssefanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// An upstream is a topic's way to its origin: it connects, decodes what comes
// into the topic's log, and connects again when the connection ends. One
// goroutine, started by the pool, owns it.
type upstream struct {
	topic *topic

	// rerouted tells run that the topic has a new route.
	rerouted chan struct{}

	// Owned by run, and by the answer it waits for.
	suspectID string    // may be why the last answer was no stream, or a silent one
	doubted   bool      // the opener's id is not used any more
	failures  int       // in a row, of connections that have not proved themselves
	noSince   time.Time // since when every answer has been a no
	since     time.Time // when the present state of the connection began
	troubled  time.Time // when the row of failures began
	remindAt  time.Time // when the log says again that it goes on
	missing   bool      // it was announced that the origin is unavailable
	oversized bool      // it was logged that an event is larger than allowed

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

	// beliefTime is how long every answer must have been a no for the
	// subscribers of a topic to be told: a deploy answers 404 for a while.
	beliefTime = time.Minute

	// longestRetry bounds the reconnection time that clients are told at the end of
	// their stream, whatever the origin says: a browser does not take a number that
	// has overflowed.
	longestRetry = 24 * time.Hour
)

var (
	errIdle         = errors.New("the origin was silent for longer than idle_timeout")
	errTopicClosing = errors.New("the topic is closing")
	errSilentToID   = errors.New("the origin has sent nothing for the last event id that a client brought, while others wait")
	errRerouted     = errors.New("the topic goes on through the new configuration")
)

// run keeps the topic connected until ctx ends or the topic is over.
func (u *upstream) run(ctx context.Context) {
	u.since = time.Now()
	for ctx.Err() == nil {
		c := u.follow(ctx, u.open(ctx, u.next(), nil))
		silent := errors.Is(c.outcome.err, errSilentToID)
		if ctx.Err() == nil && (silent || c.id != "" && c.accepted.IsZero() && blamesID(c.outcome.verdict, c.outcome.status)) {
			// Only an answer to a request without an id is a verdict. If this
			// one is no stream either, the id was not to blame and is tried
			// again.
			u.suspectID = c.id
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
	u.logClosed(zapcore.InfoLevel, reason, 0)
}

// follow waits for a connection to end. When a reload has brought the topic a
// new route, the connection is replaced by one through it. One that was opened with a
// client's id ends if it brings nothing while others wait.
func (u *upstream) follow(ctx context.Context, c *connection) *connection {
	for {
		var doubt <-chan time.Time
		if c.brought && !u.hasBegun.Load() {
			doubt = time.After(time.Duration(u.topic.pool.opts.Catchup.Timeout))
		}
		select {
		case <-c.ended:
			return c
		case <-u.rerouted:
			// Several clients may have asked for it, and the first was heard.
			newest := u.topic.pool.lineage.newestHandler()
			if newest != nil && u.topic.isConnectedThroughOlderThan(newest) {
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
	patience := time.NewTimer(time.Duration(u.topic.pool.opts.Wait))
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
		if c.outcome.verdict == verdictPersonal {
			old.cancel(errRerouted)
			<-old.ended
			break // the topic ends
		}
		u.topic.pool.log().Warn("not switching the upstream to the new configuration, whose route has refused",
			zap.String("topic", u.topic.name),
			zap.Int("status", c.outcome.status),
			zap.String("error", c.outcome.explain()))
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
	answer   *answer
	decoder  *sse.Decoder
	cancel   context.CancelCauseFunc

	established chan struct{} // closed when the origin has answered with an event stream
	ended       chan struct{} // closed when outcome is set
	outcome     outcome

	// Owned by the goroutine that writes to the answer, then by run.
	accepted  time.Time
	nth       int        // of the topic, from 1; 0 until it is accepted
	replaying bool       // all events so far were in the log already
	replayed  hub.Cursor // up to here
	begun     bool       // an event has come
	anew      bool       // the connection before has ended as a stream should
	rerun     rerun
	events    int  // published, with data
	fresh     bool // something was appended and nobody woken yet
}

// open starts a connection.
func (u *upstream) open(ctx context.Context, after beginning, replaces *connection) *connection {
	t := u.topic
	c := &connection{
		up:          u,
		beginning:   after,
		replaces:    replaces,
		overlaps:    replaces != nil && after.id != "",
		anew:        replaces == nil && u.endedCleanly,
		established: make(chan struct{}),
		ended:       make(chan struct{}),
	}
	ctx, c.cancel = context.WithCancelCause(ctx)

	heard := func() {}
	var watchdog *time.Timer
	if idle := time.Duration(t.pool.opts.IdleTimeout); idle > 0 {
		watchdog = time.AfterFunc(idle, func() { c.cancel(errIdle) })
		heard = func() { watchdog.Reset(idle) }
	}
	c.answer = newAnswer(c.accept, heard, t.restrictionOf)
	c.answer.settles = true
	c.decoder = c.answer.newDecoder(t.pool.opts, c.publish, t.decide)
	go func() {
		defer close(c.ended)
		defer c.cancel(nil)
		if watchdog != nil {
			defer watchdog.Stop()
		}
		if src, ok := t.pool.source(); ok {
			c.outcome = ask(ctx, src, t, after.resumption, c.answer)
		} else {
			c.outcome.err = errTopicClosing
		}
		if !c.accepted.IsZero() { // nothing is, any more
			t.pool.stats.connections.Add(-1)
		}
	}()
	return c
}

// accept is called when the origin has answered with an event stream.
func (c *connection) accept(header http.Header) io.Writer {
	t := c.up.topic
	if c.replaces != nil {
		c.replaces.cancel(errRerouted)
		_ = c.replaces.answer.close()
	}
	c.accepted = time.Now()
	t.pool.stats.connections.Add(1)
	defer close(c.established)
	var without time.Duration
	c.nth, without = t.connected(c.id, c.brought, c.up.suspectID, sharedHeaders(header), c.answer.via)
	c.replaying = c.nth > 1
	c.up.logConnected(c, without)
	c.replaces = nil // or each reload would keep one connection more in memory
	return c
}

// Write takes bytes of the event stream.
func (c *connection) Write(p []byte) (int, error) {
	n, err := c.decoder.Write(p)
	if c.fresh {
		c.fresh = false
		c.up.topic.published()
	}
	if errors.Is(err, sse.ErrEventTooLarge) {
		c.up.topic.pool.stats.oversized.Add(1)
		err = fmt.Errorf("reading the event stream: %w: raise max_event_size above %d bytes if such events are meant",
			err, c.up.topic.pool.opts.MaxEventSize)
	}
	return n, err
}

// publish appends an event to the log.
func (c *connection) publish(e *sse.Event) {
	u, t := c.up, c.up.topic
	t.pool.stats.received.Add(1)
	if e.HasRetry {
		u.retry.Store(int64(min(e.Retry, longestRetry)))
		if t.pool.opts.Retry > 0 {
			// The operator's word goes before the origin's.
			e.HasRetry = false
			if !e.HasID && !e.HasData {
				return
			}
		}
	}
	if c.brought && !u.hasBegun.Load() && eventID(e) == c.id {
		// The origin returns what a client made it believe: that is no id of its own.
		e.HasID, e.ID = false, nil
		if !e.HasData && !e.HasRetry {
			return
		}
	}
	if c.replaying && e.HasID && !e.HasData {
		if _, known := t.log.After(eventID(e)); known && !c.repeats(e) {
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
	if c.replaying && !greets && c.isReplay(entry) && !c.isNewRun(&entry, c.replayed) {
		return
	}
	if !greets && (entry.SetsID || c.replayed > 0 || !c.overlaps) {
		// Beside another connection, an event without an id, as some origins begin
		// each with, is no sign that what follows has not come there.
		c.endReplay()
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
	if ok && c.replayed == 0 && c.goesOn(&e, next-1) {
		return false
	}
	if ok {
		c.replayed = next
	}
	return ok
}

// repeats reports whether a replay has begun and has come to an event that the log has.
func (c *connection) repeats(e *sse.Event) bool {
	u := c.up
	u.wire = sse.Append(u.wire[:0], e)
	_, ok := u.topic.log.Match(c.replayed, hub.Entry{Wire: u.wire, SetsID: e.HasID, ID: eventID(e)})
	return ok && c.replayed > 0
}

// conclude decides what the end of a connection means. Unless the topic is
// over, it returns how long to wait before the next one.
func (u *upstream) conclude(c *connection) (delay time.Duration, over bool) {
	t, out := u.topic, &c.outcome
	closeDelay := time.Duration(t.pool.opts.StreamCloseDelay)
	t.disconnected(c.nth)
	if e := t.ending.Load(); e != nil {
		return u.over(*e, out.status) // its subscribers are leaving
	}
	if u.isLedElsewhere(c) {
		return u.over(ending{Reason: endDrained, Over: closeDelay}, out.status)
	}
	if errors.Is(out.err, errTopicClosing) {
		// The pool is over: who is still here finds the new configuration.
		return u.over(ending{Reason: endDrained, Over: closeDelay}, out.status)
	}

	switch v := out.verdict; v {
	case verdictStream:
		u.noSince = time.Time{}
		u.endedCleanly = out.err == nil
		if u.endedCleanly && t.pool.opts.OnEnd == "close" {
			return u.over(ending{Reason: endUpstreamEnded, Drain: true}, out.status)
		}
		if u.endedCleanly && t.pool.closeUnused(t) {
			u.logClosed(zapcore.InfoLevel, string(endUpstreamEnded), out.status)
			return 0, true
		}
	case verdictUnavailable:
		u.noSince = time.Time{}
		if u.topic.fallsBack(out.err) && t.refuse(out) {
			u.logClosed(zapcore.DebugLevel, v.String(), out.status)
			return 0, true
		}
	case verdictPersonal:
		return u.concludePersonal(out)
	default:
		if t.refuse(out) {
			u.logClosed(zapcore.DebugLevel, v.String(), out.status)
			return 0, true
		}
		if v == verdictGone {
			return u.over(ending{Reason: endUpstreamGone}, out.status)
		}
		if u.noSince.IsZero() {
			u.noSince = time.Now()
		}
		if time.Since(u.noSince) >= beliefTime {
			return u.over(ending{Reason: endRefused, Over: closeDelay}, out.status)
		}
	}

	if c.events > 0 || !c.accepted.IsZero() && time.Since(c.accepted) >= proofTime {
		u.failures = 0
	}
	delay = max(u.backoff(), u.pause(out), out.retryAfter)
	if u.failures == 0 {
		u.troubled = time.Now()
		u.remindAt = u.troubled.Add(firstReminder)
	}
	u.failures++
	t.pool.stats.reconnects.Add(1)
	u.logLost(c, delay)
	return delay, false
}

// fallsBack reports whether an error of the source is one for which the site has routes
// of its own (handle_errors). Then those who wait for a first answer get what these bring,
// as they would without us.
func (t *topic) fallsBack(err error) bool {
	if _, ok := errors.AsType[caddyhttp.HandlerError](err); !ok || !t.pool.opts.wrapping {
		return false
	}
	h := t.pool.lineage.newestHandler()
	return h != nil && h.server != nil && h.server.Errors != nil && len(h.server.Errors.Routes) > 0
}

// pause returns how long the origin has asked to be left alone. A stream that has ended as
// it should is asked for no sooner than an EventSource would.
func (u *upstream) pause(out *outcome) time.Duration {
	retry := time.Duration(u.retry.Load())
	if retry < 0 && out.verdict == verdictStream && out.err == nil {
		retry = defaultRetry
	}
	return min(retry, longestRetryAfter)
}

// isLedElsewhere reports whether the site does not lead the stranger any more where
// it led the clients of the topic.
func (u *upstream) isLedElsewhere(c *connection) bool {
	return errors.Is(c.outcome.err, errMoved) || c.outcome.verdict == verdictElsewhere && u.topic.isLeftBehind()
}

// drain makes the subscribers come back over time, to where the site leads them now.
// Their connection to the origin goes on for as long as they are here.
func (u *upstream) drain(out *outcome) {
	t := u.topic
	t.pool.log().Info("ending subscribers, as the new configuration does not lead them where it leads a stranger",
		zap.String("topic", t.name),
		zap.Int("subscribers", t.subscriberCount()),
		zap.String("reason", out.explain()))
	t.conclude(ending{Reason: endDrained, Over: time.Duration(t.pool.opts.StreamCloseDelay)})
}

// over ends the topic, for it is not to be connected again.
func (u *upstream) over(e ending, status int) (time.Duration, bool) {
	u.logClosed(zapcore.InfoLevel, string(e.Reason), status)
	u.topic.conclude(e)
	return 0, true
}

// backoff returns a random time between the minimum and a bound that doubles
// with each failure.
func (u *upstream) backoff() time.Duration {
	low := time.Duration(u.topic.pool.opts.Reconnect.Min)
	high := time.Duration(u.topic.pool.opts.Reconnect.Max)
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
