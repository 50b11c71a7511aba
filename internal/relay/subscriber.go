package relay

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A Subscriber is one client of a topic, and all that is kept of it however it is
// served: through a Reader, until it is handed over, and then through a Carriage. There is
// one for every client: it is laid out to be small.
type Subscriber struct {
	// Static after construction.
	number  uint64 // names it to administrators
	topic   *Topic
	address string // that it is counted by
	started time.Time

	seat      *seat[Subscriber] // in the topic's roster, once it is served
	bystander bool              // it has not brought the id that the topic was opened with
	audience  uint8

	outcome atomic.Int32 // a Joining

	reader  atomic.Pointer[Reader]
	carried atomic.Pointer[Carriage]
}

// lastSubscriber is the number of the newest subscriber of the process.
var lastSubscriber atomic.Uint64

func newSubscriber(t *Topic, address string, audience uint8) *Subscriber {
	s := &Subscriber{
		number:   lastSubscriber.Add(1),
		topic:    t,
		address:  address,
		audience: audience,
		started:  time.Now(),
	}
	s.outcome.Store(int32(Pending))
	return s
}

// delivered returns how many events, and bytes of them, the client has got.
func (s *Subscriber) delivered() (events, bytes uint64) {
	if k := s.carried.Load(); k != nil {
		events, bytes, _ = (*k).Progress()
		return events, bytes
	}
	if served := s.reader.Load(); served != nil {
		return served.events.Load(), served.bytes.Load()
	}
	return 0, 0
}

// position returns the cursor of s, unless it reads something else than its
// topic's log: a catch-up, or nothing yet.
func (s *Subscriber) position() (cursor uint64, ok bool) {
	if k := s.carried.Load(); k != nil {
		_, _, at := (*k).Progress()
		return uint64(at), true
	}
	if served := s.reader.Load(); served != nil {
		return served.position()
	}
	return 0, false
}

// End ends s between two events, for an administrator.
func (s *Subscriber) End() {
	if served := s.reader.Load(); served != nil {
		// In this order: Next sets the timer before it looks at the flag. If it
		// hands over instead, it looks at the flag after that.
		served.deleted.Store(true)
		served.timer.Reset(0)
	}
	if k := s.carried.Load(); k != nil {
		(*k).End(EndDeleted)
	}
}

// hurry shortens a write that is under way, for the process exits.
func (s *Subscriber) hurry() {
	if served := s.reader.Load(); served != nil {
		served.carrier.Hurry()
	}
}

// Farewell returns what the client is told when its stream ends. Where many end at
// once, each is told a different time to come back. Where the origin has ended the stream,
// its own word holds.
func (s *Subscriber) Farewell(reason EndReason) []byte {
	if !s.words().Primer || reason == EndUpstreamEnded {
		return nil
	}
	if reason == EndYielded {
		return append(AppendRetryField(nil, TurnAwayDelay()), '\n')
	}
	e := s.topic.ending.Load()
	if (e == nil || reason != e.Reason) && reason != EndDrained {
		return nil
	}
	retry := s.topic.reconnectionTime() + rand.N(s.topic.relay.cfg.Spread+1)
	return append(AppendRetryField(nil, retry), '\n')
}

// Clients that are turned away come back at different times.
const (
	turnAwayMin = 5 * time.Second
	turnAwayMax = 30 * time.Second
)

// TurnAwayDelay returns when a client that is turned away should come back, which differs
// for each.
func TurnAwayDelay() time.Duration { return turnAwayMin + rand.N(turnAwayMax-turnAwayMin) }

// ended takes note of how the stream has ended.
func (s *Subscriber) ended(reason EndReason, events, bytes uint64) {
	r := s.topic.relay
	r.stats.Ended.Count(reason)
	r.observer.Left(s, Left{Reason: reason, Events: events, Bytes: bytes})
}

// Leave is called when a client that was handed over has ended.
func (s *Subscriber) Leave(reason EndReason, events, bytes uint64) {
	s.ended(reason, events, bytes)
	s.topic.roster.leave(s)
	s.topic.relay.leave(s.topic, s.address)
}

// IsCarried reports whether the client was handed over.
func (s *Subscriber) IsCarried() bool { return s.carried.Load() != nil }

// Topic returns its topic.
func (s *Subscriber) Topic() *Topic { return s.topic }

// Audience returns the index of its Words.
func (s *Subscriber) Audience() uint8 { return s.audience }

// Number names it to administrators.
func (s *Subscriber) Number() uint64 { return s.number }

// Started returns when it has joined its topic.
func (s *Subscriber) Started() time.Time { return s.started }

// Outcome returns how it has begun.
func (s *Subscriber) Outcome() Joining { return Joining(s.outcome.Load()) }

// Delivered returns how many events, and bytes of them, the client has got.
func (s *Subscriber) Delivered() (events, bytes uint64) { return s.delivered() }

// words returns what s is told besides events.
func (s *Subscriber) words() *Words { return &s.topic.relay.cfg.Words[s.audience] }

// A Carriage is a client that was handed over: whoever carries it reads the log alone.
type Carriage interface {
	// Progress returns what was delivered, and where in the log the client is.
	Progress() (events, bytes uint64, at hub.Cursor)

	// End ends the client between two events.
	End(reason EndReason)
}
