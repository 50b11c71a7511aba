package gzip

import (
	"math"
	"slices"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// Await reports whether a reader that is at a cursor, and has had nothing but the log since
// another, gets in step there, once it calls Stream.Enter. Otherwise it returns the cursor in
// front of which the reader is sent stored blocks, and asks again.
func (r *Rendition) Await(since, at hub.Cursor) (limit hub.Cursor, isDue bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, isDue, limit = r.await(since, at)
	return limit, isDue || at == r.cut
}

// await returns the restart point at which a reader at a cursor, which has had nothing but the
// log since another, gets in step, if it can now. Otherwise it returns the cursor of the one
// that it will meet, if that is known. r.mu must be held.
//
// It compresses nothing: a reader that gets stored blocks may be ahead of the pieces. So if a
// restart point is due, it will be where the log ends now, where no such reader is ahead of it.
func (r *Rendition) await(since, at hub.Cursor) (m Mark, ok bool, limit hub.Cursor) {
	if next, ok := r.restartFrom(since, at); ok {
		return next, next.cursor == at, next.cursor
	}
	if r.inStep == 0 && at != r.end.cursor {
		r.begin(at) // nobody needs what lies before it
	}
	if r.isWanted() {
		if r.cut = r.log.Newest().Cursor; r.cut == r.end.cursor {
			r.refresh()
		}
	}
	switch {
	case r.isFresh && since <= r.known && at <= r.end.cursor:
		return r.end, at == r.end.cursor, r.end.cursor
	case at <= r.cut: // also if there is none
		return Mark{}, false, r.cut
	}
	return Mark{}, false, math.MaxUint64
}

// isWanted reports whether another restart point is due for those that wait. r.mu must be held.
func (r *Rendition) isWanted() bool {
	switch {
	case r.isFresh, r.cut != uncut:
		return false
	case r.inStep == 0:
		return true
	}
	return r.wasted >= r.inStep*restartCost && r.sinceStart >= minDistance || r.sinceStart >= maxDistance
}

// reach makes pieces up to the cut, for a reader that has got there. It reports whether it is
// worth asking again whether the reader gets in step.
func (r *Rendition) reach(at hub.Cursor) bool {
	r.mu.Lock()
	end, cut := r.end, r.cut
	r.mu.Unlock()
	if at != cut {
		return true // another reader has made them
	}
	made, lags := r.extend(end, cut)
	if !lags {
		return made
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end.Is(end) {
		r.begin(at) // the log has passed all who were in step
	}
	return true
}

// refresh makes the next piece a restart point. r.mu must be held.
func (r *Rendition) refresh() {
	r.isFresh, r.known, r.cut = true, r.end.cursor, uncut
	if r.inStep > 0 {
		r.known = r.familiar()
	}
}

// familiar returns from where on all readers that are in step have had nothing but the log, for
// minKnown bytes if there are as many. r.mu must be held.
func (r *Rendition) familiar() hub.Cursor {
	known, size := r.end.cursor, 0
	for _, p := range slices.Backward(r.pieces) {
		if p.isWord || size >= minKnown {
			break
		}
		known = p.from.cursor
		size += p.plain
	}
	return known
}

// restartFrom returns the first restart point at a cursor or behind it which refers to nothing
// in front of another. r.mu must be held.
func (r *Rendition) restartFrom(since, at hub.Cursor) (Mark, bool) {
	first := len(r.pieces)
	for first > 0 && r.pieces[first-1].from.cursor >= at {
		first--
	}
	for _, p := range r.pieces[first:] {
		if p.restart && since <= p.known {
			return p.from, true
		}
	}
	return Mark{}, false
}
