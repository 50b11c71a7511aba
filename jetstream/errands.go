package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// errands are what the holder of a lease asks the origin for besides the topic's stream: the
// catch-ups of all nodes.
type errands struct {
	source  *source
	ctx     context.Context
	helpers sync.WaitGroup

	mu sync.Mutex

	// Guarded by mu.
	byFrom map[relay.Resumption]*errand
	isOver bool
}

// maxErrands bounds how many errands of a topic are done at once. Others are left to those
// who want them.
const maxErrands = 8

// catchups returns the subject on which the holder is asked for catch-ups of a topic. It is
// none of the stream's.
func catchups(subject string) string { return subject + ".catchup" }

// A request asks the holder for what follows an id. It is repeated while the node that asks
// wants more, and Over ends it.
type request struct {
	ID    string `json:"id,omitempty"`
	Param string `json:"param,omitempty"`
	Got   int    `json:"got,omitempty"` // how many messages have come
	Over  bool   `json:"over,omitempty"`
}

// serve does errands until ctx ends.
func (e *errands) serve(ctx context.Context) {
	store := e.source.fleet.store
	e.ctx = ctx
	sub, err := store.conn.Subscribe(catchups(e.source.subject), e.take)
	if err != nil {
		store.notice("listening for catch-ups", e.source.subject, fmt.Errorf("subscribing: %w", err))
		return
	}
	<-ctx.Done()
	_ = sub.Unsubscribe()
	e.mu.Lock()
	e.isOver = true
	e.mu.Unlock()
	e.helpers.Wait()
}

// take takes a request. One that cannot be met has no answer.
func (e *errands) take(msg *nats.Msg) {
	var r request
	if msg.Reply == "" || json.Unmarshal(msg.Data, &r) != nil {
		return
	}
	from := relay.Resumption{ID: r.ID, Param: r.Param}
	e.mu.Lock()
	defer e.mu.Unlock()
	done := e.byFrom[from]
	switch {
	case done != nil && r.Over:
		if done.leave(msg.Reply) {
			e.end(done)
		}
	case done != nil:
		done.join(msg.Reply, r.Got)
	case r.Over || e.isOver || r.Got > 0 || len(e.byFrom) >= maxErrands || !isAskable(from):
	default:
		e.begin(from).join(msg.Reply, 0)
	}
}

// isAskable reports whether an origin can be asked so.
func isAskable(from relay.Resumption) bool {
	return (from.ID == "" || relay.Claim(from).Usable()) && (from.Param == "" || relay.IDParams[from.Param])
}

// begin begins an errand. e.mu must be held.
func (e *errands) begin(from relay.Resumption) *errand {
	ctx, cancel := context.WithCancelCause(e.ctx)
	done := &errand{errands: e, from: from, cancel: cancel, wake: make(chan struct{}, 1), askers: make(map[string]*asker)}
	e.byFrom[from] = done
	e.helpers.Go(func() {
		defer cancel(nil)
		done.follow(ctx)
	})
	e.helpers.Go(done.run)
	return done
}

// end ends an errand that nobody wants any more. e.mu must be held.
func (e *errands) end(done *errand) {
	if e.byFrom[done.from] == done {
		delete(e.byFrom, done.from)
	}
	done.cancel(errErrandUnused)
}

// forget makes the next request for the same begin another errand.
func (e *errands) forget(done *errand) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byFrom[done.from] == done {
		delete(e.byFrom, done.from)
	}
}

// release ends an errand if those who wanted it have fallen silent.
func (e *errands) release(done *errand) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if done.expire(e.source.fleet.store.settings.Lease) {
		e.end(done)
	}
}
