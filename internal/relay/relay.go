package relay

import (
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
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
	return &Relay{
		cfg:      cfg,
		observer: observer,
		stats:    stats,
		topics:   make(map[string]*Topic),
		closing:  make(map[string]chan struct{}),
		ledger:   quota.NewLedger[*Topic](cfg.Limits),
		backlogs: newBacklogs(&cfg),
		futile:   relayDebts{debts: debts{allowance: futileInRelay}},
	}
}

// End ends all subscribers, and takes no more.
func (r *Relay) End(e Ending) {
	r.mu.Lock()
	r.over = &e
	var busy []*Topic
	for t := range r.all.all() {
		if t.Subscribers() > 0 {
			busy = append(busy, t)
		} else {
			r.closeTopic(t)
		}
	}
	r.mu.Unlock()

	for _, t := range busy {
		t.end(e)
	}
	r.retire()
}

// retire tells once that the relay is over and that nothing is left.
func (r *Relay) retire() {
	r.mu.Lock()
	now := !r.retired && r.over != nil && r.all.len() == 0 && r.running == 0
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

// A Visit is a client that comes to share a topic.
type Visit struct {
	// Key names the topic within the relay, and Name to people.
	Key  string
	Name func() string

	// Open returns the source of a topic that is opened for this client. It is called
	// with a lock held: it must neither block nor call anything of the relay.
	Open func(t *Topic) Source

	// Barred, if set, is why no topic is opened for this client: it may join one.
	Barred error

	// Claim is what it resumes with.
	Claim Claim

	// Address is what limits and queues count it by.
	Address string

	// Audience is the index of its Words.
	Audience uint8

	// Patient clients cannot be held without the origin's word: they wait for it as
	// long as it takes.
	Patient bool

	// Gate tells whether it may share the topic. Nil: it may.
	Gate Gate
}

// A Gate tells whether a client may share a topic.
type Gate interface {
	// Judge returns why the client may not share, as an error; known is false while that
	// cannot be told. It is called again whenever something has changed (see
	// Topic.Changed), also when the client has waited for as long as it is held without a
	// word of the origin, which late says, and when it has waited for GatePatience.
	Judge(t *Topic, late, unled bool) (why error, known bool)
}

// Join returns the reader of a client that comes, of the topic for its key, which is
// opened if there is none. Whatever arrives at once, one topic is made for a key, and
// with it one connection (R2). If a limit leaves no place, it says which, and if
// Visit.Barred does not allow it, it returns that.
func (r *Relay) Join(v *Visit) (*Reader, Rejection, error) {
	reader, yielded, rejected, barred := r.joinOrOpen(v)
	if yielded != nil {
		yielded.end(Ending{Reason: EndYielded})
		r.observer.Yielded(yielded)
	}
	return reader, rejected, barred
}

// joinOrOpen does what Join does with r.mu held. If a topic with subscribers had to yield its
// place, it returns that topic, whose subscribers Join ends.
func (r *Relay) joinOrOpen(v *Visit) (_ *Reader, yielded *Topic, _ Rejection, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over != nil {
		return nil, nil, RejectEnding, nil
	}
	t := r.topics[v.Key]
	if t == nil && v.Barred != nil {
		return nil, nil, "", v.Barred
	}
	if why := r.overLimit(t, v.Address); why != "" {
		return nil, nil, why, nil
	}
	var joined hub.Cursor // whoever opens a topic has all that comes, be it at once
	if t == nil {
		var ok bool
		if yielded, ok = r.makeRoom(v.Address); !ok {
			return nil, nil, RejectTopics, nil
		}
		t = r.open(v)
	} else {
		joined = t.firstPosition(v.Claim.ID != "").Cursor
	}
	r.stopLinger(t)
	t.standingOn(standingJoined)
	t.subscribers.Add(1)
	r.ledger.Join(t.entry, v.Address)
	r.sortOut(t)
	return newReader(t, v, joined), yielded, "", nil
}

// sortOutRefused is called when the origin has said no to t.
func (r *Relay) sortOutRefused(t *Topic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sortOut(t)
}

// open makes a topic and starts its upstream. r.mu must be held.
func (r *Relay) open(v *Visit) *Topic {
	t := newTopic(r, v)
	r.topics[v.Key] = t
	t.seat = r.all.add(t)
	t.entry = r.ledger.Open(t, v.Address)

	if r.cfg.Catchups < 0 && v.Claim.Usable() && !t.assigned(v.Claim.ID) {
		t.opener = v.Claim
	}
	before := r.closing[v.Key]
	r.running++
	go func() {
		if before != nil {
			// An origin with a single worker has no place for the new
			// connection before the old one has ended.
			<-before
		}
		t.upstream.run(t.ctx)
		t.catchups.close()
		t.helpers.Wait()
		close(t.done)
		r.closed(t)
	}()
	return t
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

// closeTopic closes the upstream of a topic that has no subscribers. r.mu must
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

// closed is called when the upstream of a topic has ended.
func (r *Relay) closed(t *Topic) {
	defer r.retire()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing[t.key] == t.done {
		delete(r.closing, t.key)
	}
	r.running--
}
