package relay

import (
	"context"
	"sync"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A connection is one connection of a topic to its source.
type connection struct {
	inflow
	follower *follower
	beginning
	replaces *connection // that is to end when this one is accepted

	mu sync.Mutex // held for each event: another connection may take over in between

	// Guarded by mu.
	isCut bool // another connection has taken over
	fresh bool // something was appended and nobody woken yet

	// Owned by the goroutine that feeds the sink, then by run.
	nth   int // of the topic, from 1; 0 until it is accepted
	sieve Sieve
}

// open starts a connection.
func (f *follower) open(ctx context.Context, after beginning, replaces *connection) *connection {
	t := f.topic
	c := &connection{
		inflow:    newInflow(t, after.Resumption, t.relay.cfg.IdleTimeout),
		follower:  f,
		beginning: after,
		replaces:  replaces,
		sieve: Sieve{
			Question: Question{ID: after.ID, Anew: replaces == nil && f.endedCleanly},
			topic:    t,
			overlaps: replaces != nil && after.ID != "",
		},
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
		c.follower.topic.decide(session)
	}
}

// Accept implements Sink.
func (c *connection) Accept(o Opening) (tell func()) {
	f, t := c.follower, c.follower.topic
	if old := c.replaces; old != nil {
		old.cancel(errRerouted)
		old.cut()
	}
	c.accept()
	defer close(c.established)
	hasHistory := t.log.Newest().Cursor > 0
	told := Connected{Address: o.Address, LastEventID: c.ID, Attempt: f.failures + 1, Reloaded: c.replaces != nil}
	c.nth, told.Without = t.connected(c.ID, c.brought, f.suspectID, &o)
	f.suspectID = "" // the topic knows by now
	if !o.News {
		c.sieve.begin(c.nth > 1 || hasHistory)
	} else if !c.sieve.whole {
		t.greeting.passed()
	}
	c.replaces = nil // or each reload would keep one connection more in memory
	f.since = c.accepted
	f.condition.Store(f.condition.Load().connected(c.accepted, o.Address))
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
		c.follower.topic.published()
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

// Note implements Sink.
func (c *connection) Note(n Note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		return
	}
	runs := &c.follower.topic.runs
	c.sieve.whole = c.sieve.whole || n.Opened
	if n.Began != nil {
		runs.note(*n.Began)
	}
	if n.Run {
		runs.begin(c.follower.topic.log)
	}
	if n.Gap {
		c.follower.topic.missed()
		c.fresh = true
	}
}

func (c *connection) publish(e *sse.Event) {
	t := c.follower.topic
	t.relay.stats.Received.Add(1)
	c.strip(e)
	f := c.sieve.sift(e)
	switch {
	case len(f.entry.Wire) == 0:
		return
	case f.entry.Aside:
		t.log.Append(f.entry)
		c.fresh = true
		return
	}
	c.follower.hasBegun.Store(true)
	if f.run {
		t.runs.begin(t.log)
	}
	for _, held := range f.held {
		c.append(held)
	}
	if f.known {
		return
	}
	c.append(f.entry)
	if f.greets {
		t.greeting.add(f.entry.Wire, f.first, t.log.Newest().Cursor)
	}
}

// strip takes from an event what is not the origin's to say. What is left may be nothing.
func (c *connection) strip(e *sse.Event) {
	f := c.follower
	if e.HasRetry {
		f.retry.Store(int64(min(e.Retry, longestRetry)))
		e.HasRetry = f.topic.relay.cfg.Retry == 0 // the operator's word goes before the origin's
	}
	if c.brought && !f.hasBegun.Load() && eventID(e) == c.ID {
		// The origin returns what a client made it believe: that is no id of its own.
		e.HasID, e.ID = false, nil
	}
}

// append adds an event to the log.
func (c *connection) append(entry hub.Entry) {
	t := c.follower.topic
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

// A beginning is what a connection begins after.
type beginning struct {
	Resumption
	brought bool // by the client that opened the topic: the log must not learn it
}

// next returns what the next connection begins after: the id in force, which the origin
// has given out. No client's id opens a topic, for it may be one to which the origin has
// nothing to send, or not all: who brings one has a catch-up. Without catch-ups, an
// origin with a single worker can serve the one who opens a topic over no other
// connection.
func (f *follower) next() beginning {
	t := f.topic
	if t.opener.ID != "" && !f.doubted && !f.hasBegun.Load() && t.askableID(t.opener.ID) != "" {
		return beginning{t.opener.resumption(), true}
	}
	return beginning{Resumption: Resumption{ID: t.askableID(t.log.Newest().ID)}}
}
