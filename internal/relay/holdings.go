package relay

import (
	"errors"
	"fmt"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
)

// Holdings is what a relay holds at one moment. A relay that nobody uses holds nothing.
type Holdings struct {
	Subscribers int // and what Reserve has taken
	Topics      int // that newcomers join
	Lingering   int // of these, those without subscribers
	Detached    int // topics that are over for newcomers, with subscribers
	Closing     int // topics whose connection is not over yet
	Addresses   int
	MostTopics  int // that one address has opened

	Backlogs     []string // the ids of catch-ups that are over and still read
	BacklogBytes int

	// Misfits are changes of state that were asked for and are impossible. Each is a bug.
	Misfits []string
}

// Holdings returns what the relay holds now.
func (r *Relay) Holdings() Holdings {
	r.mu.Lock()
	defer r.mu.Unlock()
	lingering, _ := r.ledger.Lingering()
	h := Holdings{
		Subscribers: r.ledger.Total(),
		Topics:      len(r.topics),
		Lingering:   lingering,
		Detached:    r.all.len() - len(r.topics),
		Closing:     len(r.closing),
		Addresses:   r.ledger.Addresses(),
		MostTopics:  r.ledger.MostTopics(),
		Misfits:     r.misfits.all(),
	}
	b := r.backlogs
	b.mu.Lock()
	defer b.mu.Unlock()
	h.BacklogBytes = b.held
	for _, kept := range b.kept {
		h.Backlogs = append(h.Backlogs, kept.catchup.id.ID)
	}
	return h
}

// Check compares what the relay has counted with what is so, by a walk through all of it.
// The error names all that differs.
func (r *Relay) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("checking the relay: "+format, args...))
	}

	for _, t := range r.topics {
		if is := t.standing.now(); !is.isCurrent() || t.Subscribers() > 0 != (is == standingUsed) {
			complain("a topic that newcomers join, with %d subscribers, is %s", t.Subscribers(), is)
		}
		if t.entry.Use() != t.use() {
			complain("a topic with %d subscribers is kept for %d, want %d", t.Subscribers(), t.entry.Use(), t.use())
		}
	}
	lingering, _ := r.ledger.Lingering()
	if len(r.topics) > r.cfg.Limits.Topics || lingering > r.cfg.LingerTopics {
		complain("there are %d topics, of which %d linger", len(r.topics), lingering)
	}
	for t := range r.all.all() {
		is := t.standing.now()
		if is.isCurrent() && r.topics[t.key] == t {
			continue
		}
		if is != standingDetached && is != standingMoved {
			complain("a topic that newcomers cannot join is %s", is)
		}
		if t.Subscribers() == 0 {
			complain("a topic that newcomers cannot join is kept for nothing")
		}
	}
	errs = append(errs, r.ledger.Check(func(yield func(*quota.Entry[*Topic]) bool) {
		for t := range r.all.all() {
			if !yield(t.entry) {
				return
			}
		}
	}))
	return errors.Join(errs...)
}
