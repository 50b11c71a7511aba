package ssefanout

import (
	"sync"
	"sync/atomic"
)

// stats are the counters of a pool. They are read when somebody asks, so that
// counting costs the way of an event no more than an addition.
type stats struct {
	connections    atomic.Int64  // event streams that origins hold open for us now
	passedStreams  atomic.Int64  // event streams that pass one to one now
	received       atomic.Uint64 // events from the origin
	delivered      atomic.Uint64 // events to subscribers
	deliveredBytes atomic.Uint64
	heartbeats     atomic.Uint64
	reconnects     atomic.Uint64
	catchups       atomic.Uint64
	oversized      atomic.Uint64 // events over max_event_size
	ignoredIDs     atomic.Uint64 // unusable last event ids of clients
	fresh          atomic.Uint64 // subscribers that brought no id
	resumed        atomic.Uint64 // subscribers that go on where they were
	gaps           atomic.Uint64 // subscribers that were told of a gap
	gapJoins       atomic.Uint64 // of them, those that began with it

	passed   tally[passReason]
	rejected tally[rejection]
	ended    tally[endReason]
}

// A tally counts by reason. Its zero value is ready to use.
type tally[R ~string] struct {
	counts sync.Map // of R to *atomic.Uint64
}

func (t *tally[R]) count(reason R) {
	t.counter(reason).Add(1)
}

func (t *tally[R]) get(reason R) uint64 {
	return t.counter(reason).Load()
}

func (t *tally[R]) counter(reason R) *atomic.Uint64 {
	if c, ok := t.counts.Load(reason); ok {
		return c.(*atomic.Uint64)
	}
	c, _ := t.counts.LoadOrStore(reason, new(atomic.Uint64))
	return c.(*atomic.Uint64)
}
