package quota

import "slices"

// IsCrowded reports whether there are as many topics as there may be.
func (l *Ledger[T]) IsCrowded() bool { return l.topics >= l.limits.Topics }

// OwnToYield returns the topic that an address gives up when it opens another, as it has as
// many as it may: one that no client would miss at once. Over has told whether there is one.
func (l *Ledger[T]) OwnToYield(address string) *Entry[T] {
	a := l.accounts[address]
	if most := l.limits.TopicsOfAddress; most > 0 && a.topics() >= most {
		return a.opened.needless()
	}
	return nil
}

// needless returns a topic that no client would miss at once, or nil.
func (o *opener[T]) needless() *Entry[T] {
	if e := o.oldest(spareRefused); e != nil {
		return e
	}
	return o.oldest(spareLingering)
}

// Lingering returns how many topics linger, and the one that yields first: of the address
// that has most of these, that which has lingered longest. It is nil if there are none.
func (l *Ledger[T]) Lingering() (n int, first *Entry[T]) {
	return l.spares.idle, l.spares.most(mostIdle).oldest(spareLingering)
}

// NextToYield returns the topic that goes first when an address opens another, or
// nil if none may.
//
// A topic that the origin has refused goes first of all. Then it is for the address
// that has opened most topics to give up one: that which has lingered longest, else
// the newest of those that it has for itself alone. A topic with clients yields under
// stricter conditions than one that lingers. Its address must have more than twice as many
// topics as the newcomer will have, or two addresses would end each other's in turn. It must
// also have more than twice as many as any address with a lingering topic. Last come topics
// that several addresses use, if all of them hold more than twice as many.
func (l *Ledger[T]) NextToYield(address string) *Entry[T] {
	if o := l.spares.most(mostRefused); o != nil {
		return o.oldest(spareRefused)
	}
	has := l.accounts[address].holds()
	own, idle := l.spares.most(mostOwn), l.spares.most(mostLingering)
	least := has + 1
	if idle != nil && idle.topics >= has {
		if least = max(least, idle.topics); own == nil || own.topics <= 2*least {
			return idle.oldest(spareLingering)
		}
	}
	if own != nil && own.topics > 2*least {
		return own.newest(spareOwn)
	}
	return l.sharedToYield(2 * least)
}

// sharedToYield returns a topic of those that some addresses use, if one has opened more
// than enough topics, and each of the others holds as much: two that use each other's must
// not keep all for themselves. It looks at some only, and at others the next time.
func (l *Ledger[T]) sharedToYield(enough int) *Entry[T] {
	const openers, topics = 8, 8
	ranked := l.spares.rankings[mostShared].openers
	for _, o := range slices.Clone(ranked[:min(len(ranked), openers)]) {
		if o.topics <= enough {
			continue
		}
		list := &o.spare[spareShared]
		for range min(list.Len(), topics) {
			e := list.Back().Value.(*Entry[T])
			if l.allHoldMore(e, enough) {
				return e
			}
			list.MoveToFront(e.at)
		}
		l.spares.rerank(o)
	}
	return nil
}

// allHoldMore reports whether each address that uses a topic holds more than enough topics.
func (l *Ledger[T]) allHoldMore(e *Entry[T], enough int) bool {
	for address := range e.addresses {
		if l.accounts[address].holds() <= enough {
			return false
		}
	}
	return true
}
