package jetstream

import (
	"bytes"
	"context"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A bridge fetches what the stream has not: the events between the last one that the topic has
// and one that has come from the stream. The stream was made anew, it has dropped what this
// node had not read, or a holder had no id to ask the origin with. The origin may have them.
type bridge struct {
	following *following
	cancel    context.CancelFunc
	to        string // the id of the event that has come
	limit     int    // of bytes

	events []sse.Event // that come before it
	bytes  int
	met    bool // it has come here, too
}

const (
	// bridgeLeases is how many durations of a lease a bridge may take. Meanwhile, nothing that
	// the stream brings is given to the topic.
	bridgeLeases = 2

	// bridgeBytes is how much a bridge may bring, besides the largest event.
	bridgeBytes = 8 << 20
)

// mayBridge reports whether the origin can be asked for what follows the last event that the
// topic has. A call of Follow that has given the topic anything ends before events are missing.
func (f *following) mayBridge() bool { return !f.topic.AssignIDs && f.topic.MayFetch(f.from.ID) }

// bridges reports whether the topic has been given all that is between its last event and one
// with an id that has come from the stream. If not, it was given nothing.
func (f *following) bridges(e *sse.Event, id string) bool {
	if !e.HasID || !f.mayBridge() {
		return false
	}
	ctx, cancel := context.WithTimeout(f.ctx, bridgeLeases*f.fleet.store.settings.Lease)
	defer cancel()
	b := &bridge{following: f, cancel: cancel, to: id, limit: bridgeBytes + int(f.topic.MaxEventSize)}
	f.sink.Heard()
	f.ask(ctx, relay.Resumption{ID: f.from.ID}, &acceptor{Sink: b})
	f.fleet.bridged(f.source, len(b.events), b.met)
	if !b.met {
		return false
	}
	for i := range b.events {
		f.give(&b.events[i])
	}
	return true
}

// Shared implements relay.Sink.
func (*bridge) Shared() bool { return false }

// Heard implements relay.Sink.
func (b *bridge) Heard() { b.following.sink.Heard() }

// Accept implements relay.Sink.
func (*bridge) Accept(relay.Opening) (tell func()) { return nil }

// Event implements relay.Sink.
func (b *bridge) Event(e *sse.Event) {
	if b.met || b.bytes > b.limit || !e.HasID && !e.HasData {
		return
	}
	if e.HasID && relay.TrimBlanks(string(e.ID)) == b.to {
		b.met = true
		b.cancel()
		return
	}
	kept := *e
	kept.ID, kept.Type, kept.Data = bytes.Clone(e.ID), bytes.Clone(e.Type), bytes.Clone(e.Data)
	b.events = append(b.events, kept)
	if b.bytes += len(e.ID) + len(e.Type) + len(e.Data) + eventOverhead; b.bytes > b.limit {
		b.cancel()
	}
}

// Note implements relay.Sink.
func (*bridge) Note(relay.Note) {}

// Decided implements relay.Sink.
func (*bridge) Decided(bool) {}

// Flush implements relay.Sink.
func (*bridge) Flush() {}

// Interface guards
var _ relay.Sink = (*bridge)(nil)
