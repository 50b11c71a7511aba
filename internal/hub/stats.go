package hub

import (
	"time"
)

// Stats are figures of a log at one moment.
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

// Stats returns figures of the log.
func (l *Log) Stats() Stats {
	now := l.now()
	l.mu.RLock()
	defer l.mu.RUnlock()
	r := &l.ring
	s := Stats{
		Published: uint64(r.head),
		Entries:   int(r.head - r.tail),
		Bytes:     r.bytes,
		ID:        r.id,
		Rate:      r.rate(now),
	}
	if s.Entries > 0 {
		s.Oldest = l.start.Add(r.at(r.tail).time)
		s.Newest = l.start.Add(r.at(r.head - 1).time)
	}
	return s
}
