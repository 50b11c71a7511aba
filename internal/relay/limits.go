package relay

import "github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"

// Reserve takes the place of a subscriber for a stream that is not shared, unless a limit
// leaves none.
func (r *Relay) Reserve(address string) Rejection {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Rejection(r.ledger.Reserve(address))
}

// Release gives back a place that Reserve has taken.
func (r *Relay) Release(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Release(address)
}

// overLimit tells the limit that one more subscriber of t, or of a new topic if t is nil,
// would pass. Whether there is room for a new topic in all is for makeRoom to say. r.mu must
// be held.
func (r *Relay) overLimit(t *Topic, address string) Rejection {
	if t == nil {
		return Rejection(r.ledger.Over(nil, address))
	}
	return Rejection(r.ledger.Over(t.entry, address))
}

// makeRoom hides topics from newcomers until there is room for one more that an
// address opens. It reports false if there is none. If yielded is not nil, it was the
// topic of some clients, whose streams are to be ended once r.mu is released. r.mu
// must be held.
func (r *Relay) makeRoom(address string) (yielded *Topic, ok bool) {
	if own := r.ledger.OwnToYield(address); own != nil {
		r.hide(own.Topic)
	}
	if !r.ledger.IsCrowded() {
		return nil, true
	}
	next := r.ledger.NextToYield(address)
	if next == nil {
		return nil, false
	}
	if next.Use() == quota.InUse {
		yielded = next.Topic
	}
	r.hide(next.Topic)
	return yielded, true
}

// hide hides t from newcomers, and closes it unless it has subscribers. r.mu must
// be held.
func (r *Relay) hide(t *Topic) {
	if t.Subscribers() > 0 {
		r.detachTopic(t, standingDetaches)
	} else {
		r.closeTopic(t)
	}
}
