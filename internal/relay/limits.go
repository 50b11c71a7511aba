package relay

// A Rejection says why a client was turned away. It is a metric label.
type Rejection string

const (
	RejectTopics        Rejection = "max_topics"
	RejectTopicsAddress Rejection = "max_topics_per_client_ip"
	RejectTotal         Rejection = "max_subscribers"
	RejectTopic         Rejection = "max_subscribers_per_topic"
	RejectAddress       Rejection = "max_subscribers_per_client_ip"
	RejectUnavailable   Rejection = "unavailable" // Config.Reject: the origin has not answered in time
	RejectEnding        Rejection = "ending"      // on exit, or while draining
)

// Limits are the rejections that an operator has set a bound for.
var Limits = []Rejection{RejectTopics, RejectTopicsAddress, RejectTotal, RejectTopic, RejectAddress}

// overLimit tells the limit that one more subscriber of t, or of a new topic if
// t is nil, would pass. Whether there is room for a new topic in all is for makeRoom
// to say. r.mu must be held.
func (r *Relay) overLimit(t *Topic, address string) Rejection {
	most, perTopic := r.cfg.MaxTopicsPerAddress, r.cfg.MaxSubscribersPerTopic
	h := r.holders[address]
	switch {
	case t == nil && most > 0 && h.topics() >= most && h.opened.needless() == nil:
		return RejectTopicsAddress
	case r.isFull():
		return RejectTotal
	case t != nil && perTopic > 0 && t.Subscribers() >= perTopic:
		return RejectTopic
	}
	return r.overSubscriberLimit(address)
}

// isFull reports whether there can be no more subscribers at all. r.mu must be held.
func (r *Relay) isFull() bool {
	return r.cfg.MaxSubscribers > 0 && r.total >= r.cfg.MaxSubscribers
}

// overSubscriberLimit tells the limit that one more stream for an address would
// pass, whichever topic it is of, if any. r.mu must be held.
func (r *Relay) overSubscriberLimit(address string) Rejection {
	most := r.cfg.MaxSubscribersPerAddress
	h := r.holders[address]
	switch {
	case r.isFull():
		return RejectTotal
	case most > 0 && h != nil && h.subscribers >= most:
		return RejectAddress
	}
	return ""
}

// Reserve takes the place of a subscriber for a stream that is not shared, unless a limit
// leaves none.
func (r *Relay) Reserve(address string) Rejection {
	r.mu.Lock()
	defer r.mu.Unlock()
	if why := r.overSubscriberLimit(address); why != "" {
		return why
	}
	r.total++
	r.holder(address).subscribers++
	return ""
}

// Release gives back a place that Reserve has taken.
func (r *Relay) Release(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	r.holder(address).subscribers--
	r.dropIfEmpty(address)
}

// needless returns a topic that no client would miss at once, or nil.
func (o *opener) needless() *Topic {
	if t := o.oldest(spareRefused); t != nil {
		return t
	}
	return o.oldest(spareLingering)
}

// makeRoom hides topics from newcomers until there is room for one more that an
// address opens. It reports false if there is none. If yielded is not nil, it was the
// topic of some clients, whose streams are to be ended once r.mu is released. r.mu
// must be held.
func (r *Relay) makeRoom(address string) (yielded *Topic, ok bool) {
	if h := r.holders[address]; r.cfg.MaxTopicsPerAddress > 0 && h.topics() >= r.cfg.MaxTopicsPerAddress {
		r.giveUp(h.opened.needless())
	}
	if len(r.topics) < r.cfg.MaxTopics {
		return nil, true
	}
	t := r.nextToYield(address)
	if t == nil {
		return nil, false
	}
	if t.spare == spareOwn || t.spare == spareShared {
		yielded = t
	}
	r.giveUp(t)
	return yielded, true
}

// nextToYield returns the topic that goes first when an address opens another, or
// nil if none may.
//
// A topic that the origin has refused goes first of all. Then it is for the address
// that has opened most topics to give up one: that which has lingered longest, else
// the newest of those that it has for itself alone. To end streams takes more than
// to end a wait: the address must have more than twice as many topics as the newcomer
// will have, so that two addresses do not end each other's by turns, and more than
// twice as many as any with a lingering topic. Last come topics that several addresses
// use, if all of them hold more than twice as many. r.mu must be held.
func (r *Relay) nextToYield(address string) *Topic {
	if o := r.spares.most(mostRefused); o != nil {
		return o.oldest(spareRefused)
	}
	has := r.holders[address].holds()
	own, idle := r.spares.most(mostOwn), r.spares.most(mostLingering)
	least := has + 1
	if idle != nil && idle.topics >= has {
		if least = max(least, idle.topics); own == nil || own.topics <= 2*least {
			return idle.oldest(spareLingering)
		}
	}
	if own != nil && own.topics > 2*least {
		return own.newest(spareOwn)
	}
	return r.sharedToYield(2 * least)
}

// giveUp hides t from newcomers, and closes it unless it has subscribers. r.mu must
// be held.
func (r *Relay) giveUp(t *Topic) {
	if t.Subscribers() > 0 {
		r.detachTopic(t, standingDetaches)
	} else {
		r.closeTopic(t)
	}
}
