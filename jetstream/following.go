package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A following is one call of Follow for the shared connection of a topic: it ends where a
// connection to the origin ends, or begins, whichever node has it.
type following struct {
	*source
	call context.Context // that of the call
	ctx  context.Context // of what is done in it, which may go on when call has ended with relay.ErrIdle
	from relay.Resumption
	sink relay.Sink

	bridge    *bridge // to an event that has come, but is not given to the sink yet
	given     bool    // events were given to the sink
	unflushed int     // of these
	accepted  bool
	decided   bool
	retry     <-chan time.Time // when to look again, if nothing happens before
}

// again is the outcome of a call that another is to follow at once.
var again = relay.Outcome{Again: true}

// run follows until the call is over.
func (f *following) run() relay.Outcome {
	defer f.abandon()
	f.rejoin()
	alive := time.NewTicker(f.fleet.store.settings.Lease / 2)
	defer alive.Stop()
	done := f.call.Done()
	for lingers := false; ; {
		v := f.contest.look()
		if out, over := f.advance(v); over {
			return out
		}
		var stalled, crossed <-chan struct{}
		if f.lead != nil {
			var stall error
			if stalled, stall = f.lead.publisher.state(); stall != nil {
				stalled = nil // advance knows
			}
		}
		feed := f.feed.out
		if f.bridge != nil {
			feed, crossed = nil, f.bridge.done
		}
		select {
		case <-done:
			why := context.Cause(f.call)
			if errors.Is(why, relay.ErrIdle) && f.lead != nil && f.lead.inner != nil && !lingers {
				// The origin is silent, and may be listened to until it ends. What it has sent
				// may be on its way through the stream: it must not be asked for that again.
				f.lead.inner.cancel(why)
				done, lingers = f.topic.Closing(), true
				continue
			}
			f.pause(why)
			return relay.Outcome{Err: why}
		case <-f.ctx.Done():
			why := context.Cause(f.ctx)
			f.pause(why)
			return relay.Outcome{Err: why}
		case d := <-feed:
			if out, over := f.take(&d); over {
				return out
			}
		case <-crossed:
			if out, over := f.cross(); over {
				return out
			}
		case <-v.changed:
		case <-stalled:
		case <-f.retry:
		case <-alive.C:
			f.flush()
			if f.lead == nil {
				f.sink.Heard() // the silence of the origin is the holder's concern
			}
		}
	}
}

// advance does what is to be done in the present state of things. It reports whether the call
// is over.
func (f *following) advance(v view) (out relay.Outcome, over bool) {
	f.retry = nil
	if f.pushed != nil {
		r := f.pushed
		f.pushed = nil
		if out, over := f.dispatch(r); over {
			return out, true
		}
	}
	switch {
	case v.away || time.Now().Before(f.shunned):
		f.abdicate(errLeaseOver)
		if f.given || f.accepted {
			return again, true
		}
		f.abandon()
		return f.alone(v.err), true
	case f.lead != nil && v.reign != f.lead.reign:
		f.abdicate(errLeaseOver)
	}
	if v.reign != 0 && f.caughtUp {
		return f.rule(v)
	}
	if v.taken && f.caughtUp {
		f.inquire()
		if f.ended != nil && !f.accepted {
			out := *f.ended
			f.ended = nil
			return out, true
		}
		f.accept()
	}
	return out, false
}

// rule does what the holder of the lease is to do next.
func (f *following) rule(v view) (out relay.Outcome, over bool) {
	if f.lead == nil {
		f.lead = newLeadership(f.source, v.reign)
	}
	l := f.lead
	if pause := feedRetry - time.Since(l.failed); pause > 0 {
		f.retry = time.After(pause)
	}
	if _, stall := l.publisher.state(); stall != nil && l.mayMark() {
		if errors.Is(stall, errBehind) || l.isFutile() {
			f.fleet.store.notice("publishing", f.subject, stall)
			f.shun()
			return out, false
		}
		if err := l.mark(f.ctx, v.newest); err != nil {
			f.fleet.store.notice("marking an epoch", f.subject, err)
			l.marked, l.failed = time.Time{}, time.Now()
			f.retry = time.After(feedRetry)
		}
	}
	switch {
	case !l.ready:
		return out, false
	case l.isAsking():
		if l.publisher.progress() {
			f.shunFor = 0
		}
		f.accept()
		return out, false
	case l.inner != nil:
		return out, false // it has ended, and the message that says so is on its way
	case f.given || f.accepted:
		return again, true // the topic knows by now what to resume with
	case f.bridge != nil:
		return out, false // the stream is further than the topic
	}
	l.ask(f.resumption(), f.sink)
	return out, false
}

// shun leaves JetStream alone, because it stores nothing: the longer, the more often it has
// come to that. Meanwhile, the lease is left to others.
func (f *following) shun() {
	f.shunFor = min(max(f.fleet.store.settings.Lease, 2*f.shunFor), longestShun)
	f.shunned = time.Now().Add(f.shunFor)
	f.contest.leave(f.shunFor)
}

// longestShun bounds for how long JetStream is left alone. Each attempt costs clients the
// duration of a lease without events.
const longestShun = 5 * time.Minute

// resumption returns what the origin is asked with: the topic's id, or the stream's if the
// topic is ahead of it. A stream that has had nothing begins where the topic is.
func (f *following) resumption() relay.Resumption {
	switch {
	case f.skipTo == "" || !f.eventful:
		return f.from
	case relay.SendableID(f.lastID):
		return relay.Resumption{ID: f.lastID}
	}
	return relay.Resumption{}
}

// take takes what the feed has read.
func (f *following) take(d *delivery) (out relay.Outcome, over bool) {
	f.born = d.born
	anew := d.renewed && (f.given || f.accepted)
	if d.renewed {
		f.begin()
	}
	wasCaughtUp := f.caughtUp
	f.caughtUp = f.caughtUp || d.caughtUp && d.generation == f.generation
	if d.empty {
		if anew {
			return again, true
		}
		return out, false
	}
	if d.message.kind == kindAsked {
		if f.lead != nil && f.lead.ready {
			f.lead.publisher.add(kindStands, nil)
		}
		return out, false
	}
	if d.isStray() {
		return out, false
	}
	counts, missed := f.order.take(&d.message)
	f.gap = f.gap || missed
	if f.lead != nil {
		f.lead.hasRead(d, counts, &f.order)
	}
	if !counts {
		return out, false
	}
	if wasCaughtUp {
		f.contest.heard()
	}
	r := &read{message: &d.message, seq: d.seq, more: !d.caughtUp}
	if anew || missed && (f.given || f.accepted) {
		f.pushed = r
		return again, true
	}
	return f.dispatch(r)
}

// begin forgets what was known of a stream that is no more.
func (f *following) begin() {
	f.order, f.renewed, f.unplaced, f.open, f.ended, f.told, f.caughtUp = order{}, f.eventful, false, nil, nil, false, false
	f.parts.reset()
	if f.lead != nil {
		f.lead.renew()
	}
}

// dispatch does what a message says.
func (f *following) dispatch(r *read) (out relay.Outcome, over bool) {
	m := r.message
	if m.kind == kindOpened && (f.given || f.accepted) {
		f.pushed = r
		return again, true
	}
	var err error
	switch m.kind {
	case kindMarker:
		f.open, f.ended, f.told = nil, nil, true
		f.parts.reset()
		f.holder.Store(new(string(m.body)))
		if f.caughtUp && f.lead == nil {
			f.fleet.follows(f.source, string(m.body))
		}
	case kindResumed:
		_, f.open, err = decodeResumed(m.body)
	case kindOpened:
		var o opening
		if o, err = decodeOpening(m.body); err == nil {
			f.open, f.ended, f.told, f.endedCleanly = &o, nil, true, false
			f.gap = f.gap || o.Gap
			if f.renewed || f.skipTo != "" && f.caughtUp {
				f.compare(o.From)
			}
			f.sink.Note(relay.Note{Opened: true})
		}
	case kindBegun:
		var start relay.RunStart
		if start, err = decodeBegun(m.body); err == nil {
			f.sink.Note(relay.Note{Began: &start})
		}
	case kindRun:
		if f.skipTo == "" {
			f.tellGap() // the ids of one run say nothing of another
		}
		f.sink.Note(relay.Note{Run: true})
	case kindEvent:
		if f.renewed {
			f.compare("")
		}
		err = f.event(r)
	case kindEnded:
		out, over, err = f.end(m)
	case kindStands:
		if f.told = true; f.open == nil && len(m.body) > 0 {
			var o opening
			if o, err = decodeOpening(m.body); err == nil {
				f.open = &o
			}
		}
	case kindLeft:
		f.open = nil
		f.contest.vacated()
	default: // of a later version
	}
	if err != nil {
		f.fleet.store.notice("reading a message", f.subject, err)
	}
	return out, over
}

// event gives an event to the topic, once all its parts are there.
func (f *following) event(r *read) error {
	if err := f.assemble(r); err != nil || r.event == nil {
		return err
	}
	e := r.event
	id := relay.TrimBlanks(string(e.ID))
	if e.HasID {
		f.lastID = id
	}
	f.eventful = true
	f.place(e, id)
	f.giveUp(id)
	isHistory := f.skipTo != "" && !f.caughtUp // which says nothing of where the topic is
	if f.gap && e.HasID && id != f.skipTo && !isHistory && !r.bridged && f.mayBridge() {
		f.build(r)
		return nil
	}
	if f.skips(e, id) {
		return nil
	}
	if e.HasID || e.HasData { // a reconnection time alone has no place
		f.unplaced = false
		f.tellGap()
	}
	f.identify(e, r.seq)
	f.give(e)
	if !r.more || f.unflushed >= maxUnflushed {
		f.flush()
	}
	return nil
}

// assemble finds out which event a message is, or completes.
func (f *following) assemble(r *read) error {
	if r.event != nil {
		return nil
	}
	body, err := f.parts.add(r.message)
	if err != nil || body == nil {
		return err
	}
	e, err := decodeEvent(body)
	if err != nil {
		return err
	}
	r.event = &e
	return nil
}

// tellGap tells the topic if events are missing before what comes next. It need not have
// accepted the origin's answer yet: the gap is for those, too, who resume in front of it.
func (f *following) tellGap() {
	if f.gap {
		f.gap = false
		f.sink.Note(relay.Note{Gap: true})
	}
}

// give gives the next event to the topic.
func (f *following) give(e *sse.Event) {
	f.given = true
	f.sink.Heard()
	f.sink.Event(e)
	if e.HasData && f.accepted && !f.decided {
		f.decided = true
		f.sink.Decided(false)
	}
	f.unflushed++
}

// maxUnflushed is how many events readers may wait for at most while more come.
const maxUnflushed = 32

// flush makes readers see what has come.
func (f *following) flush() {
	f.unflushed = 0
	f.sink.Flush()
}

// Interface guards
var _ relay.Source = (*source)(nil)
