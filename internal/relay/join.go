package relay

import (
	"context"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

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

// open makes a topic and starts its follower. r.mu must be held.
func (r *Relay) open(v *Visit) *Topic {
	t := newTopic(r, v)
	r.topics[v.Key] = t
	t.seat = r.all.add(t)
	t.entry = r.ledger.Open(t, v.Address)

	if r.cfg.Catchups < 0 && !r.cfg.Shared && v.Claim.Usable() && !t.assigned(v.Claim.ID) {
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
		t.follower.run(t.ctx)
		t.catchups.close()
		t.helpers.Wait()
		close(t.done)
		r.closed(t)
	}()
	return t
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
	t.follower = &follower{topic: t, rerouted: make(chan struct{}, 1)}
	t.follower.retry.Store(-1)
	t.follower.condition.Store(&condition{since: time.Now()})
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
