package relay

import (
	"sync/atomic"
	"time"
)

// A follower keeps a topic fed from its source: it connects, takes what comes
// into the topic's log, and connects again when the connection ends. One
// goroutine, started by the relay, owns it.
type follower struct {
	topic *Topic

	// rerouted tells run that the topic has a new route.
	rerouted chan struct{}

	// Owned by run, and by the connection that it waits for.
	suspectID string    // may be why the last answer was no stream, or a silent one
	doubted   bool      // the opener's id is not used any more
	denials   int       // in a row, of the id in force (see isToBlame)
	failures  int       // in a row, of connections that have not proved themselves
	noSince   time.Time // since when every answer has been a no
	since     time.Time // when the present state of the connection began
	troubled  time.Time // when the row of failures began

	condition atomic.Pointer[condition]

	retry atomic.Int64 // the origin's reconnection time, in nanoseconds; negative: none yet

	hasBegun atomic.Bool // an event has come

	endedCleanly bool // the last connection
}

const (
	// proofTime is how long a connection must last, if it brings no event, for
	// the next failure to count as the first.
	proofTime = 5 * time.Second

	// BeliefTime is how long every answer must have been a no for the
	// subscribers of a topic to be told: a deploy answers 404 for a while.
	BeliefTime = time.Minute

	// longestRetry bounds the reconnection time that clients are told at the end of
	// their stream, whatever the origin says: a browser does not take a number that
	// has overflowed.
	longestRetry = 24 * time.Hour

	// LongestRetryAfter bounds what an origin can make its clients wait.
	LongestRetryAfter = time.Hour
)

// A condition is what those who look from outside get to see of a follower.
type condition struct {
	since     time.Time // when the present state of the connection began
	address   string    // of the origin, if the source names it
	attempts  int       // in a row that have failed
	next      time.Time // when the origin is or was asked again
	lastError string    // why the last connection has ended, if one has
	failed    time.Time // when that was
}

// connected returns the condition of a follower that was just connected.
func (c *condition) connected(now time.Time, address string) *condition {
	seen := *c
	seen.since, seen.attempts, seen.next, seen.address = now, 0, time.Time{}, address
	return &seen
}
