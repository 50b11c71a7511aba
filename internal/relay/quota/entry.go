package quota

import "container/list"

// A Use is what a topic is kept for.
type Use int

const (
	InUse     Use = iota // it has subscribers
	Lingering            // it has none, and waits for the next one
	Refused              // the origin has said no, and it only answers those who come next
)

// An Entry is a topic in a ledger.
type Entry[T any] struct {
	Topic T

	subscribers int
	addresses   map[string]int // of the subscribers, and how many there are of each
	openedBy    string         // the address that the topic counts for: the one that has opened it, or one that has stayed
	detached    bool           // newcomers do not join it: it counts for nobody
	use         Use

	kind  kind          // why it may be closed to make room
	at    *list.Element // in its opener's list of this kind
	since uint64        // orders the topics of a kind
}

// Open adds a topic that an address opens. It has no subscribers yet.
func (l *Ledger[T]) Open(topic T, address string) *Entry[T] {
	e := &Entry[T]{Topic: topic, openedBy: address, addresses: make(map[string]int, 1)}
	l.countTopic(e, +1)
	return e
}

// Join adds a subscriber of a topic. Sort follows.
func (l *Ledger[T]) Join(e *Entry[T], address string) {
	a := l.account(address)
	if e.addresses[address]++; e.addresses[address] == 1 {
		a.uses++
	}
	a.subscribers++
	e.subscribers++
	l.total++
	l.passOn(e)
}

// Leave takes a subscriber off a topic. Sort or Detach follows.
func (l *Ledger[T]) Leave(e *Entry[T], address string) {
	a := l.account(address)
	if e.addresses[address]--; e.addresses[address] == 0 {
		delete(e.addresses, address)
		a.uses--
	}
	e.subscribers--
	a.subscribers--
	l.total--
	l.dropIfEmpty(address)
	if e.subscribers > 0 {
		l.passOn(e)
	}
}

// Detach makes a topic count for nobody, as newcomers open another one. Its subscribers
// still count.
func (l *Ledger[T]) Detach(e *Entry[T]) {
	l.spares.set(e, l.account(e.openedBy).opened, notSpare)
	l.countTopic(e, -1)
	e.detached = true
}

// Use returns what Sort was told.
func (e *Entry[T]) Use() Use { return e.use }

// Sort is told what a topic is in use for, whenever that or its subscribers may have changed.
func (l *Ledger[T]) Sort(e *Entry[T], use Use) {
	if e.detached {
		return
	}
	e.use = use
	l.spares.set(e, l.account(e.openedBy).opened, e.kindNow())
}

// kindNow says why a topic may be closed to make room.
func (e *Entry[T]) kindNow() kind {
	switch {
	case e.use == Refused:
		return spareRefused
	case e.use == Lingering:
		return spareLingering
	case len(e.addresses) == 1 && e.addresses[e.openedBy] > 0:
		return spareOwn
	case len(e.addresses) <= mostSharing:
		return spareShared
	}
	return notSpare
}

// mostSharing is how many addresses may use a topic that is closed to make room.
const mostSharing = 256

// countTopic adds n to the number of topics of which e is one, of all and of its opener.
func (l *Ledger[T]) countTopic(e *Entry[T], n int) {
	l.topics += n
	a := l.account(e.openedBy)
	if a.opened == nil {
		a.opened = new(opener[T])
	}
	a.opened.topics += n
	l.spares.rerank(a.opened)
	if a.opened.topics == 0 {
		a.opened = nil
		l.dropIfEmpty(e.openedBy)
	}
}

// passOn is called when an address may have left a topic that it has opened. It makes
// another address that uses the topic its opener: of a few, that with the fewest topics.
func (l *Ledger[T]) passOn(e *Entry[T]) {
	const few = 16
	if e.addresses[e.openedBy] > 0 || e.detached {
		return
	}
	l.spares.set(e, l.account(e.openedBy).opened, notSpare)
	l.countTopic(e, -1)
	least, seen := -1, 0
	for address := range e.addresses { // in random order
		if n := l.accounts[address].topics(); least < 0 || n < least {
			e.openedBy, least = address, n
		}
		if seen++; seen == few {
			break
		}
	}
	l.countTopic(e, +1)
}
