package quota

import (
	"errors"
	"fmt"
	"iter"
)

// Check compares what the ledger has counted with what is so of all entries that have not
// ended, by a walk through them. The error names all that differs.
func (l *Ledger[T]) Check(entries iter.Seq[*Entry[T]]) error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("checking the ledger: "+format, args...))
	}
	opened, uses, topics, spare := map[string]int{}, map[string]int{}, 0, 0
	for e := range entries {
		for address := range e.addresses {
			uses[address]++
		}
		kind := notSpare
		if !e.detached {
			kind = e.kindNow()
			opened[e.openedBy]++
			topics++
		}
		if e.kind != kind {
			complain("a topic with %d subscribers of %d addresses is of kind %d, want %d", e.subscribers, len(e.addresses), e.kind, kind)
		}
		if kind != notSpare {
			spare++
		}
	}
	listed := 0
	for address, a := range l.accounts {
		if a.uses != uses[address] || a.topics() != opened[address] {
			complain("%s uses %d topics and has opened %d, want %d and %d", address, a.uses, a.topics(), uses[address], opened[address])
		}
		if a.opened != nil {
			for kind := range a.opened.spare {
				listed += a.opened.spare[kind].Len()
			}
		}
	}
	if l.topics != topics || listed != spare {
		complain("%d topics are counted and %d listed, want %d and %d", l.topics, listed, topics, spare)
	}
	for which := range l.spares.rankings {
		errs = append(errs, l.spares.rankings[which].check())
	}
	return errors.Join(errs...)
}

// check says what is wrong with the order of a ranking.
func (r *ranking[T]) check() error {
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
