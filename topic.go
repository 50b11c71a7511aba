package ssefanout

import (
	"container/list"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A topic is everything that shares one upstream connection.
type topic struct {
	// Static after construction.
	pool     *pool
	key      string
	name     string // for logs and administrators
	request  *topicRequest
	log      *hub.Topic
	upstream *upstream
	catchups *catchups
	opener   claim // with "catchup off": of the subscriber who opened it
	greeting greeting
	epoch    string // of ids that are ours, with "ids assign"
	ctx      context.Context
	cancel   context.CancelCauseFunc
	helpers  sync.WaitGroup // goroutines besides the upstream's
	done     chan struct{}  // closed when the upstream has ended
	roster   roster         // of its subscribers, for administrators

	// abandoned counts sources that nobody listens to any more, and that have not
	// noticed: each holds a place at the origin.
	abandoned atomic.Int32

	// Guarded by pool.mu.
	subscribers int
	addresses   map[string]int // of the subscribers, and how many there are of each
	openedBy    string         // the client address that the topic counts for: the one that has opened it, or one that has stayed
	moved       bool           // its clients are led elsewhere (see detachMoved)
	linger      *time.Timer    // set while the topic lingers
	spare       spareKind      // why the topic may be closed to make room
	spareAt     *list.Element  // in its opener's list of this kind
	spareSince  uint64         // orders the topics of a kind

	// ending is set once the subscribers are to be ended.
	ending atomic.Pointer[ending]

	heart    *time.Timer
	active   atomic.Int64 // when something was last sent to all, in Unix nanoseconds
	expiring atomic.Bool  // expiry is set for the oldest entry of the log

	unsettled atomic.Int32 // subscribers of whom it is not known yet what they read

	mu sync.Mutex

	// Guarded by mu.
	stopped     bool
	expiry      *time.Timer
	trust       *time.Timer   // of the first connection
	changed     chan struct{} // closed when one of the following changes
	isConnected bool
	connects    int        // how often it was connected
	awaySince   time.Time  // when it was last disconnected, or opened
	admitted    bool       // subscribers were accepted: a no of the origin ends nothing at once
	trusted     bool       // no session is expected any more, as a new topic of the wrapping form does
	eventful    bool       // events have come, and were shared
	personal    bool       // a connection has begun a session, and the topic is about to end
	notice      hub.Cursor // behind the last notice of a gap in the log
	noticeID    string     // in force there
	blamedID    string     // the origin answers with a stream, but not to this id
	blamedAt    hub.Cursor // where the log ended when that was found
	isOpened    bool       // the origin has answered with a stream to the opener's id
	openedAt    hub.Cursor // what follows that id begins here
	refusal     *refusal
	header      http.Header  // of the origin's answer, what is shared
	homes       homes        // wrapping form
	via         home         // that the last connection has come through
	runs        []hub.Cursor // where the origin has begun its stream anew, as far as the log reaches
}

// An ending tells subscribers to end.
type ending = direct.Ending

// An endReason says why a subscriber's stream ended. It is a metric label.
type endReason = direct.Reason

const (
	endClientGone              = direct.ClientGone   // the client has closed its connection
	endSlow                    = direct.Slow         // the log has passed its cursor
	endStalled                 = direct.Stalled      // a write made no progress for dispatch_timeout
	endTimeout       endReason = "stream_timeout"    // its time was over
	endUpstreamEnded endReason = "upstream_ended"    // with on_end close
	endUpstreamGone  endReason = "upstream_gone"     // the origin answered 204
	endRefused       endReason = "upstream_refuse"   // the origin has said no for a minute
	endDrained       endReason = "drained"           // its handler was changed or removed
	endExiting       endReason = "exiting"           // Caddy exits
	endDeleted       endReason = "deleted"           // by an administrator
	endPersonal      endReason = "upstream_personal" // the origin has said that its stream is not for all
	endYielded       endReason = "max_topics"        // its topic has made room for that of another client
)

func newTopic(p *pool, key string, req *topicRequest, openedBy string) *topic {
	t := &topic{
		pool:     p,
		key:      key,
		name:     req.publicName(key),
		openedBy: openedBy,
		request:  req,
		log: hub.New(hub.Limits{
			Events: p.opts.History.Events,
			Bytes:  int(p.opts.History.Size),
			Age:    time.Duration(p.opts.History.Age),
		}),
		addresses: make(map[string]int, 1),
		done:      make(chan struct{}),
		changed:   make(chan struct{}),
		awaySince: time.Now(),
		// With upstreams of its own, the operator has said what is shared: clients
		// need not wait for the first event to learn that it is not.
		trusted: !p.opts.wrapping,
	}
	t.upstream = &upstream{topic: t, rerouted: make(chan struct{}, 1)}
	t.upstream.retry.Store(-1)
	t.upstream.condition.Store(&condition{since: time.Now()})
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	t.catchups = newCatchups(t)
	t.greeting.events, t.greeting.name = parseGreeting(p.opts.Greeting)
	if p.opts.IDs == "assign" {
		t.epoch = newEpoch()
	}
	t.active.Store(time.Now().UnixNano())
	if interval := time.Duration(p.opts.Heartbeat.Interval); interval > 0 {
		// Set and started apart, as beat sets it anew.
		t.heart = time.AfterFunc(time.Hour, t.beat)
		t.heart.Reset(interval)
	}
	return t
}

// stop ends the upstream and the timers.
func (t *topic) stop() {
	t.mu.Lock()
	t.stopped = true
	for _, timer := range []*time.Timer{t.heart, t.expiry, t.trust} {
		if timer != nil {
			timer.Stop()
		}
	}
	t.mu.Unlock()
	t.cancel(errTopicClosing)
}

// beat makes the subscribers send a heartbeat if the topic has been quiet, and
// comes back when that may be the case next.
func (t *topic) beat() {
	interval := time.Duration(t.pool.opts.Heartbeat.Interval)
	next := interval - time.Since(time.Unix(0, t.active.Load()))
	if next <= 0 {
		t.log.Beat()
		t.active.Store(time.Now().UnixNano())
		next = interval
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.heart.Reset(next)
	}
}

// published wakes the subscribers for what was appended to the log.
func (t *topic) published() {
	t.active.Store(time.Now().UnixNano())
	t.log.Wake()
	t.expireLater(time.Duration(t.pool.opts.History.Age))
}

// expireLater sets a timer for the oldest entry of the log, unless one is set,
// so that a topic that has gone quiet gives its memory back.
func (t *topic) expireLater(d time.Duration) {
	if t.expiring.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.expiry = time.AfterFunc(d, t.expire)
	}
}

func (t *topic) expire() {
	// In this order: what is appended in between sets a timer of its own.
	t.expiring.Store(false)
	if due, more := t.log.Expire(); more {
		t.expireLater(max(time.Until(due), time.Second))
	}
}

// connected is called when the origin has answered with an event stream. It returns
// which connection of the topic that is, counted from 1, and for how long the topic
// was without. From the second on, the stream may begin with what is in the log
// already. id is what the origin was asked with, brought whether that is the opener's,
// and blamed what it had been asked with before, to which it has not answered so.
func (t *topic) connected(id string, brought bool, blamed string, header http.Header, via home) (nth int, without time.Duration) {
	followers := t.subscriberCount() - int(t.unsettled.Load())
	t.mu.Lock()
	if !t.isConnected {
		without = time.Since(t.awaySince)
	}
	switch {
	case brought && !t.isOpened:
		t.isOpened, t.openedAt = true, t.log.Newest().Cursor
	case t.connects > 0 && id == "":
		// Events may have been sent while nobody listened, and nothing tells
		// which: whoever follows the log comes past this.
		t.pool.stats.gaps.Add(uint64(max(0, followers)))
		end := t.log.Newest()
		t.notice, t.noticeID = end.Cursor+1, end.ID
		t.log.Append(hub.Entry{Gap: true})
	}
	if blamed != "" {
		t.blamedID, t.blamedAt = blamed, t.log.Newest().Cursor
	}
	t.header = header
	t.via = via
	t.isConnected = true
	t.connects++
	nth = t.connects
	if !t.trusted && t.trust == nil && !t.stopped {
		t.trust = time.AfterFunc(handshakeTime, t.trustSilent)
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
func (t *topic) noticed() hub.Cursor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.notice
}

// logEnd returns where the log ends. It has no id if the log has come to none since
// its last notice of a gap: what came before is no neighbour of what comes next.
func (t *topic) logEnd() hub.Position {
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
func (t *topic) isNowhere() bool { return t.logEnd().ID == "" }

// refusedSince reports whether the origin has refused an id since the log ended at
// a cursor.
func (t *topic) refusedSince(c hub.Cursor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.blamedID != "" && t.blamedAt >= c
}

func (t *topic) connectedNow() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isConnected
}

// connection reports whether the topic is connected, and which connection that
// is, or was.
func (t *topic) connection() (connected bool, connects int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isConnected, t.connects
}

// disconnected is called when the nth connection has ended, which may have been
// replaced by another meanwhile.
func (t *topic) disconnected(nth int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isConnected || t.connects != nth {
		return
	}
	t.isConnected, t.awaySince = false, time.Now()
	t.signal()
}

// refuse gives those who wait for the first answer the origin's no. It reports
// false if subscribers were accepted already, whom a no does not end at once.
func (t *topic) refuse(out *outcome) bool {
	t.mu.Lock()
	if t.admitted || t.connects > 0 {
		t.mu.Unlock()
		return false
	}
	if out.isPersonal(t.pool.opts) {
		t.mu.Unlock()
		t.restrict(out)
		return true
	}
	t.refusal = &out.refusal
	t.signal()
	t.mu.Unlock()

	switch out.verdict {
	case verdictElsewhere:
		t.pool.detach(t)
	case verdictNotStream:
		if out.unhandled {
			t.pool.explainNothingBehind(t)
		}
		t.pool.passing.remember(t.key, passNotStream, notStreamMemory)
		t.pool.detach(t)
	default:
		t.pool.refused(t)
		time.AfterFunc(refusalMemory, func() { t.pool.detach(t) })
	}
	return true
}

func (t *topic) isRefused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusal != nil
}

// signal makes those who wait look again. t.mu must be held.
func (t *topic) signal() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// end ends the subscribers. On exit, or for an administrator, it hurries those
// who are ending already.
func (t *topic) end(e ending) {
	if e.Reason == endExiting {
		e.Grace = exitGrace
	}
	if !t.ending.CompareAndSwap(nil, &e) {
		if e.Reason != endExiting && e.Reason != endDeleted {
			return
		}
		t.ending.Store(&e)
	}
	t.mu.Lock()
	t.signal()
	t.mu.Unlock()
	t.log.Wake()
	if e.Reason == endExiting {
		for _, s := range t.roster.all() {
			s.hurry()
		}
	}
}

// conclude ends the subscribers of a topic whose upstream is over. Clients that come
// back open another.
func (t *topic) conclude(e ending) {
	if e.Reason == endDrained {
		t.pool.detachMoved(t)
	} else {
		t.pool.detach(t)
	}
	t.end(e)
}

func (t *topic) subscriberCount() int {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.subscribers
}
