package relay

import (
	"math"
	"slices"
	"sync"
)

// The log of a catch-up that is over stays for as long as one of its subscribers has
// not read all of it. Many clients that bring old ids and do not read would hold a log
// each until their writes time out. So all that are kept in a relay have one bound.

// entryOverhead is about what a log knows of an event beside its bytes (see hub.Limits).
const entryOverhead = 200

// backlogs are the catch-ups of a relay that are over and still read. Its lock is taken
// inside of catchups.mu.
type backlogs struct {
	bound int

	mu sync.Mutex

	// Guarded by mu.
	held int            // bytes
	kept []backlog      // the oldest first
	byIP map[string]int // bytes, by the address in whose turn the catch-up was started
}

type backlog struct {
	catchup *catchup
	ip      string
	size    int
}

func newBacklogs(cfg *Config) *backlogs {
	return &backlogs{
		// One that is as large as can be has its place, and another one beside it.
		bound: int(min(max(int64(cfg.BacklogBytes), 2*(int64(cfg.History.Bytes)+cfg.MaxEventSize)), math.MaxInt)),
		byIP:  make(map[string]int),
	}
}

// keep adds a catch-up that is over and has subscribers. It returns those whose logs are
// to be dropped for it: the oldest of the address that holds most.
func (b *backlogs) keep(c *catchup) (drop []*catchup) {
	c.mu.Lock()
	size := c.bytes + c.events*entryOverhead
	c.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, backlog{c, c.billed, size})
	b.held += size
	b.byIP[c.billed] += size
	for b.held > b.bound && len(b.kept) > 1 {
		i := b.next()
		drop = append(drop, b.kept[i].catchup)
		b.remove(i)
	}
	return drop
}

// next returns the index of what is dropped first. b.mu must be held.
func (b *backlogs) next() int {
	first := 0
	for i := range b.kept {
		if b.byIP[b.kept[i].ip] > b.byIP[b.kept[first].ip] {
			first = i
		}
	}
	return first
}

// remove takes one from among those that are kept. b.mu must be held.
func (b *backlogs) remove(i int) {
	gone := b.kept[i]
	b.held -= gone.size
	if b.byIP[gone.ip] -= gone.size; b.byIP[gone.ip] <= 0 {
		delete(b.byIP, gone.ip)
	}
	b.kept = slices.Delete(b.kept, i, i+1)
}

// release removes a catch-up that nobody reads any more.
func (b *backlogs) release(c *catchup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.kept {
		if b.kept[i].catchup == c {
			b.remove(i)
			return
		}
	}
}
