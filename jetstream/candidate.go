package jetstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A candidate takes part in the contest for a topic's lease, and renews the lease while it
// has it. One goroutine, run, makes all requests.
type candidate struct {
	lease   *lease
	trouble func() error // why the holder could not go on, or nil
	failing func()       // called after a request has failed
	back    func()       // called when JetStream was away, and is not any more; must not wait

	nudged chan struct{} // has one if run is to look at once

	mu sync.Mutex

	// Guarded by mu.
	changed chan struct{} // closed when a view of the following changes
	reign   uint64        // the revision with which the lease was acquired; 0: it is not held
	newest  uint64        // the revision of the last renewal
	wanted  bool          // a call of Follow can make use of the lease
	pausing time.Time     // until when it leaves the lease to others
	eager   time.Time     // until when the lease is expected to be free at any moment
	contact time.Time     // when a request last succeeded, or a message came
	vouched time.Time     // when the holder has last said that it has renewed the lease
	away    bool          // none has for the duration of a lease
	taken   bool          // another node held the lease at the last attempt
	err     error         // of the last request that failed, while away
}

func newCandidate(l *lease, trouble func() error, failing, back func()) *candidate {
	return &candidate{
		lease: l, trouble: trouble, failing: failing, back: back,
		nudged: make(chan struct{}, 1), changed: make(chan struct{}), contact: time.Now(),
	}
}

// A view is what a candidate knows.
type view struct {
	standpoint
	err     error
	changed <-chan struct{}
}

// A standpoint is the part of a view whose change wakes those who wait.
type standpoint struct {
	reign, newest uint64
	away, taken   bool
}

// look returns what is known now, and a channel that is closed when that changes.
func (c *candidate) look() view {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{standpoint: c.standpoint(), err: c.err, changed: c.changed}
	if !c.lease.holds() {
		v.reign = 0 // run may not have come to see that
	}
	return v
}

func (c *candidate) standpoint() standpoint {
	return standpoint{reign: c.reign, newest: c.newest, away: c.away, taken: c.taken}
}

// update changes what is known. The change must not wait.
func (c *candidate) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.standpoint()
	change()
	after := c.standpoint()
	if after != before {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	if before.away && !after.away {
		c.back()
	}
}

// want says whether the lease can be made use of. A candidate that has it keeps it.
func (c *candidate) want(wanted bool) {
	c.mu.Lock()
	c.wanted = wanted
	c.mu.Unlock()
	if wanted {
		c.nudge()
	}
}

// nudge makes run look at once: the holder has given up the lease.
func (c *candidate) nudge() {
	select {
	case c.nudged <- struct{}{}:
	default:
	}
}

// vacated is called when the holder has said that it gives up the lease.
func (c *candidate) vacated() {
	c.update(func() { c.taken, c.eager = false, time.Now().Add(c.lease.duration/2) })
	c.nudge()
}

// heard is called when a message of the holder has come: it is alive, and so is JetStream.
func (c *candidate) heard() {
	c.update(func() { c.contact, c.away, c.err = time.Now(), false, nil })
}

// vouch is called when the holder has said that it has renewed the lease. That tells nothing of
// whether this node reaches JetStream.
func (c *candidate) vouch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vouched = time.Now()
}

// leave gives the lease up, and leaves it to others for a while.
func (c *candidate) leave(pause time.Duration) {
	c.mu.Lock()
	c.pausing = time.Now().Add(pause)
	c.mu.Unlock()
	c.nudge()
}

// run takes part until ctx ends, and then gives up the lease.
func (c *candidate) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			c.resign()
			return
		case <-timer.C:
		case <-c.nudged:
		}
		timer.Reset(c.turn(ctx))
	}
}

// turn does what is to be done now, and returns when there is more to do.
func (c *candidate) turn(ctx context.Context) time.Duration {
	c.mu.Lock()
	reign, wanted, away, pause := c.reign, c.wanted, c.away, time.Until(c.pausing)
	quiet := time.Since(c.heardOf())
	c.mu.Unlock()
	d := c.lease.duration
	if err := c.trouble(); err != nil {
		c.resign()
		c.failing()
		c.gone(err)
		return d / 4
	}
	switch {
	case reign != 0 && pause > 0:
		c.resign()
		return pause
	case reign != 0:
		return c.keep(ctx)
	case pause > 0:
		return pause
	case !wanted && away:
		return c.reconnoitre(ctx)
	case !wanted:
		return d // want nudges
	case quiet < d/2 && c.isTaken() && !c.isEager():
		// The holder is alive: no need to ask.
		return d/2 - quiet + rand.N(d/8)
	}
	return c.contest(ctx)
}

func (c *candidate) isTaken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken
}

func (c *candidate) isEager() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.eager)
}

// contest tries to get the lease.
func (c *candidate) contest(ctx context.Context) time.Duration {
	d := c.lease.duration
	ctx, cancel := context.WithTimeout(ctx, d/2)
	defer cancel()
	var revision uint64
	var err error
	if c.isTaken() {
		err = c.lease.look(ctx) // a third of what a futile attempt costs
	}
	if err == nil {
		revision, err = c.lease.acquire(ctx)
	}
	switch {
	case errors.Is(err, errTaken):
		c.update(func() { c.taken, c.contact, c.away, c.err = true, time.Now(), false, nil })
		if c.isEager() {
			return d / 50
		}
		return d/4 + rand.N(d/8)
	case err != nil:
		c.failed(err)
		return d/10 + rand.N(d/10)
	}
	c.update(func() {
		c.reign, c.newest, c.taken, c.contact, c.away, c.err = revision, revision, false, time.Now(), false, nil
	})
	return d / 3
}

// reconnoitre finds out whether JetStream is back, where the lease cannot be made use of now.
// Where the origin is away, too, a call of Follow lasts no longer than it takes to notice that.
func (c *candidate) reconnoitre(ctx context.Context) time.Duration {
	d := c.lease.duration
	ctx, cancel := context.WithTimeout(ctx, d/2)
	defer cancel()
	err := c.lease.look(ctx)
	if taken := errors.Is(err, errTaken); err == nil || taken {
		c.update(func() { c.taken, c.contact, c.away, c.err = taken, time.Now(), false, nil })
		return d
	}
	c.failed(err)
	return d/10 + rand.N(d/10)
}

// keep renews the lease.
func (c *candidate) keep(ctx context.Context) time.Duration {
	d := c.lease.duration
	until := c.lease.deadline()
	ctx, cancel := context.WithTimeout(ctx, until.Sub(c.lease.now()))
	defer cancel()
	revision, err := c.lease.renew(ctx)
	switch {
	case err == nil && revision != 0:
		c.update(func() { c.newest, c.contact, c.away, c.err = revision, time.Now(), false, nil })
		return d / 3
	case errors.Is(err, errTaken):
		c.update(func() { c.reign, c.taken, c.contact = 0, true, time.Now() })
		c.lease.drop()
		return d / 4
	case !c.lease.now().Before(until):
		c.update(func() { c.reign = 0 })
		c.lease.drop()
	}
	c.failed(err)
	return min(d/10, max(0, until.Sub(c.lease.now())))
}

// heardOf returns when the lease was last heard of. c.mu must be held.
func (c *candidate) heardOf() time.Time {
	if c.vouched.After(c.contact) {
		return c.vouched
	}
	return c.contact
}

// failed records that a request has failed.
func (c *candidate) failed(err error) {
	c.failing()
	c.mu.Lock()
	late := time.Since(c.heardOf()) >= c.lease.duration
	c.mu.Unlock()
	if late {
		c.gone(err)
	}
}

// gone records that JetStream is away.
func (c *candidate) gone(err error) {
	c.update(func() { c.away, c.taken, c.err = true, false, err })
}

// resign gives the lease up.
func (c *candidate) resign() {
	c.update(func() { c.reign = 0 })
	if !c.lease.mayHold() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.lease.duration/2)
	defer cancel()
	if err := c.lease.release(ctx); err != nil {
		c.failed(err)
	}
}
