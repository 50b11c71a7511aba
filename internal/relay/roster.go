package relay

import (
	"maps"
	"slices"
	"sync"
)

// A roster has the subscribers that a topic serves, so that an administrator can
// see them and end one. It is touched when one comes or goes, never for an event.
// Its lock is held for nothing else.
type roster struct {
	mu sync.Mutex

	// Guarded by mu.
	serving       map[uint64]*Subscriber // by number
	events, bytes uint64                 // delivered to those who have left
}

func (r *roster) enter(s *Subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serving == nil {
		r.serving = make(map[uint64]*Subscriber)
	}
	r.serving[s.number] = s
}

func (r *roster) leave(s *Subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.serving, s.number)
	events, bytes := s.delivered()
	r.events += events
	r.bytes += bytes
}

// find returns the subscriber of a number, or nil.
func (r *roster) find(number uint64) *Subscriber {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serving[number]
}

// all returns the subscribers, those who have been there longest first.
func (r *roster) all() []*Subscriber {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.serving))
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *Subscriber) int { return int(a.number) - int(b.number) })
	return all
}

// hasBystanders reports whether one of them has not brought the id that the topic was
// opened with.
func (r *roster) hasBystanders() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.serving {
		if s.bystander {
			return true
		}
	}
	return false
}

// delivered returns how many subscribers there are, and what was delivered to
// them and to those before them.
func (r *roster) delivered() (serving int, events, bytes uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, bytes = r.events, r.bytes
	for _, s := range r.serving {
		of, sized := s.delivered()
		events += of
		bytes += sized
	}
	return len(r.serving), events, bytes
}
