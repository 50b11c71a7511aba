package relay

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// The life of a topic, of a catch-up and of a reader each have a table of transitions
// (topic_state.go, catchup_state.go, reader_state.go). A state changes by its table and in
// no other way.

// named is a state or an event.
type named interface {
	~uint32
	fmt.Stringer
}

// A transition is a row of a table: in the state from, the event on leads to the state to.
type transition[S, E named] struct {
	from S
	on   E
	to   S
}

// A table has all transitions of one kind of state. An event that a state has no row for is
// impossible there: whoever tells of it has a bug.
type table[S, E named] struct {
	of    string
	rows  []transition[S, E]
	taken func(row int) // set by tests
}

// next returns the state that an event leads to.
func (t *table[S, E]) next(from S, on E) (to S, ok bool) {
	i := slices.IndexFunc(t.rows, func(r transition[S, E]) bool { return r.from == from && r.on == on })
	if i < 0 {
		return from, false
	}
	if t.taken != nil {
		t.taken(i)
	}
	return t.rows[i].to, true
}

// A life is a state that changes by a table. Its zero value is in the first state. To change
// it takes the lock that the comment at the top of the table's file names; to read it, none.
type life[S, E named] struct{ state atomic.Uint32 }

// begin sets the state that comes before all transitions.
func (l *life[S, E]) begin(s S) { l.state.Store(uint32(s)) }

func (l *life[S, E]) now() S { return S(l.state.Load()) }

func (l *life[S, E]) is(s S) bool { return l.now() == s }

// A Misfit is an event that is impossible in a state. Each is a bug of this package.
type Misfit struct {
	Of    string // what kind of state it is
	State string // that it was in, and has stayed in
	Event string
}

func (m Misfit) String() string {
	return fmt.Sprintf("%s: %q is impossible in the state %q", m.Of, m.Event, m.State)
}

// on changes the state as an event does, and returns the states before and after. An
// impossible event leaves the state as it is, and is reported.
func (l *life[S, E]) on(e E, t *table[S, E], report func(Misfit)) (before, after S) {
	before = l.now()
	after, ok := t.next(before, e)
	if !ok {
		report(Misfit{Of: t.of, State: before.String(), Event: e.String()})
		return before, before
	}
	l.state.Store(uint32(after))
	return before, after
}

// count is for those who count what is in some of the states.
func count(is bool) int32 {
	if is {
		return 1
	}
	return 0
}
