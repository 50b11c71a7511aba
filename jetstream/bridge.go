package jetstream

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A bridge fetches what the stream has not: the events between the last one that the topic has
// and one that has come from the stream. The stream was made anew, it has dropped what this
// node had not read, or a holder had no id to ask the origin with. The origin may have them.
//
// Meanwhile, nothing that the stream brings is given to the topic.
type bridge struct {
	// Static after construction.
	source *source
	from   string // the id of the topic's last event
	to     *read  // the event that has come
	end    context.CancelFunc
	done   chan struct{} // closed when it is known what has come of it

	// Owned by run until done is closed.
	fetch  context.CancelCauseFunc
	events []sse.Event // that come between
	bytes  int
	met    bool // the event that has come from the stream has come from the origin, too
	late   bool // it has not, though the origin has sent what follows the topic's last event
}

const (
	// bridgeTime is how long a bridge may take: the origin may be away.
	bridgeTime = 30 * time.Second

	// bridgePause is how long to wait before the origin is asked again.
	bridgePause = 500 * time.Millisecond

	// bridgeBytes is how much a bridge may bring, besides the largest event.
	bridgeBytes = 8 << 20
)

// Why a fetch of a bridge has ended.
var (
	errBridgeMet  = errors.New("the origin has sent all that was missing")
	errBridgeLate = errors.New("the origin has not come to the event in time")
	errBridgeFull = errors.New("the origin has sent more than may be missing")
)

// mayBridge reports whether the origin can be asked for what follows the last event that the
// topic has. A call of Follow that has given the topic anything ends before events are missing.
func (f *following) mayBridge() bool { return !f.topic.AssignIDs && f.topic.MayFetch(f.from.ID) }

// build begins a bridge to an event with an id.
func (f *following) build(to *read) {
	ctx, cancel := context.WithTimeout(f.ctx, bridgeTime)
	b := &bridge{source: f.source, from: f.from.ID, to: to, end: cancel, done: make(chan struct{})}
	f.bridge = b
	go func() {
		defer close(b.done)
		defer cancel()
		b.run(ctx)
	}()
}

// cross gives the topic what a bridge has brought, and the event behind it.
func (f *following) cross() (out relay.Outcome, over bool) {
	b := f.bridge
	f.bridge = nil
	f.fleet.bridged(f.source, len(b.events), b.met)
	b.to.bridged = true
	switch {
	case b.met:
		f.gap, f.skipTo = false, ""
		for i := range b.events {
			f.give(&b.events[i])
		}
	case f.skipTo != "":
		f.gap = false // the topic may still be ahead
	case f.unplaced && b.late:
		f.gap = false // it is: the event came so long ago that the topic's log has lost it
		f.skipBehind(f.from.ID)
	}
	f.unplaced = false
	return f.dispatch(b.to)
}

// abandon leaves the bridge, if there is one, to the next call of Follow.
func (f *following) abandon() {
	if f.bridge != nil {
		f.bridge.end()
		<-f.bridge.done
		f.pushed, f.bridge = f.bridge.to, nil
	}
}

// run asks the origin until it has come to the event, or will not.
func (b *bridge) run(ctx context.Context) {
	for {
		b.events, b.bytes = nil, 0
		if b.ask(ctx) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(bridgePause):
		}
	}
}

// ask asks the origin, and reports whether there is no use in asking it again.
func (b *bridge) ask(ctx context.Context) (settled bool) {
	ctx, b.fetch = context.WithCancelCause(ctx)
	defer b.fetch(nil)
	out := b.source.ask(ctx, relay.Resumption{ID: b.from}, &acceptor{Sink: b})
	why := context.Cause(ctx)
	b.late = errors.Is(why, errBridgeLate)
	if b.met || b.late || errors.Is(why, errBridgeFull) {
		return true
	}
	return out.Verdict != relay.Unavailable && out.Verdict != relay.Stream
}

// Accept implements relay.Sink. The origin has had the event for some time: it comes soon.
func (b *bridge) Accept(relay.Opening) (tell func()) {
	fetch := b.fetch
	time.AfterFunc(b.source.fleet.store.settings.Lease, func() { fetch(errBridgeLate) })
	return nil
}

// Event implements relay.Sink.
func (b *bridge) Event(e *sse.Event) {
	if b.met || !e.HasID && !e.HasData {
		return
	}
	id := relay.TrimBlanks(string(e.ID))
	if e.HasID && id == relay.TrimBlanks(string(b.to.event.ID)) {
		b.met = true
		b.fetch(errBridgeMet)
		return
	}
	if e.HasID && b.source.topic.Has(id) {
		// The origin has ignored the id, and begins with what was there before.
		b.events, b.bytes = nil, 0
		return
	}
	kept := *e
	kept.ID, kept.Type, kept.Data = bytes.Clone(e.ID), bytes.Clone(e.Type), bytes.Clone(e.Data)
	b.events = append(b.events, kept)
	b.bytes += len(e.ID) + len(e.Type) + len(e.Data) + eventOverhead
	if b.bytes > bridgeBytes+int(b.source.topic.MaxEventSize) {
		b.events = nil
		b.fetch(errBridgeFull)
	}
}

// Shared implements relay.Sink.
func (*bridge) Shared() bool { return false }

// Heard implements relay.Sink.
func (*bridge) Heard() {}

// Note implements relay.Sink.
func (*bridge) Note(relay.Note) {}

// Decided implements relay.Sink.
func (*bridge) Decided(bool) {}

// Flush implements relay.Sink.
func (*bridge) Flush() {}

// Interface guards
var _ relay.Sink = (*bridge)(nil)
