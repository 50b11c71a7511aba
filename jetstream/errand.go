package jetstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// An errand is one request of a holder to the origin, for the nodes whose clients have missed
// the same. It is the sink of what that brings, and sends it to all of them.
type errand struct {
	errands *errands
	from    relay.Resumption
	cancel  context.CancelCauseFunc
	wake    chan struct{}

	mu sync.Mutex

	// Guarded by mu.
	told   []message // all that has come
	bytes  int       // of these
	full   bool      // nothing more is taken
	over   bool      // nothing more comes
	askers map[string]*asker
}

// An asker is a node for which an errand is done.
type asker struct {
	heard time.Time // when it last said that it wants more
	got   int       // how many messages it has taken
	sent  int       // how many it was sent
	since time.Time // when it was last sent anything
}

const (
	// maxErrandBytes is how much an errand brings at most, beside its last event. Who wants
	// more asks for what follows.
	maxErrandBytes = 1 << 20

	// errandWindow is how many messages are on their way to an asker at once.
	errandWindow = 256
)

var (
	errErrandFull   = errors.New("the origin has sent as much as the holder of the lease keeps for a catch-up")
	errErrandUnused = errors.New("no node wants the catch-up any more")
)

// follow asks the origin.
func (e *errand) follow(ctx context.Context) {
	out := e.errands.source.origin.Follow(ctx, e.from, e)
	e.errands.forget(e)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tell(kindEnded, encodeOutcome(&out))
	e.over = true
	e.signal()
}

// run sends what comes to the askers until there is nothing more. When the lease is over, it
// does not wait for those that fall behind.
func (e *errand) run() {
	pause := e.errands.source.fleet.store.settings.Lease / 4
	alive := time.NewTicker(pause)
	defer alive.Stop()
	for !e.send(pause) && !e.isCutShort() {
		select {
		case <-e.wake:
		case <-alive.C:
			e.errands.release(e)
		}
	}
}

// send sends what the askers have not got yet. One that has waited for a while is told that
// the errand goes on. It reports whether there is nothing more to do.
func (e *errand) send(pause time.Duration) (over bool) {
	conn := e.errands.source.fleet.store.conn
	for inbox, batch := range e.batches(pause) {
		for i := range batch {
			if err := conn.PublishMsg(batch[i].encode(inbox)); err != nil {
				break // it finds out by itself
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.askers {
		if a.sent < len(e.told) {
			return false
		}
	}
	return e.over
}

// batches returns what each asker is to be sent now.
func (e *errand) batches(pause time.Duration) map[string][]message {
	e.mu.Lock()
	defer e.mu.Unlock()
	batches := make(map[string][]message, len(e.askers))
	for inbox, a := range e.askers {
		next := min(len(e.told), a.got+errandWindow)
		switch {
		case a.sent < next:
			batches[inbox] = e.told[a.sent:next:next]
			a.sent = next
		case time.Since(a.since) >= pause:
			batches[inbox] = []message{{kind: kindAsked, index: firstIndex + uint64(a.sent), part: 1, parts: 1}}
		default:
			continue
		}
		a.since = time.Now()
	}
	return batches
}

// isCutShort reports whether the errand has ended because the lease is over.
func (e *errand) isCutShort() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.over && e.errands.ctx.Err() != nil
}

// join makes a node one of the askers. It has taken some messages.
func (e *errand) join(inbox string, got int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.askers[inbox]
	if a == nil {
		a = new(asker)
		e.askers[inbox] = a
	}
	a.heard, a.got = time.Now(), max(a.got, min(got, a.sent))
	e.signal()
}

// leave takes a node off the askers, and reports whether none is left.
func (e *errand) leave(inbox string) (unused bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.askers, inbox)
	return len(e.askers) == 0
}

// expire takes the askers off that have said nothing for a while, and reports whether none is
// left.
func (e *errand) expire(patience time.Duration) (unused bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for inbox, a := range e.askers {
		if time.Since(a.heard) > patience {
			delete(e.askers, inbox)
		}
	}
	return len(e.askers) == 0
}

func (e *errand) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *errand) add(k kind, bodies ...[]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.full {
		return
	}
	e.tell(k, bodies...)
	if e.bytes > maxErrandBytes {
		e.full = true
		e.cancel(errErrandFull)
	}
	e.signal()
}

// tell has the askers sent a message. e.mu must be held.
func (e *errand) tell(k kind, bodies ...[]byte) {
	for i, body := range bodies {
		e.bytes += len(body)
		e.told = append(e.told, message{kind: k, index: firstIndex + uint64(len(e.told)), part: i + 1, parts: len(bodies), body: body})
	}
}

// Shared implements relay.Sink.
func (*errand) Shared() bool { return false }

// Heard implements relay.Sink.
func (*errand) Heard() {}

// Accept implements relay.Sink.
func (e *errand) Accept(o relay.Opening) (tell func()) {
	e.add(kindOpened, encodeOpening(&o, e.from.ID, false))
	return nil
}

// Event implements relay.Sink.
func (e *errand) Event(event *sse.Event) {
	limit := int(e.errands.source.fleet.store.conn.MaxPayload()) - headerBytes
	e.add(kindEvent, split(appendEvent(nil, event), max(limit, headerBytes))...)
}

// Note implements relay.Sink.
func (*errand) Note(relay.Note) {}

// Decided implements relay.Sink.
func (*errand) Decided(bool) {}

// Flush implements relay.Sink.
func (*errand) Flush() {}

// Interface guards
var _ relay.Sink = (*errand)(nil)
