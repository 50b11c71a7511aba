package quota

import (
	"container/heap"
	"container/list"
)

// Where a limit of topics is reached, the address that has opened most of
// them yields first. This file keeps the order, so that a topic that may go is found
// without a walk through all of them: each change costs the logarithm of the number
// of addresses at most.

// A kind says why a topic may be closed to make room for another.
type kind int

const (
	notSpare       kind = iota // too many use it, or newcomers cannot join it
	spareRefused               // the origin has said no, and it only answers those who come next
	spareLingering             // it has no subscribers
	spareOwn                   // all its subscribers are of the address that opened it
	spareShared                // clients of several addresses use it, each of which may hold many topics
	kinds
)

// An opener has the topics that an address has opened and that newcomers may
// join.
type opener[T any] struct {
	topics int
	spare  [kinds]list.List // of *Entry[T]: those that may be closed, in the order in which they became so; spareShared has none
	rank   [rankings]int    // 1 + its index in a ranking, or 0
}

// oldest returns the topic that has been spare for longest, or nil.
func (o *opener[T]) oldest(kind kind) *Entry[T] {
	if o == nil || o.spare[kind].Len() == 0 {
		return nil
	}
	return o.spare[kind].Front().Value.(*Entry[T])
}

// newest returns the topic that has been spare for the shortest time, or nil.
func (o *opener[T]) newest(kind kind) *Entry[T] {
	if o == nil || o.spare[kind].Len() == 0 {
		return nil
	}
	return o.spare[kind].Back().Value.(*Entry[T])
}

// The rankings of openers.
const (
	mostRefused   = iota // those with refused topics, by all topics
	mostLingering        // those with lingering topics, by all topics
	mostOwn              // those with topics for themselves alone, by all topics
	mostShared           // those with topics that some others use, by all topics
	mostIdle             // those with lingering topics, by these
	rankings
)

// spares has the topics of a relay that may be closed to make room.
type spares[T any] struct {
	moves    uint64 // how often a topic has become spare
	idle     int    // lingering topics
	rankings [rankings]ranking[T]
}

func newSpares[T any]() *spares[T] {
	s := new(spares[T])
	for i := range s.rankings {
		s.rankings[i].which = i
	}
	return s
}

// set says that e, which o has opened, is spare from now on, or is not.
func (s *spares[T]) set(e *Entry[T], o *opener[T], kind kind) {
	if e.kind == kind {
		return
	}
	if e.kind != notSpare {
		o.spare[e.kind].Remove(e.at)
		e.at = nil
	}
	if e.kind == spareLingering {
		s.idle--
	}
	e.kind = kind
	if kind != notSpare {
		s.moves++
		e.since = s.moves
		e.at = o.spare[kind].PushBack(e)
	}
	if kind == spareLingering {
		s.idle++
	}
	s.rerank(o)
}

// rerank moves o to where it belongs. It is called after every change to o.
func (s *spares[T]) rerank(o *opener[T]) {
	for i := range s.rankings {
		r := &s.rankings[i]
		has, ranked := o.spare[r.kind()].Len() > 0, o.rank[i] > 0
		switch {
		case has && ranked:
			heap.Fix(r, o.rank[i]-1)
		case has:
			heap.Push(r, o)
		case ranked:
			heap.Remove(r, o.rank[i]-1)
		}
	}
}

// most returns the first of a ranking, or nil.
func (s *spares[T]) most(ranking int) *opener[T] {
	if len(s.rankings[ranking].openers) == 0 {
		return nil
	}
	return s.rankings[ranking].openers[0]
}

// A ranking is a heap of the openers that have spare topics of a kind, those that
// hold most first, and of those that hold as much the one whose topic has been spare
// for longest.
type ranking[T any] struct {
	which   int
	openers []*opener[T]
}

func (r *ranking[T]) kind() kind {
	switch r.which {
	case mostRefused:
		return spareRefused
	case mostOwn:
		return spareOwn
	case mostShared:
		return spareShared
	default:
		return spareLingering
	}
}

func (r *ranking[T]) holds(o *opener[T]) int {
	if r.which == mostIdle {
		return o.spare[spareLingering].Len()
	}
	return o.topics
}

// Len implements heap.Interface.
func (r *ranking[T]) Len() int { return len(r.openers) }

// Less implements heap.Interface.
func (r *ranking[T]) Less(i, j int) bool {
	a, b := r.openers[i], r.openers[j]
	if has, other := r.holds(a), r.holds(b); has != other {
		return has > other
	}
	return a.oldest(r.kind()).since < b.oldest(r.kind()).since
}

// Swap implements heap.Interface.
func (r *ranking[T]) Swap(i, j int) {
	r.openers[i], r.openers[j] = r.openers[j], r.openers[i]
	r.openers[i].rank[r.which], r.openers[j].rank[r.which] = i+1, j+1
}

// Push implements heap.Interface.
func (r *ranking[T]) Push(o any) {
	r.openers = append(r.openers, o.(*opener[T]))
	o.(*opener[T]).rank[r.which] = len(r.openers)
}

// Pop implements heap.Interface.
func (r *ranking[T]) Pop() any {
	last := len(r.openers) - 1
	o := r.openers[last]
	r.openers[last] = nil
	r.openers = r.openers[:last]
	o.rank[r.which] = 0
	return o
}

// Interface guards
var _ heap.Interface = (*ranking[any])(nil)
