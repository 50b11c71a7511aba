package relay

import "time"

// A condition is what those who look from outside get to see of an upstream.
type condition struct {
	since     time.Time // when the present state of the connection began
	address   string    // of the origin, if the source names it
	attempts  int       // in a row that have failed
	next      time.Time // when the origin is or was asked again
	lastError string    // why the last connection has ended, if one has
	failed    time.Time // when that was
}

// connected returns the condition of an upstream that was just connected.
func (c *condition) connected(now time.Time, address string) *condition {
	seen := *c
	seen.since, seen.attempts, seen.next, seen.address = now, 0, time.Time{}, address
	return &seen
}

// lost records a connection that has ended, or could not be made.
func (u *upstream) lost(c *connection, delay time.Duration) {
	now := time.Now()
	l := Lost{
		Outcome:  &c.outcome,
		Accepted: c.wasAccepted(),
		For:      now.Sub(u.since),
		Outage:   now.Sub(u.troubled),
		Attempts: u.failures,
		Delay:    delay,
		Events:   c.sieve.events,
	}
	if l.Accepted {
		u.since = now
	}
	u.condition.Store(&condition{
		since:     u.since,
		address:   c.outcome.Address,
		attempts:  u.failures,
		next:      now.Add(delay),
		lastError: c.outcome.Explain(),
		failed:    now,
	})
	u.topic.relay.observer.Lost(u.topic, l)
}

// closed records that no further connection will be made.
func (u *upstream) closed(reason string, status int, quiet bool) {
	u.topic.relay.observer.Closed(u.topic, Closed{
		Reason:  reason,
		Address: u.condition.Load().address,
		Status:  status,
		For:     time.Since(u.since),
		Quiet:   quiet,
	})
}
