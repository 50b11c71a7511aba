package jetstream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A leadership is the time in which a node holds the lease of a topic: it marks its epoch in
// the stream, and then publishes what the origin sends. It has several epochs if the stream
// loses messages.
type leadership struct {
	// Static after construction.
	source    *source
	reign     uint64
	publisher *publisher
	stop      context.CancelFunc
	helpers   sync.WaitGroup

	// Owned by the call of Follow for the shared connection.
	epoch  epoch
	term   uint64
	marked time.Time // when the epoch's marker was published, if it was not read yet
	failed time.Time // when a marker was last not published
	ready  bool      // a marker was read
	futile time.Time // since when no epoch has got a message stored
	inner  *asking   // a connection to the origin, until the stream says that it has ended
}

// An asking is one connection to the origin.
type asking struct {
	cancel  context.CancelCauseFunc
	sink    atomic.Pointer[relay.Sink] // of the present call of Follow
	done    chan struct{}              // closed when outcome is set
	outcome relay.Outcome
}

const (
	// queueBytes is how much may wait to be stored, besides two of the largest events.
	queueBytes = 8 << 20

	// headerBytes is what the header of a message takes of max_payload at most.
	headerBytes = 512

	// farewellTime is how long a holder that leaves may take to have everything stored.
	farewellTime = time.Second
)

func newLeadership(s *source, reign uint64) *leadership {
	limit := queueBytes + 2*int(s.topic.MaxEventSize)
	l := &leadership{
		source: s,
		reign:  reign,
		term:   max(s.order.at.epoch.term, s.born),
		publisher: newPublisher(s.fleet.store.js, s.subject, func() bool {
			return s.contest.look().reign == reign
		}, limit),
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.helpers.Go(func() { l.publisher.run(ctx) })
	e := &errands{source: s, byFrom: make(map[relay.Resumption]*errand)}
	l.helpers.Go(func() { e.serve(ctx) })
	return l
}

// mayMark reports whether a marker may be published: none is on its way, nor has one failed a
// moment ago.
func (l *leadership) mayMark() bool {
	isMarking := !l.marked.IsZero() && time.Since(l.marked) < l.source.fleet.store.settings.Lease
	return !isMarking && time.Since(l.failed) >= feedRetry
}

// isFutile reports whether the stream has stored nothing for the duration of a lease.
func (l *leadership) isFutile() bool {
	return !l.futile.IsZero() && time.Since(l.futile) >= l.source.fleet.store.settings.Lease
}

// mark begins an epoch with the newest revision of the lease. If that revision has had an
// epoch, mark renews the lease first. NATS may have stored the marker although mark returns an
// error: then the nodes read it, and it counts.
func (l *leadership) mark(ctx context.Context, newest uint64) error {
	e := epoch{l.term, newest}
	if !l.epoch.less(e) {
		l.source.contest.nudge()
		return nil
	}
	if _, stall := l.publisher.state(); l.epoch == (epoch{}) {
		l.source.fleet.leads(l.source)
	} else if l.ready {
		l.source.fleet.stalled(l.source, stall)
	}
	if l.publisher.progress() {
		l.futile = time.Time{}
	} else if l.futile.IsZero() {
		l.futile = time.Now()
	}
	ctx, cancel := context.WithDeadline(ctx, l.source.contest.lease.deadline())
	defer cancel()
	l.epoch, l.ready, l.marked = e, false, time.Now()
	return l.publisher.marker(ctx, e, l.source.fleet.node)
}

// hasRead is called for each message that was read, and whether it counts. The leadership is
// ready once its marker is.
func (l *leadership) hasRead(d *delivery, counts bool, o *order) {
	if d.message.kind != kindMarker || d.message.epoch != l.epoch || l.marked.IsZero() {
		return
	}
	l.marked = time.Time{}
	if !counts {
		// The bucket of the leases was made anew, and its revisions begin at 1.
		l.term = o.at.epoch.term + 1
		return
	}
	l.ready = true
	l.publisher.resume(resumption{epoch: l.epoch, before: o.before, marker: d.seq})
}

// renew is called when the stream was made anew, without the marker. What was on its way is
// lost, be it stored or not: the origin is asked for it again.
func (l *leadership) renew() {
	l.silence(errRenewed)
	l.ready, l.marked, l.term = false, time.Time{}, max(l.term, l.source.born)
	l.publisher.restart(errRenewed)
}

var errRenewed = errors.New("the stream was made anew")

// ask asks the origin, and publishes what it sends.
func (l *leadership) ask(from relay.Resumption, sink relay.Sink) {
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &asking{cancel: cancel, done: make(chan struct{})}
	a.sink.Store(&sink)
	l.inner = a
	t := &tee{leadership: l, asking: a, from: from.ID, gap: from.ID == "" && l.source.eventful}
	t.sieve = l.source.topic.Sieve(relay.Question{ID: from.ID, Anew: l.source.endedCleanly, Ahead: l.source.skipTo != ""})
	l.helpers.Go(func() {
		defer cancel(nil)
		a.outcome = l.source.origin.Follow(ctx, from, t)
		close(a.done)
		if ctx.Err() == nil || errors.Is(context.Cause(ctx), relay.ErrIdle) {
			l.publisher.add(kindEnded, encodeOutcome(&a.outcome))
		}
	})
}

// isAsking reports whether a connection to the origin goes on.
func (l *leadership) isAsking() bool {
	if l.inner == nil {
		return false
	}
	select {
	case <-l.inner.done:
		return false
	default:
		return true
	}
}

// silence ends the connection to the origin, if there is one, and waits for its end.
func (l *leadership) silence(why error) {
	if l.inner == nil {
		return
	}
	l.inner.cancel(why)
	<-l.inner.done
	l.inner = nil
}

// farewell has everything stored that is to be, and tells the others that the lease is to be
// had.
func (l *leadership) farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	l.publisher.add(kindLeft, []byte(l.source.fleet.node))
	l.publisher.flush(ctx)
}

// close ends everything.
func (l *leadership) close(why error) {
	l.publisher.close(why)
	l.silence(why)
	l.stop()
	l.helpers.Wait()
}

// A tee takes what the origin sends, and publishes what is news of it. So what the origin
// repeats is not in the stream, and no other node needs to tell it from news.
type tee struct {
	leadership *leadership
	asking     *asking
	sieve      *relay.Sieve
	from       string // the id that the origin was asked with
	gap        bool
}

// Shared implements relay.Sink.
func (t *tee) Shared() bool { return true }

// Heard implements relay.Sink.
func (t *tee) Heard() { (*t.asking.sink.Load()).Heard() }

// Accept implements relay.Sink.
func (t *tee) Accept(o relay.Opening) (tell func()) {
	t.leadership.publisher.add(kindOpened, encodeOpening(&o, t.from, t.gap))
	return nil
}

// Event implements relay.Sink.
func (t *tee) Event(e *sse.Event) {
	p := t.leadership.publisher
	f := t.sieve.Sift(e)
	if f.Began != nil {
		p.add(kindBegun, encodeBegun(f.Began))
	}
	if f.Run {
		p.add(kindRun, nil)
	}
	f.Held(t.publish)
	if f.News {
		t.publish(e)
	}
}

func (t *tee) publish(e *sse.Event) {
	limit := int(t.leadership.source.fleet.store.conn.MaxPayload()) - headerBytes
	t.leadership.publisher.add(kindEvent, split(appendEvent(nil, e), max(limit, headerBytes))...)
}

// Note implements relay.Sink. The origin's events are what tells.
func (t *tee) Note(relay.Note) {}

// Decided implements relay.Sink: the outcome of a connection that begins a session says so.
func (t *tee) Decided(bool) {}

// Flush implements relay.Sink. What is added is sent at once.
func (t *tee) Flush() {}

// Interface guards
var _ relay.Sink = (*tee)(nil)
