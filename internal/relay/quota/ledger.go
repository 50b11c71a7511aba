// Package quota keeps account of what the clients of each address hold of a relay, and
// tells which topic yields its place where a limit leaves none.
//
// A Ledger has all of it. It knows a topic by its Entry (entry.go), and keeps those that may
// be closed in the order in which they yield (spares.go, yield.go). To end a topic, and to
// guard the ledger by a lock, is for its owner.
package quota

// A Limit is a bound that leaves no room, by the name of its option.
type Limit string

const (
	Topics               Limit = "max_topics"
	TopicsOfAddress      Limit = "max_topics_per_client_ip"
	Subscribers          Limit = "max_subscribers"
	SubscribersOfTopic   Limit = "max_subscribers_per_topic"
	SubscribersOfAddress Limit = "max_subscribers_per_client_ip"
)

// Limits bound topics and subscribers. 0 is no limit, but for Topics.
type Limits struct {
	Topics               int
	TopicsOfAddress      int
	Subscribers          int
	SubscribersOfTopic   int
	SubscribersOfAddress int
}

// A Ledger has what all addresses hold. Its owner guards it by a lock.
type Ledger[T any] struct {
	limits   Limits
	accounts map[string]*account[T]
	total    int // subscribers, and what Reserve has taken
	topics   int // that newcomers join
	spares   *spares[T]
}

// NewLedger returns a ledger in which nobody holds anything.
func NewLedger[T any](limits Limits) *Ledger[T] {
	return &Ledger[T]{limits: limits, accounts: make(map[string]*account[T]), spares: newSpares[T]()}
}

// An account is what the clients of one address hold.
type account[T any] struct {
	subscribers int        // of topics, and what Reserve has taken
	uses        int        // topics that it has subscribers of
	opened      *opener[T] // nil if there are none
}

// topics returns how many topics the address has opened.
func (a *account[T]) topics() int {
	if a == nil || a.opened == nil {
		return 0
	}
	return a.opened.topics
}

// holds returns how many topics the address has opened, or uses: addresses that use each
// other's hold no less than if they had opened them all.
func (a *account[T]) holds() int {
	if a == nil {
		return 0
	}
	return max(a.topics(), a.uses)
}

// account returns that of an address, and makes it if there is none.
func (l *Ledger[T]) account(address string) *account[T] {
	a := l.accounts[address]
	if a == nil {
		a = new(account[T])
		l.accounts[address] = a
	}
	return a
}

// dropIfEmpty drops the account of an address that holds nothing.
func (l *Ledger[T]) dropIfEmpty(address string) {
	if a := l.accounts[address]; a != nil && a.subscribers == 0 && a.opened == nil {
		delete(l.accounts, address)
	}
}

// Over tells the limit that one more subscriber of a topic, or of a new topic if e is nil,
// would pass, or "". It does not tell Topics: see Yielding.
func (l *Ledger[T]) Over(e *Entry[T], address string) Limit {
	most, perTopic := l.limits.TopicsOfAddress, l.limits.SubscribersOfTopic
	a := l.accounts[address]
	switch {
	case e == nil && most > 0 && a.topics() >= most && a.opened.needless() == nil:
		return TopicsOfAddress
	case l.isFull():
		return Subscribers
	case e != nil && perTopic > 0 && e.subscribers >= perTopic:
		return SubscribersOfTopic
	}
	return l.overSubscribers(address)
}

// isFull reports whether there can be no more subscribers at all.
func (l *Ledger[T]) isFull() bool {
	return l.limits.Subscribers > 0 && l.total >= l.limits.Subscribers
}

// overSubscribers tells the limit that one more stream for an address would pass, whichever
// topic it is of, or "".
func (l *Ledger[T]) overSubscribers(address string) Limit {
	most := l.limits.SubscribersOfAddress
	a := l.accounts[address]
	switch {
	case l.isFull():
		return Subscribers
	case most > 0 && a != nil && a.subscribers >= most:
		return SubscribersOfAddress
	}
	return ""
}

// Reserve takes the place of a subscriber for a stream that is not shared, or tells the
// limit that leaves none.
func (l *Ledger[T]) Reserve(address string) Limit {
	if limit := l.overSubscribers(address); limit != "" {
		return limit
	}
	l.total++
	l.account(address).subscribers++
	return ""
}

// Release gives back a place that Reserve has taken.
func (l *Ledger[T]) Release(address string) {
	l.total--
	l.account(address).subscribers--
	l.dropIfEmpty(address)
}

// Total returns how many subscribers there are, with what Reserve has taken.
func (l *Ledger[T]) Total() int { return l.total }

// Addresses returns how many addresses hold something.
func (l *Ledger[T]) Addresses() int { return len(l.accounts) }

// MostTopics returns how many topics the address has opened that has opened most.
func (l *Ledger[T]) MostTopics() int {
	most := 0
	for _, a := range l.accounts {
		most = max(most, a.topics())
	}
	return most
}
