package relay

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A Snapshot is what is seen of a topic from outside, at one moment.
type Snapshot struct {
	State State
	Since time.Time // when the state, or the connection beneath it, began

	Subscribers int // that are served
	Waiting     int // that wait for the origin's first answer

	Log hub.Stats

	// Delivered counts what was written to subscribers, one event to two of them being two.
	Delivered, DeliveredBytes uint64

	Upstream UpstreamSnapshot

	// CatchupsRunning is how many fetch something, CatchupsQueued how many wait for their
	// turn or for an event, and CatchupAddresses for how many addresses.
	CatchupsRunning, CatchupsQueued, CatchupAddresses int
}

// An UpstreamSnapshot is what is seen of a topic's connection.
type UpstreamSnapshot struct {
	Address   string    // of the origin, if it is known
	Attempts  int       // in a row that have failed
	Next      time.Time // when the origin is or was asked again
	LastError string    // why the last connection has ended, if one has
	Failed    time.Time // when that was
}

// Snapshot returns what is seen of the topic now. No lock of the engine is taken, here and
// in all else that views call: nobody who looks can hold an event up.
func (t *Topic) Snapshot() Snapshot {
	c := t.follower.condition.Load()
	s := Snapshot{
		Since:    c.since,
		Log:      t.log.Stats(),
		Upstream: UpstreamSnapshot{c.address, c.attempts, c.next, c.lastError, c.failed},
	}
	s.Subscribers, s.Delivered, s.DeliveredBytes = t.roster.delivered()
	s.State = t.state()
	s.Waiting = max(0, t.Subscribers()-s.Subscribers)
	g := t.catchups
	s.CatchupsRunning, s.CatchupsQueued, s.CatchupAddresses = int(g.started.Load()), int(g.queued.Load()), int(g.asking.Load())
	return s
}

// A SubscriberSnapshot is what is seen of a subscriber from outside.
type SubscriberSnapshot struct {
	Number        uint64
	Started       time.Time
	Outcome       Joining
	Carried       bool // it was handed over
	Events, Bytes uint64

	// Lag is how many events of the topic are yet to be delivered. It is known unless the
	// subscriber gets what it has missed from a catch-up.
	Lag   uint64
	Known bool
}

// SubscriberSnapshots returns what is seen of those that are served, those first who have
// been there for longest.
func (t *Topic) SubscriberSnapshots() (all []SubscriberSnapshot) {
	newest := uint64(t.log.Newest().Cursor)
	for _, s := range t.roster.all() {
		v := SubscriberSnapshot{Number: s.number, Started: s.started, Outcome: s.Outcome(), Carried: s.IsCarried()}
		v.Events, v.Bytes = s.delivered()
		if at, ok := s.position(); ok {
			// It may have gone on since newest was read.
			v.Lag, v.Known = max(newest, at)-at, true
		}
		all = append(all, v)
	}
	return all
}

// Subscriber returns the subscriber of a number, or nil.
func (t *Topic) Subscriber(number uint64) *Subscriber { return t.roster.find(number) }

// Gauges are figures of a relay at one moment.
type Gauges struct {
	Subscribers, SubscribersWaiting int
	Topics, TopicsWaiting           int
	HistoryEvents, HistoryBytes     int
}

// AddTo adds the figures of r to g.
func (r *Relay) AddTo(g *Gauges) {
	for t := range r.all.all() {
		subscribers := t.Subscribers()
		g.Topics++
		g.Subscribers += subscribers
		if subscribers > 0 && !t.IsConnected() {
			g.TopicsWaiting++
			g.SubscribersWaiting += subscribers
		}
		log := t.log.Stats()
		g.HistoryEvents += log.Entries
		g.HistoryBytes += log.Bytes
	}
}

// Ending returns how the subscribers of the topic are to end, or nil if they are not.
func (t *Topic) Ending() *Ending { return t.ending.Load() }

// CountDelivery counts events, and bytes of them, that were delivered by whom Readers were
// handed over to.
func (t *Topic) CountDelivery(events, bytes uint64) {
	t.relay.stats.Delivered.Add(events)
	t.relay.stats.DeliveredBytes.Add(bytes)
}

// CountHeartbeats counts heartbeats that were.
func (t *Topic) CountHeartbeats(n uint64) { t.relay.stats.Heartbeats.Add(n) }

// Log returns what the readers of the topic read.
func (t *Topic) Log() *hub.Log { return t.log }

// Words returns what an audience is told besides events.
func (t *Topic) Words(audience uint8) *Words { return &t.relay.cfg.Words[audience] }

// A State puts what a topic is doing in a word.
type State string

const (
	StateOpening      State = "opening"      // it has not been connected yet
	StateConnected    State = "connected"    // the origin sends
	StateReconnecting State = "reconnecting" // the connection is lost
	StateLingering    State = "lingering"    // there are no subscribers
	StateRefused      State = "refused"      // the origin has said no
	StateEnding       State = "ending"       // newcomers do not join it
)

// state returns what a topic is doing.
func (t *Topic) state() State {
	link, standing := t.link.now(), t.standing.now()
	switch {
	case t.ending.Load() != nil, !standing.isCurrent():
		return StateEnding
	case link == linkRefused:
		return StateRefused
	case standing == standingLingering:
		return StateLingering
	case link == linkConnected:
		return StateConnected
	case link == linkAway:
		return StateReconnecting
	}
	return StateOpening
}
