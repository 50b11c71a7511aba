package relay

import (
	"slices"
	"sync"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A greeting is what an origin sends at the start of every connection, usually
// a snapshot, kept for subscribers that join later: the greeting and all that
// came after it put them in the same state as a connection of their own.
type greeting struct {
	// Static after construction. Both zero: there is none.
	events int    // the first of each connection
	name   string // or the newest event of this type

	mu sync.Mutex

	// Guarded by mu.
	wire  []byte
	after hub.Cursor // in the topic's log
	known bool
	isOld bool // unless it is known: the origin has sent it some time ago
}

func (g *greeting) configured() bool { return g.events > 0 || g.name != "" }

// greets reports whether the event after nth others of a connection is part of
// its greeting. An id alone, as a fan-out begins each connection with, is none.
func (g *greeting) greets(e *sse.Event, nth int) bool {
	if !e.HasData && nth == 0 {
		return false
	}
	return nth < g.events || g.isNamed(e)
}

// completes reports whether the greeting ends with the event after nth others with
// data.
func (g *greeting) completes(e *sse.Event, nth int) bool {
	return e.HasData && nth+1 == g.events || g.isNamed(e)
}

func (g *greeting) isNamed(e *sse.Event) bool {
	return g.name != "" && string(e.Type) == g.name
}

// add takes an event of the greeting; after is the position behind it in the
// topic's log. The first event of a greeting replaces the last one.
func (g *greeting) add(wire []byte, first bool, after hub.Cursor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if first || g.name != "" {
		g.wire = nil // subscribers may still be sending the old one
	}
	g.wire = append(g.wire, wire...)
	g.after, g.known = after, true
}

// passed records that a connection was joined after its greeting.
func (g *greeting) passed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isOld = true
}

// isMissing reports whether it is not known, and not on its way either.
func (g *greeting) isMissing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.known && g.isOld
}

// renew takes a greeting from a catch-up that was spliced at a position of the
// topic's log.
func (g *greeting) renew(log *hub.Log, after hub.Cursor) {
	var wire []byte
	for c := hub.Cursor(0); ; {
		batch := log.Read(c, nil)
		if len(batch.Bytes) == 0 {
			break
		}
		wire = append(wire, batch.Bytes...)
		c = batch.Next
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wire, g.after, g.known = wire, after, true
}

// at returns the greeting and where it ends. The position may have been passed
// by the log.
func (g *greeting) at() (wire []byte, after hub.Cursor, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clip(g.wire), g.after, g.known
}
