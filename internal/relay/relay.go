package relay

import (
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
)

// A Relay is topics by key.
type Relay struct {
	cfg      Config
	observer Observer
	stats    *Stats
	backlogs *backlogs
	futile   relayDebts // fetches that have come to nothing

	all     registry[Topic] // that are not closed
	misfits misfits

	mu sync.Mutex

	// Guarded by mu.
	topics  map[string]*Topic        // that newcomers join
	closing map[string]chan struct{} // of topics that are over, until their connection is
	ledger  *quota.Ledger[*Topic]    // of topics and subscribers
	running int                      // topics whose connection is not over
	over    *Ending                  // set once there are to be no more subscribers
	retired bool
}

// RefusalMemory is how long a no of the origin answers those who come next.
const RefusalMemory = time.Second

// New returns a relay. Its counters are those in stats.
func New(cfg Config, observer Observer, stats *Stats) *Relay {
	r := &Relay{
		cfg:      cfg,
		observer: observer,
		stats:    stats,
		topics:   make(map[string]*Topic),
		closing:  make(map[string]chan struct{}),
		ledger:   quota.NewLedger[*Topic](cfg.Limits),
		backlogs: newBacklogs(&cfg),
		futile:   relayDebts{debts: debts{allowance: futileInRelay}},
	}
	r.misfits.observer, r.misfits.told = observer, r.retire
	return r
}

// retire tells once that the relay is over and that nothing is left.
func (r *Relay) retire() {
	r.mu.Lock()
	now := !r.retired && r.over != nil && r.all.len() == 0 && r.running == 0 && !r.misfits.isTelling()
	r.retired = r.retired || now
	r.mu.Unlock()
	if now {
		r.observer.Retired()
	}
}

// IsOver reports whether End was called.
func (r *Relay) IsOver() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over != nil
}

// Topics returns the topics that newcomers would join, and those that are over for
// newcomers and still have subscribers.
func (r *Relay) Topics() (current, ending []*Topic) {
	for t := range r.all.all() {
		if t.standing.now().isCurrent() {
			current = append(current, t)
		} else {
			ending = append(ending, t)
		}
	}
	return current, ending
}

// sortOutRefused is called when the origin has said no to t.
func (r *Relay) sortOutRefused(t *Topic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sortOut(t)
}

// leave takes a subscriber off its topic.
func (r *Relay) leave(t *Topic, address string) {
	defer r.retire()
	r.mu.Lock()
	defer r.mu.Unlock()
	t.subscribers.Add(-1)
	r.ledger.Leave(t.entry, address)
	linger := r.cfg.Linger
	switch {
	case t.Subscribers() > 0:
		r.sortOut(t)
	case t.standing.now().isCurrent() && t.isRefused() && r.over == nil:
		// It gives the refusal to newcomers until RefusalMemory is over.
		t.standingOn(standingAnswers)
		r.sortOut(t)
	case !t.standing.now().isCurrent(), r.over != nil, linger < 0, t.log.Newest().Cursor == 0:
		r.closeTopic(t)
	default:
		r.startLinger(t, linger)
	}
}

// startLinger keeps a topic without subscribers for a while. If too many linger, the
// address that has opened most of these gives up the one that has lingered longest.
// r.mu must be held.
func (r *Relay) startLinger(t *Topic, d time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if t.linger == timer { // nobody has come at the same moment
			r.closeTopic(t)
		}
	})
	t.linger = timer
	t.standingOn(standingLingers)
	r.sortOut(t)
	if n, first := r.ledger.Lingering(); n > r.cfg.LingerTopics {
		r.closeTopic(first.Topic)
	}
}

// stopLinger ends the wait of a topic for its next subscriber. r.mu must be held.
func (r *Relay) stopLinger(t *Topic) {
	if t.linger != nil {
		t.linger.Stop()
		t.linger = nil
	}
}

// detach makes whoever asks for the key of t from now on open another topic, while the
// subscribers of this one stay until they are ended. how is standingDetaches or
// standingMoves.
func (r *Relay) detach(t *Topic, how standingEvent) {
	defer r.retire()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.detachTopic(t, how)
	if t.Subscribers() == 0 {
		r.closeTopic(t)
	}
}

// detachTopic is detach with r.mu held.
func (r *Relay) detachTopic(t *Topic, how standingEvent) {
	if !t.standing.now().isCurrent() {
		return
	}
	t.standingOn(how)
	r.stopLinger(t)
	r.ledger.Detach(t.entry)
	delete(r.topics, t.key)
	if how == standingMoves {
		return // its connection stays as long as its clients, for whom nobody waits
	}
	select {
	case <-t.done:
	default:
		r.closing[t.key] = t.done
	}
}

// closeTopic ends the follower of a topic that has no subscribers. r.mu must
// be held.
func (r *Relay) closeTopic(t *Topic) {
	if t.isClosed() {
		return
	}
	r.detachTopic(t, standingDetaches)
	r.all.remove(t.seat)
	t.standingOn(standingCloses)
	t.stop()
}

// closeUnused closes a topic that has no subscribers, and reports whether it has none.
func (r *Relay) closeUnused(t *Topic) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.Subscribers() > 0 {
		return false
	}
	r.closeTopic(t)
	return true
}

// closed is called when the follower of a topic has ended.
func (r *Relay) closed(t *Topic) {
	defer r.retire()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing[t.key] == t.done {
		delete(r.closing, t.key)
	}
	r.running--
}

// sortOut tells the ledger what t is in use for, which may have changed. r.mu must be held.
func (r *Relay) sortOut(t *Topic) { r.ledger.Sort(t.entry, t.use()) }

// use returns what t is in use for.
func (t *Topic) use() quota.Use {
	switch {
	case t.isRefused():
		return quota.Refused
	case t.standing.is(standingLingering):
		return quota.Lingering
	}
	return quota.InUse
}

// misfit records an impossible change of the state of t.
func (r *Relay) misfit(t *Topic, m Misfit) { r.misfits.add(t, m) }
