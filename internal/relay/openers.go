package relay

import (
	"container/heap"
	"container/list"
	"slices"
)

// Where a limit of topics is reached, the address that has opened most of
// them yields first. This file keeps the order, so that a topic that may go is found
// without a walk through all of them: each change costs the logarithm of the number
// of addresses at most.

// A spareKind says why a topic may be closed to make room for another.
type spareKind int

const (
	notSpare       spareKind = iota // too many use it, or newcomers cannot join it
	spareRefused                    // the origin has said no, and it only answers those who come next
	spareLingering                  // it has no subscribers
	spareOwn                        // all its subscribers are of the address that opened it
	spareShared                     // it has subscribers of some addresses, which may hold much, all of them
	spareKinds
)

// A holder is what the clients of one address hold of a relay.
type holder struct {
	subscribers int     // of topics, and streams that pass one to one
	uses        int     // topics that it has subscribers of
	opened      *opener // nil if there are none
}

// topics returns how many topics the address has opened.
func (h *holder) topics() int {
	if h == nil || h.opened == nil {
		return 0
	}
	return h.opened.topics
}

// holds returns how many topics the address has opened, or uses: addresses that use each
// other's hold no less than if they had opened them all.
func (h *holder) holds() int {
	if h == nil {
		return 0
	}
	return max(h.topics(), h.uses)
}

// An opener has the topics that a address has opened and that newcomers may
// join.
type opener struct {
	topics int
	spare  [spareKinds]list.List // of *Topic: those that may be closed, the longest there first, but for spareShared
	rank   [rankings]int         // 1 + its index in a ranking, or 0
}

// oldest returns the topic that has been spare for longest, or nil.
func (o *opener) oldest(kind spareKind) *Topic {
	if o == nil || o.spare[kind].Len() == 0 {
		return nil
	}
	return o.spare[kind].Front().Value.(*Topic)
}

// newest returns the topic that has been spare for the shortest time, or nil.
func (o *opener) newest(kind spareKind) *Topic {
	if o == nil || o.spare[kind].Len() == 0 {
		return nil
	}
	return o.spare[kind].Back().Value.(*Topic)
}

// The rankings of openers.
const (
	mostRefused   = iota // those with refused topics, by all topics
	mostLingering        // those with lingering topics, by all topics
	mostOwn              // those with topics for themselves alone, by all topics
	mostShared           // those with topics that some others use, by all topics
	mostIdle             // those with lingering topics, by these
	rankings
)

// spares has the topics of a relay that may be closed to make room.
type spares struct {
	moves    uint64 // how often a topic has become spare
	idle     int    // lingering topics
	rankings [rankings]ranking
}

func newSpares() *spares {
	s := new(spares)
	for i := range s.rankings {
		s.rankings[i].which = i
	}
	return s
}

// set says that t, which o has opened, is spare from now on, or is not.
func (s *spares) set(t *Topic, o *opener, kind spareKind) {
	if t.spare == kind {
		return
	}
	if t.spare != notSpare {
		o.spare[t.spare].Remove(t.spareAt)
		t.spareAt = nil
	}
	if t.spare == spareLingering {
		s.idle--
	}
	t.spare = kind
	if kind != notSpare {
		s.moves++
		t.spareSince = s.moves
		t.spareAt = o.spare[kind].PushBack(t)
	}
	if kind == spareLingering {
		s.idle++
	}
	s.rerank(o)
}

// rerank moves o to where it belongs. It is called after every change to o.
func (s *spares) rerank(o *opener) {
	for i := range s.rankings {
		r := &s.rankings[i]
		has, ranked := o.spare[r.kind()].Len() > 0, o.rank[i] > 0
		switch {
		case has && ranked:
			heap.Fix(r, o.rank[i]-1)
		case has:
			heap.Push(r, o)
		case ranked:
			heap.Remove(r, o.rank[i]-1)
		}
	}
}

// most returns the first of a ranking, or nil.
func (s *spares) most(ranking int) *opener {
	if len(s.rankings[ranking].openers) == 0 {
		return nil
	}
	return s.rankings[ranking].openers[0]
}

// A ranking is a heap of the openers that have spare topics of a kind, those that
// hold most first, and of those that hold as much the one whose topic has been spare
// for longest.
type ranking struct {
	which   int
	openers []*opener
}

func (r *ranking) kind() spareKind {
	switch r.which {
	case mostRefused:
		return spareRefused
	case mostOwn:
		return spareOwn
	case mostShared:
		return spareShared
	default:
		return spareLingering
	}
}

func (r *ranking) holds(o *opener) int {
	if r.which == mostIdle {
		return o.spare[spareLingering].Len()
	}
	return o.topics
}

// Len implements heap.Interface.
func (r *ranking) Len() int { return len(r.openers) }

// Less implements heap.Interface.
func (r *ranking) Less(i, j int) bool {
	a, b := r.openers[i], r.openers[j]
	if has, other := r.holds(a), r.holds(b); has != other {
		return has > other
	}
	return a.oldest(r.kind()).spareSince < b.oldest(r.kind()).spareSince
}

// Swap implements heap.Interface.
func (r *ranking) Swap(i, j int) {
	r.openers[i], r.openers[j] = r.openers[j], r.openers[i]
	r.openers[i].rank[r.which], r.openers[j].rank[r.which] = i+1, j+1
}

// Push implements heap.Interface.
func (r *ranking) Push(o any) {
	r.openers = append(r.openers, o.(*opener))
	o.(*opener).rank[r.which] = len(r.openers)
}

// Pop implements heap.Interface.
func (r *ranking) Pop() any {
	last := len(r.openers) - 1
	o := r.openers[last]
	r.openers[last] = nil
	r.openers = r.openers[:last]
	o.rank[r.which] = 0
	return o
}

// holder returns the entry of a address, and makes it if there is none. r.mu
// must be held.
func (r *Relay) holder(address string) *holder {
	h := r.holders[address]
	if h == nil {
		h = new(holder)
		r.holders[address] = h
	}
	return h
}

// dropIfEmpty drops the entry of a address that holds nothing. r.mu must be
// held.
func (r *Relay) dropIfEmpty(address string) {
	if h := r.holders[address]; h != nil && h.subscribers == 0 && h.opened == nil {
		delete(r.holders, address)
	}
}

// countTopic adds n to the number of topics that t's opener has. r.mu must be held.
func (r *Relay) countTopic(t *Topic, n int) {
	h := r.holder(t.openedBy)
	if h.opened == nil {
		h.opened = new(opener)
	}
	h.opened.topics += n
	r.spares.rerank(h.opened)
	if h.opened.topics == 0 {
		h.opened = nil
		r.dropIfEmpty(t.openedBy)
	}
}

// sortOut finds out why t may be closed to make room, if it may. It is called when
// one of the reasons may have changed. r.mu must be held.
func (r *Relay) sortOut(t *Topic) {
	if t.standing.now().isCurrent() { // else it was no longer counted when it was detached
		r.spares.set(t, r.holder(t.openedBy).opened, t.spareKind())
	}
}

// spareKind says why t may be closed to make room. relay.mu must be held.
func (t *Topic) spareKind() spareKind {
	switch {
	case t.isRefused():
		return spareRefused
	case t.standing.is(standingLingering):
		return spareLingering
	case len(t.addresses) == 1 && t.addresses[t.openedBy] > 0:
		return spareOwn
	case len(t.addresses) <= mostSharing:
		return spareShared
	}
	return notSpare
}

// mostSharing is how many addresses may use a topic that is closed to make room.
const mostSharing = 256

// sharedToYield returns a topic of those that some addresses use, if one has opened more
// than enough topics, and each of the others holds as much: two that use each other's must
// not keep all for themselves. It looks at some only, and at others the next time. r.mu
// must be held.
func (r *Relay) sharedToYield(enough int) *Topic {
	const openers, topics = 8, 8
	ranked := r.spares.rankings[mostShared].openers
	for _, o := range slices.Clone(ranked[:min(len(ranked), openers)]) {
		if o.topics <= enough {
			continue
		}
		list := &o.spare[spareShared]
		for range min(list.Len(), topics) {
			t := list.Back().Value.(*Topic)
			if r.allHoldMore(t, enough) {
				return t
			}
			list.MoveToFront(t.spareAt)
		}
		r.spares.rerank(o)
	}
	return nil
}

// allHoldMore reports whether each address that uses t holds more than enough topics.
// r.mu must be held.
func (r *Relay) allHoldMore(t *Topic, enough int) bool {
	for ip := range t.addresses {
		if r.holders[ip].holds() <= enough {
			return false
		}
	}
	return true
}

// passOn makes a topic that the address which has opened it has left count for another
// one that uses it: of a few, for that with the fewest topics. r.mu must be held.
func (r *Relay) passOn(t *Topic) {
	const few = 16
	if t.addresses[t.openedBy] > 0 || !t.standing.now().isCurrent() {
		return
	}
	r.spares.set(t, r.holder(t.openedBy).opened, notSpare)
	r.countTopic(t, -1)
	least, seen := -1, 0
	for ip := range t.addresses { // in random order
		if n := r.holders[ip].topics(); least < 0 || n < least {
			t.openedBy, least = ip, n
		}
		if seen++; seen == few {
			break
		}
	}
	r.countTopic(t, +1)
}

// Interface guards
var _ heap.Interface = (*ranking)(nil)
