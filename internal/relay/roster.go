package relay

import (
	"slices"
	"sync/atomic"
)

// A roster has the subscribers that a topic serves, so that an administrator can see them
// and end one, and what was delivered to those before them. It is touched when one comes or
// goes, never for an event, and is read without a lock.
type roster struct {
	serving registry[Subscriber]

	gone tally // delivered to those who have left
	told tally // the most that delivered has returned
}

// A tally is how many events were delivered, and bytes of them.
type tally struct{ events, bytes atomic.Uint64 }

func (r *roster) enter(s *Subscriber) { s.seat = r.serving.add(s) }

func (r *roster) leave(s *Subscriber) {
	events, bytes := s.delivered()
	r.serving.remove(s.seat)
	r.gone.events.Add(events)
	r.gone.bytes.Add(bytes)
}

// find returns the subscriber of a number, or nil.
func (r *roster) find(number uint64) *Subscriber {
	for s := range r.serving.all() {
		if s.number == number {
			return s
		}
	}
	return nil
}

// all returns the subscribers, those who have been there longest first.
func (r *roster) all() []*Subscriber {
	all := slices.Collect(r.serving.all())
	slices.SortFunc(all, func(a, b *Subscriber) int { return int(a.number) - int(b.number) })
	return all
}

// hasBystanders reports whether one of them has not brought the id that the topic was
// opened with.
func (r *roster) hasBystanders() bool {
	for s := range r.serving.all() {
		if s.bystander {
			return true
		}
	}
	return false
}

// delivered returns how many subscribers there are, and what was delivered to them and to
// those before them, which never gets less.
func (r *roster) delivered() (serving int, events, bytes uint64) {
	// In this order, one who leaves meanwhile is not counted twice. It may not be
	// counted at all for a moment: then what was told before holds.
	events, bytes = r.gone.events.Load(), r.gone.bytes.Load()
	for s := range r.serving.all() {
		of, sized := s.delivered()
		events += of
		bytes += sized
		serving++
	}
	return serving, atLeast(&r.told.events, events), atLeast(&r.told.bytes, bytes)
}

// atLeast makes most at least n, and returns it.
func atLeast(most *atomic.Uint64, n uint64) uint64 {
	for {
		before := most.Load()
		if before >= n {
			return before
		}
		if most.CompareAndSwap(before, n) {
			return n
		}
	}
}
