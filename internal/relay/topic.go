package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
)

// A Topic is everything that shares one upstream connection.
type Topic struct {
	// Static after construction.
	relay    *Relay
	key      string
	name     string // for logs and administrators
	source   Source
	log      *hub.Topic
	upstream *upstream
	catchups *catchups
	opener   Claim // with "catchup off": of the subscriber who opened it
	greeting greeting
	runs     runs
	epoch    string // of ids that are ours, with "ids assign"
	ctx      context.Context
	cancel   context.CancelCauseFunc
	helpers  sync.WaitGroup // goroutines besides the upstream's
	done     chan struct{}  // closed when the upstream has ended
	roster   roster         // of its subscribers, for administrators

	renditions []*gzip.Rendition // of the log, by audience; nil without Config.Compress

	// Guarded by relay.mu.
	seat        *seat[Topic] // in relay.all
	standing    life[standing, standingEvent]
	subscribers atomic.Int64         // written under relay.mu
	linger      *time.Timer          // of its standing, while it lingers
	entry       *quota.Entry[*Topic] // in relay.ledger

	// ending is set once the subscribers are to be ended. It is changed by Topic.end.
	ending atomic.Pointer[Ending]

	heart    *time.Timer
	active   atomic.Int64 // when something was last sent to all, in Unix nanoseconds
	expiring atomic.Bool  // expiry is set for the oldest entry of the log

	unsettled atomic.Int32 // subscribers of whom it is not known yet what they read

	mu sync.Mutex

	// Guarded by mu.
	link        life[link, linkEvent]
	trust       life[trust, trustEvent]
	refusal     *Outcome // of its link, once that is refused
	admitted    bool     // subscribers were admitted: a no of the origin is believed after BeliefTime
	expiry      *time.Timer
	handshake   *time.Timer         // of the first connection, until it is known whether it begins a session
	changed     chan struct{}       // closed when one of the following changes
	connects    int                 // how often it was connected
	awaySince   time.Time           // when it was last disconnected, or opened
	notice      hub.Cursor          // behind the last notice of a gap in the log
	noticeID    string              // in force there
	blamedID    string              // the origin answers with a stream, but not to this id
	blamedAt    hub.Cursor          // where the log ended when that was found
	blamedSince time.Time           // when that was
	isOpened    bool                // the origin has answered with a stream to the opener's id
	openedAt    hub.Cursor          // what follows that id begins here
	header      map[string][]string // of the origin's answer, what is shared
}

func newTopic(r *Relay, v *Visit) *Topic {
	cfg := &r.cfg
	t := &Topic{
		relay:     r,
		key:       v.Key,
		name:      v.Name(),
		log:       hub.New(cfg.History),
		done:      make(chan struct{}),
		changed:   make(chan struct{}),
		awaySince: time.Now(),
	}
	if !cfg.Guarded {
		// With upstreams of its own, the operator has said what is shared: clients
		// need not wait for the first event to learn that it is not.
		t.trust.begin(trustAssumed)
	}
	t.upstream = &upstream{topic: t, rerouted: make(chan struct{}, 1)}
	t.upstream.retry.Store(-1)
	t.upstream.condition.Store(&condition{since: time.Now()})
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	t.catchups = newCatchups(t)
	t.renditions = newRenditions(cfg, t.log)
	t.greeting.events, t.greeting.name = cfg.GreetingEvents, cfg.GreetingType
	if cfg.AssignIDs {
		t.epoch = newEpoch()
	}
	t.active.Store(time.Now().UnixNano())
	if cfg.Heartbeat > 0 {
		// Set and started apart, as beat sets it anew.
		t.heart = time.AfterFunc(time.Hour, t.beat)
		t.heart.Reset(cfg.Heartbeat)
	}
	t.source = v.Open(t)
	return t
}

// Name returns what people know the topic by.
func (t *Topic) Name() string { return t.name }

// Key returns its key.
func (t *Topic) Key() string { return t.key }

// Source returns its source.
func (t *Topic) Source() Source { return t.source }

// Closing is closed when the topic needs nothing more of its source.
func (t *Topic) Closing() <-chan struct{} { return t.ctx.Done() }

// Changed makes those who wait to be admitted look again.
func (t *Topic) Changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.signal()
}

// Reroute makes the topic look whether its source has moved.
func (t *Topic) Reroute() {
	select {
	case t.upstream.rerouted <- struct{}{}:
	default:
	}
}

// SourceEnded is called when a request that Follow has left behind has ended.
func (t *Topic) SourceEnded() { t.catchups.wake() }

// stop ends the upstream and the timers of a topic that is closed.
func (t *Topic) stop() {
	t.mu.Lock()
	for _, timer := range []*time.Timer{t.heart, t.expiry, t.handshake} {
		if timer != nil {
			timer.Stop()
		}
	}
	t.mu.Unlock()
	t.cancel(ErrClosing)
}

// beat makes the subscribers send a heartbeat if the topic has been quiet, and
// comes back when that may be the case next.
func (t *Topic) beat() {
	interval := t.relay.cfg.Heartbeat
	next := interval - time.Since(time.Unix(0, t.active.Load()))
	if next <= 0 {
		t.log.Beat()
		t.active.Store(time.Now().UnixNano())
		next = interval
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isClosed() {
		t.heart.Reset(next)
	}
}

// published wakes the subscribers for what was appended to the log.
func (t *Topic) published() {
	t.active.Store(time.Now().UnixNano())
	t.log.Wake()
	t.expireLater(t.relay.cfg.History.Age)
}

// expireLater sets a timer for the oldest entry of the log, unless one is set,
// so that a topic that has gone quiet gives its memory back.
func (t *Topic) expireLater(d time.Duration) {
	if t.expiring.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isClosed() {
		t.expiry = time.AfterFunc(d, t.expire)
	}
}

func (t *Topic) expire() {
	// In this order: what is appended in between sets a timer of its own.
	t.expiring.Store(false)
	due, more := t.log.Expire()
	t.trimRenditions()
	if more {
		t.expireLater(max(time.Until(due), time.Second))
	}
}

// connected is called when the origin has answered with an event stream. It returns
// which connection of the topic that is, counted from 1, and how long the topic was without
// one. From the second on, the stream may begin with what is in the log already. id is
// that of the request, brought tells whether it came from the client that opened the
// topic, and blamed is the id of the request before, which got no stream.
func (t *Topic) connected(id string, brought bool, blamed string, o *Opening) (nth int, without time.Duration) {
	followers := t.Subscribers() - int(t.unsettled.Load())
	t.mu.Lock()
	if !t.IsConnected() {
		without = time.Since(t.awaySince)
	}
	switch {
	case brought && !t.isOpened:
		t.isOpened, t.openedAt = true, t.log.Newest().Cursor
	case t.connects > 0 && id == "", o.Gap && t.log.Newest().Cursor > 0:
		// Events may have been sent while nobody listened, and nothing tells
		// which: whoever follows the log comes past this.
		t.relay.stats.Gaps.Add(uint64(max(0, followers)))
		end := t.log.Newest()
		t.notice, t.noticeID = end.Cursor+1, end.ID
		t.log.Append(hub.Entry{Gap: true})
	}
	if blamed != "" {
		t.blamedID, t.blamedAt, t.blamedSince = blamed, t.log.Newest().Cursor, time.Now()
	}
	t.header = o.Header
	t.linkOn(linkAccepts)
	t.connects++
	nth = t.connects
	if t.trust.is(trustPending) && t.handshake == nil && !t.isClosed() {
		t.handshake = time.AfterFunc(HandshakeTime, t.trustSilent)
	}
	t.signal()
	t.mu.Unlock()

	t.log.Wake()
	if t.catchups.anyParked.Load() {
		t.catchups.unpark(false)
	} else {
		t.catchups.wake()
	}
	return nth, without
}

// noticed returns the cursor behind the last notice of a gap in the log.
func (t *Topic) noticed() hub.Cursor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.notice
}

// logEnd returns where the log ends. Its id is empty if no event has set one since the last
// notice of a gap: events are missing between an id from before and what comes next.
func (t *Topic) logEnd() hub.Position {
	end := t.log.Newest()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.notice > 0 && end.ID == t.noticeID {
		end.ID = ""
	}
	return end
}

// isNowhere reports whether the log has come to no id since it began, or since its
// last notice of a gap.
func (t *Topic) isNowhere() bool { return t.logEnd().ID == "" }

// refusedSince reports whether the origin has refused an id since the log ended at
// a cursor.
func (t *Topic) refusedSince(c hub.Cursor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blamedID != "" && t.blamedAt >= c
}

// IsConnected reports whether the shared connection is there.
func (t *Topic) IsConnected() bool { return t.link.is(linkConnected) }

// isClosed reports whether nobody has the topic any more. A timer that is set under t.mu
// unless it is so, is stopped.
func (t *Topic) isClosed() bool { return t.standing.is(standingClosed) }

// connection reports whether the topic is connected, and which connection that
// is, or was.
func (t *Topic) connection() (connected bool, connects int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.IsConnected(), t.connects
}

// disconnected is called when the nth connection has ended, which may have been
// replaced by another meanwhile.
func (t *Topic) disconnected(nth int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.IsConnected() || t.connects != nth {
		return
	}
	t.linkOn(linkEnds)
	t.awaySince = time.Now()
	t.signal()
}

// signal makes those who wait look again. t.mu must be held.
func (t *Topic) signal() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Subscribers returns how many there are, those included that are yet to be admitted.
func (t *Topic) Subscribers() int { return int(t.subscribers.Load()) }
