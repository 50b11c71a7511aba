package relay

import (
	"sync"
	"sync/atomic"
)

// Stats are the counters of a relay, or of several that share them. They are read when
// somebody asks, so that counting costs the way of an event no more than an addition.
type Stats struct {
	Connections    atomic.Int64  // event streams that origins hold open for us now
	Received       atomic.Uint64 // events from the origin
	Delivered      atomic.Uint64 // events to subscribers
	DeliveredBytes atomic.Uint64
	Compressed     atomic.Uint64 // bytes of gzip to subscribers
	CompressedOf   atomic.Uint64 // what they were before compression
	Heartbeats     atomic.Uint64
	Reconnects     atomic.Uint64
	Catchups       atomic.Uint64
	Oversized      atomic.Uint64 // events over Config.MaxEventSize
	IgnoredIDs     atomic.Uint64 // unusable last event ids of clients
	Gaps           atomic.Uint64 // subscribers that were told of a gap

	joined [Pending]atomic.Uint64 // subscribers by how they began

	Rejected Tally[Rejection]
	Ended    Tally[EndReason]
}

// Joined returns the counter of the subscribers that have begun so.
func (s *Stats) Joined(how Joining) *atomic.Uint64 { return &s.joined[how] }

// A Tally counts by reason. Its zero value is ready to use.
type Tally[R ~string] struct {
	counts sync.Map // of R to *atomic.Uint64
}

// Count adds one.
func (t *Tally[R]) Count(reason R) { t.Counter(reason).Add(1) }

// Get returns how many there were.
func (t *Tally[R]) Get(reason R) uint64 { return t.Counter(reason).Load() }

// Counter returns the counter of a reason.
func (t *Tally[R]) Counter(reason R) *atomic.Uint64 {
	if c, ok := t.counts.Load(reason); ok {
		return c.(*atomic.Uint64)
	}
	c, _ := t.counts.LoadOrStore(reason, new(atomic.Uint64))
	return c.(*atomic.Uint64)
}
