package hub

import (
	"time"
)

// Stats are figures of a topic at one moment.
type Stats struct {
	// Published counts all entries ever published.
	Published uint64
	// Entries and Bytes are what the log holds.
	Entries int
	Bytes   int
	// Oldest and Newest are the times of the ends of the log, zero if it is
	// empty.
	Oldest, Newest time.Time
	// ID is the id in force.
	ID string
	// Rate is how many entries came per second lately: over the last ten
	// seconds, or as many of them as the log reaches back.
	Rate float64
}

// Stats returns figures of the topic.
func (t *Topic) Stats() Stats {
	now := t.now()
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := &t.log
	s := Stats{
		Published: uint64(l.head),
		Entries:   int(l.head - l.tail),
		Bytes:     l.bytes,
		ID:        l.id,
		Rate:      l.rate(now),
	}
	if s.Entries > 0 {
		s.Oldest = t.start.Add(l.at(l.tail).time)
		s.Newest = t.start.Add(l.at(l.head - 1).time)
	}
	return s
}
