package relay

import (
	"iter"
	"sync"
	"sync/atomic"
)

// A registry is a set that views walk through without a lock, however many come and go
// meanwhile: whoever is in it from the beginning of a walk to its end is seen once. Its zero
// value is empty. A place costs eight bytes, and is used again.
type registry[T any] struct {
	first atomic.Pointer[block[T]]
	count atomic.Int64

	mu sync.Mutex // nothing is taken inside of it

	// Guarded by mu.
	last *block[T]
	used int        // places of last
	free []*seat[T] // that were used before
}

// A seat is a place in a registry, which is empty or has an element.
type seat[T any] = atomic.Pointer[T]

// A block is some places. Those who walk go on with the next one.
type block[T any] struct {
	seats []seat[T]
	next  atomic.Pointer[block[T]]
}

// Each block has twice the places of the one before, between these.
const (
	smallestBlock = 4
	largestBlock  = 1024
)

// add puts an element into the registry. It returns its place, for remove.
func (r *registry[T]) add(element *T) *seat[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count.Add(1)
	s := r.place()
	s.Store(element)
	return s
}

// place returns an empty place. r.mu must be held.
func (r *registry[T]) place() *seat[T] {
	if n := len(r.free); n > 0 {
		s := r.free[n-1]
		r.free = r.free[:n-1]
		return s
	}
	switch {
	case r.last == nil:
		r.last = &block[T]{seats: make([]seat[T], smallestBlock)}
		r.first.Store(r.last)
	case r.used == len(r.last.seats):
		next := &block[T]{seats: make([]seat[T], min(2*r.used, largestBlock))}
		r.last.next.Store(next)
		r.last, r.used = next, 0
	}
	r.used++
	return &r.last.seats[r.used-1]
}

// remove takes an element from its place. A registry that is empty has no memory.
func (r *registry[T]) remove(s *seat[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Store(nil)
	if r.count.Add(-1) == 0 {
		r.first.Store(nil)
		r.last, r.used, r.free = nil, 0, nil
		return
	}
	r.free = append(r.free, s)
}

// all walks through the elements, in no order.
func (r *registry[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for b := r.first.Load(); b != nil; b = b.next.Load() {
			for i := range b.seats {
				if element := b.seats[i].Load(); element != nil && !yield(element) {
					return
				}
			}
		}
	}
}

func (r *registry[T]) len() int { return int(r.count.Load()) }
