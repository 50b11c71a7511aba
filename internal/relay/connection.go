package relay

import (
	"context"
	"sync"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A connection is one connection of an upstream to its source.
type connection struct {
	inflow
	up *upstream
	beginning
	replaces *connection // that is to end when this one is accepted
	overlaps bool        // it resumes while that one goes on

	mu sync.Mutex // held for each event: another connection may take over in between

	// Guarded by mu.
	isCut bool // another connection has taken over
	fresh bool // something was appended and nobody woken yet

	// Owned by the goroutine that feeds the sink, then by run.
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
		inflow:    newInflow(t, after.Resumption, t.relay.cfg.IdleTimeout),
		up:        u,
		beginning: after,
		replaces:  replaces,
		overlaps:  replaces != nil && after.ID != "",
		anew:      replaces == nil && u.endedCleanly,
	}
	c.start(ctx, c)
	return c
}

// Shared implements Sink.
func (c *connection) Shared() bool { return true }

// Decided implements Sink.
//
// The first event of a connection that another one has replaced decides nothing.
func (c *connection) Decided(session bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isCut {
		c.up.topic.decide(session)
	}
}

// Accept implements Sink.
func (c *connection) Accept(o Opening) (tell func()) {
	u, t := c.up, c.up.topic
	if old := c.replaces; old != nil {
		old.cancel(errRerouted)
		old.cut()
	}
	c.accept()
	defer close(c.established)
	told := Connected{Address: o.Address, LastEventID: c.ID, Attempt: u.failures + 1, Reloaded: c.replaces != nil}
	c.nth, told.Without = t.connected(c.ID, c.brought, u.suspectID, &o)
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
	c.strip(e)
	if !e.HasID && !e.HasData && !e.HasRetry {
		return
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

// strip takes from an event what is not the origin's to say, or is no news. What is left
// may be nothing.
func (c *connection) strip(e *sse.Event) {
	u, t := c.up, c.up.topic
	if e.HasRetry {
		u.retry.Store(int64(min(e.Retry, longestRetry)))
		e.HasRetry = t.relay.cfg.Retry == 0 // the operator's word goes before the origin's
	}
	if c.brought && !u.hasBegun.Load() && eventID(e) == c.ID {
		// The origin returns what a client made it believe: that is no id of its own.
		e.HasID, e.ID = false, nil
	}
	if c.replaying && e.HasID && !e.HasData {
		if _, known := t.log.After(eventID(e)); known && !c.repeats(e) {
			// A position, as a fan-out begins each connection with. It is not
			// news, and a replay may follow it.
			e.HasID, e.ID = false, nil
		}
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
	t, from := c.up.topic, c.replayed
	if from == 0 {
		from = t.newestRun() // an older one may have gone further
	}
	next, ok := t.log.Match(from, e)
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
