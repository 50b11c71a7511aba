package relay

import (
	"errors"
	"fmt"
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
	h := Holdings{
		Subscribers: r.total,
		Topics:      len(r.topics),
		Lingering:   r.spares.idle,
		Detached:    r.all.len() - len(r.topics),
		Closing:     len(r.closing),
		Addresses:   len(r.holders),
		Misfits:     r.misfits.all(),
	}
	for _, holder := range r.holders {
		h.MostTopics = max(h.MostTopics, holder.topics())
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

	opened, uses, spare := map[string]int{}, map[string]int{}, 0
	for _, t := range r.topics {
		opened[t.openedBy]++
		if is := t.standing.now(); !is.isCurrent() || t.Subscribers() > 0 != (is == standingUsed) {
			complain("a topic that newcomers join, with %d subscribers, is %s", t.Subscribers(), is)
		}
		kind := t.spareKind()
		if t.spare != kind {
			complain("a topic with %d subscribers of %d addresses is of kind %d, want %d", t.Subscribers(), len(t.addresses), t.spare, kind)
		}
		if kind != notSpare {
			spare++
		}
		for address := range t.addresses {
			uses[address]++
		}
	}
	if len(r.topics) > r.cfg.MaxTopics || r.spares.idle > r.cfg.LingerTopics {
		complain("there are %d topics, of which %d linger", len(r.topics), r.spares.idle)
	}
	for t := range r.all.all() {
		is := t.standing.now()
		if is.isCurrent() && r.topics[t.key] == t {
			continue
		}
		if is != standingDetached && is != standingMoved {
			complain("a topic that newcomers cannot join is %s", is)
		}
		if t.spare != notSpare || t.Subscribers() == 0 {
			complain("a topic that newcomers cannot join is kept for nothing, or may be closed to make room")
		}
		for address := range t.addresses {
			uses[address]++
		}
	}
	listed := 0
	for address, h := range r.holders {
		if h.uses != uses[address] || h.topics() != opened[address] {
			complain("%s uses %d topics and has opened %d, want %d and %d", address, h.uses, h.topics(), uses[address], opened[address])
		}
		if h.opened != nil {
			for kind := range h.opened.spare {
				listed += h.opened.spare[kind].Len()
			}
		}
	}
	if listed != spare {
		complain("%d topics are listed, want %d", listed, spare)
	}
	for which := range r.spares.rankings {
		errs = append(errs, r.spares.rankings[which].check())
	}
	return errors.Join(errs...)
}

// check says what is wrong with the order of a ranking.
func (r *ranking) check() error {
	for i, o := range r.openers {
		switch {
		case o.rank[r.which] != i+1:
			return fmt.Errorf("checking ranking %d: the opener at %d believes to be at %d", r.which, i, o.rank[r.which]-1)
		case o.spare[r.kind()].Len() == 0:
			return fmt.Errorf("checking ranking %d: an opener has no spare topics", r.which)
		case r.Less(i, 0):
			return fmt.Errorf("checking ranking %d: the first is not the one that holds most", r.which)
		}
	}
	return nil
}
