package jetstream

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A source is the source of a topic on one node of a fleet. What it gives to the topic comes
// from the stream, and the stream gets it from the origin by the one node that holds the
// topic's lease. If JetStream is away, the source asks the origin itself.
type source struct {
	// Static after construction.
	fleet   *Fleet
	origin  relay.Source
	topic   fleet.Topic
	subject string
	feed    *feed
	contest *candidate

	holder atomic.Pointer[string] // the node whose marker was read last

	mu sync.Mutex

	// Guarded by mu.
	hasBegun bool
	isOver   bool
	calls    sync.WaitGroup // of Follow for the shared connection; added to under mu

	state // owned by the call of Follow for the shared connection
}

// A state is what a source knows of the stream, from one call of Follow to the next.
type state struct {
	order        order
	born         uint64 // when the stream was made, in Unix nanoseconds
	parts        assembler
	generation   uint64         // of deliveries that count for caughtUp
	caughtUp     bool           // everything that the stream had was read
	pushed       *read          // what was read, and is for the next call
	open         *opening       // of the connection to the origin, as far as read
	ended        *relay.Outcome // of the last one, if that is the newest that is known of it
	endedCleanly bool           // as a stream should end, did the last one
	told         bool           // what was read tells whether there is a connection to the origin
	asked        time.Time      // when the holder was asked for that
	lastID       string         // in force at the place that was read
	eventful     bool           // the stream has brought events
	gap          bool           // events are missing before what comes next
	renewed      bool           // the stream was made anew, and it is not known yet whether any are
	unplaced     bool           // as renewed, and its first event with an id is to tell
	isApart      bool           // the topic has had events that the stream has not brought
	skipAll      bool           // what the stream has so far, the topic may have had
	skipTo       string         // the id behind which the stream has what the topic has not
	skipUntil    time.Time      // when that is given up; zero until an event has come
	lead         *leadership    // while this node holds the lease
	shunned      time.Time      // until when JetStream is left alone
	shunFor      time.Duration  // how long it was at last, or 0
}

// A read is a message that counts.
type read struct {
	message *message
	seq     uint64
	more    bool       // another one comes at once
	event   *sse.Event // that it is, or completes, once that is known
	bridged bool       // a bridge to it has been tried
}

// Source implements fleet.Fleet. The node asks origin if it holds the topic's lease, or if
// JetStream is away.
func (f *Fleet) Source(t fleet.Topic, origin relay.Source) relay.Source {
	name := f.store.secret.topicName(t.Definition, t.Key())
	s := &source{fleet: f, origin: origin, topic: t, subject: subject(f.store.name, name)}
	s.feed = newFeed(f.store, s.subject)
	s.contest = newCandidate(&lease{
		bucket:   f.store.leases,
		key:      name,
		owner:    f.node + " " + rand.Text(),
		duration: f.store.settings.Lease,
		now:      f.store.now,
	}, s.feed.trouble, f.store.reopen, t.Reroute)
	if time.Since(f.began) > f.store.settings.Lease && f.store.checkServer() != nil {
		s.contest.contact = time.Time{} // nobody needs to wait until that is noticed
	}
	s.parts.limit = int(t.MaxEventSize) + eventOverhead
	return s
}

// eventOverhead is how much longer than its fields an encoded event is at most.
const eventOverhead = 32

// Follow implements relay.Source.
func (s *source) Follow(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	if !sink.Shared() {
		return s.catchUp(ctx, from, sink)
	}
	if !s.enter() {
		return relay.Outcome{Err: relay.ErrClosing}
	}
	defer s.leave()
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(s.fleet.ctx, func() { end(relay.ErrClosing) })()
	f := &following{source: s, call: ctx, ctx: life, from: from, sink: sink}
	return f.run()
}

// enter begins a call of Follow, unless the fleet is over.
func (s *source) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver {
		return false
	}
	if !s.hasBegun {
		s.hasBegun = true
		s.fleet.helpers.Go(s.live)
	}
	s.calls.Add(1)
	s.contest.want(true)
	return true
}

func (s *source) leave() {
	s.contest.want(false)
	s.calls.Done()
}

// live reads the stream and contests the lease until the topic is over.
func (s *source) live() {
	s.fleet.add(s)
	defer s.fleet.remove(s)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var helpers sync.WaitGroup
	helpers.Go(func() { s.contest.run(ctx) })
	helpers.Go(func() { s.feed.run(ctx) })
	select {
	case <-s.topic.Closing():
	case <-s.fleet.ctx.Done():
	}
	s.mu.Lock()
	s.isOver = true
	s.mu.Unlock()
	s.calls.Wait()
	if s.lead != nil {
		s.lead.farewell()
		s.lead.close(errLeaseOver)
	}
	cancel()
	helpers.Wait()
}

// role returns what this node is for the topic.
func (s *source) role() fleet.Role {
	switch v := s.contest.look(); {
	case v.away:
		return fleet.Apart
	case v.reign != 0:
		return fleet.Holder
	}
	return fleet.Follower
}

// Abandoned implements relay.Source.
func (s *source) Abandoned() int { return s.origin.Abandoned() }

// Moved implements relay.Source. A fleet is for handlers with upstreams of their own, whose
// connections go on when the configuration changes.
func (s *source) Moved() bool { return false }

// LeftBehind implements relay.Source.
func (s *source) LeftBehind() bool { return s.origin.LeftBehind() }

// identify gives an event an id if it has none and is to have one. It is the same on all
// nodes.
func (s *source) identify(e *sse.Event, seq uint64) {
	if s.topic.AssignIDs && e.HasData && !e.HasID {
		id := relay.AssignedPrefix + strconv.FormatInt(s.feed.born(), 36) + "-" + strconv.FormatUint(seq, 36)
		e.HasID, e.ID = true, []byte(id)
	}
}
