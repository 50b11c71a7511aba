package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

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
	log      *hub.Log
	follower *follower
	catchups *catchups
	opener   Claim // with "catchup off": of the subscriber who opened it
	greeting greeting
	runs     runs
	epoch    string // of ids that are ours, with "ids assign"
	ctx      context.Context
	cancel   context.CancelCauseFunc
	helpers  sync.WaitGroup // goroutines besides the follower's
	done     chan struct{}  // closed when the follower has ended
	roster   roster         // of its subscribers, for administrators

	renditions renditions // nil without Config.Compress

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
	opened      hub.Cursor          // where the log ended when it was first connected
	first       hub.Cursor          // where a client without a position would have begun then
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

// Reroute makes the topic ask its source whether that has moved. It ends the pause before the
// next connection, if there is one.
func (t *Topic) Reroute() {
	select {
	case t.follower.rerouted <- struct{}{}:
	default:
	}
}

// stop ends the follower and the timers of a topic that is closed.
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
	t.renditions.trim()
	if more {
		t.expireLater(max(time.Until(due), time.Second))
	}
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

// isRefused reports whether the origin has said no to those who wait.
func (t *Topic) isRefused() bool { return t.link.is(linkRefused) }

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

// signal makes those who wait look again. t.mu must be held.
func (t *Topic) signal() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Subscribers returns how many there are, those included that are yet to be admitted.
func (t *Topic) Subscribers() int { return int(t.subscribers.Load()) }

// linkOn changes the link of t. t.mu must be held.
func (t *Topic) linkOn(e linkEvent) { t.link.on(e, &links, t.misfit) }

// trustOn changes the trust of t. t.mu must be held.
func (t *Topic) trustOn(e trustEvent) { t.trust.on(e, &trusts, t.misfit) }

// standingOn changes the standing of t. relay.mu must be held.
func (t *Topic) standingOn(e standingEvent) { t.standing.on(e, &standings, t.misfit) }

// misfit records an impossible change of state.
func (t *Topic) misfit(m Misfit) { t.relay.misfit(t, m) }

// CountCompressed counts bytes that were sent, and what they were before compression.
func (t *Topic) CountCompressed(compressed, of uint64) {
	stats := t.relay.stats
	stats.Compressed.Add(compressed)
	stats.CompressedOf.Add(of)
}
