package relay

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A fetch is one connection of a catch-up to the origin: it takes what the origin has after
// the newest event there.
type fetch struct {
	inflow
	catchup *catchup
	began   time.Time
	heard   atomic.Int64 // when the answer or an event has come last, in Unix nanoseconds; 0: none has

	// connects is which connection of the topic was the shared one when the
	// fetch began.
	connects int

	// Owned by the goroutine that feeds the sink.
	wire      []byte
	missed    bool        // it was not listened to: what it has from then on is no continuation
	held      []hub.Entry // until there is one with an id
	heldBytes int
	withData  int // events that are not held
}

// fetch begins to take what the origin has after the newest event here.
func (c *catchup) fetch(ctx context.Context) *fetch {
	t := c.group.topic
	c.mu.Lock()
	from := Claim{c.lastID, c.id.Param}.resumption()
	c.mu.Unlock()
	_, connects := t.connection()
	f := &fetch{inflow: newInflow(t, from, 0), catchup: c, began: time.Now(), connects: connects}
	f.start(ctx, f)
	return f
}

// Shared implements Sink.
func (*fetch) Shared() bool { return false }

// Note implements Sink.
func (*fetch) Note(Note) {}

// Decided implements Sink.
func (*fetch) Decided(bool) {}

// Accept implements Sink.
func (f *fetch) Accept(Opening) (tell func()) {
	f.accept()
	f.heard.Store(time.Now().UnixNano())
	close(f.established)
	return nil
}

// Flush implements Sink.
func (f *fetch) Flush() { f.catchup.log.Wake() }

// Event implements Sink: it takes an event until the catch-up meets the log.
func (f *fetch) Event(e *sse.Event) {
	c := f.catchup
	t := c.group.topic
	f.heard.Store(time.Now().UnixNano())

	c.mu.Lock()
	defer c.mu.Unlock()
	if e.HasID && !e.HasData && eventID(e) == c.lastID {
		// A position, as a fan-out begins each connection with, and no news.
		if e.HasID, e.ID = false, nil; !e.HasRetry {
			return
		}
	}
	f.wire = sse.Append(f.wire[:0], e)
	entry := hub.Entry{Wire: f.wire, SetsID: e.HasID, ID: eventID(e)}
	f.missed = f.missed || c.progress.is(progressWhole)
	if c.progress.now().isOver() || f.missed {
		return
	}
	if c.id.ID != "" && c.firstID == "" && entry.ID == "" {
		f.hold(entry, e.HasData)
		return
	}
	if c.events == 0 {
		close(c.begun)
	}
	if entry.ID != "" && f.joins(entry) {
		return
	}
	f.append(entry)
	greeted := c.id.ID == "" && t.greeting.completes(e, f.withData)
	if e.HasData {
		f.withData++
	}
	switch {
	case c.isAtEnd():
		c.finish(false, 0, errCatchupQuiet)
	case greeted && c.firstID == "" && t.log.Newest().ID == "":
		c.finish(false, 0, errCatchupNoIDs) // what comes next is what the log gets
	case c.bytes <= t.relay.cfg.History.Bytes:
	case c.canBeContinued():
		c.finish(false, 0, errCatchupFull)
	case c.events > 1:
		c.finish(false, 0, errCatchupSize)
	}
}

// joins reports whether an event with an id is where the catch-up ends, as the topic's log
// has it, or as the origin has ignored the id. c.mu must be held.
func (f *fetch) joins(entry hub.Entry) (over bool) {
	c := f.catchup
	if c.startsOver(entry.ID) {
		c.finish(false, 0, errCatchupIgnored)
		return true
	}
	if c.firstID == "" {
		c.firstID = entry.ID
	}
	c.newest.Store(&awaited{id: entry.ID}) // before looking: it may come at any time
	at, ok := c.group.topic.log.KeptAfter(entry.ID)
	switch {
	case !ok:
		return false
	case !c.continues(at.Cursor, entry.ID):
		c.finish(false, 0, errCatchupIgnored)
		return true
	}
	f.append(entry)
	if c.jumped(at.Cursor) {
		c.finish(false, at.Cursor, errCatchupIgnored)
	} else {
		c.finish(true, at.Cursor, nil)
	}
	return true
}

// hold keeps an event back until one has an id. From an origin that sends none, the
// topic's log gets the same events, and nothing tells which: the subscribers would
// have them twice. c.mu must be held.
func (f *fetch) hold(e hub.Entry, isEvent bool) {
	c := f.catchup
	c.noIDs = c.noIDs || isEvent // a reconnection time alone is none
	e.Wire = bytes.Clone(e.Wire)
	f.held = append(f.held, e)
	if f.heldBytes += len(e.Wire); f.heldBytes > c.group.topic.relay.cfg.History.Bytes {
		c.finish(false, 0, errCatchupSize)
	}
}

// append adds an event, after those that were held. c.mu must be held.
func (f *fetch) append(e hub.Entry) {
	for _, held := range f.held {
		f.catchup.append(held)
	}
	f.held = nil
	f.catchup.append(e)
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

// Interface guards
var _ Sink = (*fetch)(nil)
