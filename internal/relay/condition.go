package relay

import "time"

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

// lost records a connection that has ended, or could not be made.
func (f *follower) lost(c *connection, delay time.Duration) {
	now := time.Now()
	l := Lost{
		Outcome:  &c.outcome,
		Accepted: c.wasAccepted(),
		For:      now.Sub(f.since),
		Outage:   now.Sub(f.troubled),
		Attempts: f.failures,
		Delay:    delay,
		Events:   c.sieve.events,
	}
	if l.Accepted {
		f.since = now
	}
	f.condition.Store(&condition{
		since:     f.since,
		address:   c.outcome.Address,
		attempts:  f.failures,
		next:      now.Add(delay),
		lastError: c.outcome.Explain(),
		failed:    now,
	})
	f.topic.relay.observer.Lost(f.topic, l)
}

// closed records that no further connection will be made.
func (f *follower) closed(reason string, status int, quiet bool) {
	f.topic.relay.observer.Closed(f.topic, Closed{
		Reason:  reason,
		Address: f.condition.Load().address,
		Status:  status,
		For:     time.Since(f.since),
		Quiet:   quiet,
	})
}
