package hub

import (
	"bytes"
	"maps"
	"slices"
	"sort"
	"time"
)

// The ring keeps entries for readers that are merely a little behind, whatever
// Limits.Events says: slack of them, and what has come within slackTime, up to
// maxSlack. With a history of one, a reader that is not scheduled between two events
// of a burst would lag otherwise, and with one of a thousand, all readers of a
// stream of five thousand events a second if the machine is busy for a moment. They
// count for Limits.Bytes and Limits.Age all the same, and are never replayed.
const (
	slack     = 1024
	slackTime = 2 * time.Second
	maxSlack  = 16 << 10
)

// Segments grow with what the ring holds, so that a quiet log stays small.
const (
	minSegment = 1 << 10
	maxSegment = 64 << 10
)

// minRing is the length of the shortest ring.
const minRing = 4

// A segment holds the bytes of consecutive entries back to back, so that what
// a reader has to take is one run of bytes however many entries it spans. It is
// only ever appended to: readers keep looking at what they were given, without
// a lock, while more is added behind it.
//
// A segment is kept for as long as any of its entries is, and the newest has
// room for more. Those between waste an eighth of their bytes at most (see
// write). An entry that is large beside the others has a segment of its own.
type segment struct {
	buf  []byte
	last Cursor // the newest entry in it
}

// An entry is what the ring knows of one event. There is one for every event of
// every log: it is laid out to be small.
type entry struct {
	time    time.Duration // since the log began
	id      string        // in force after it
	segment *segment
	size    int
	offset  uint32 // below maxSegment, as what is larger has a segment of its own
	setsID  bool
	aside   bool
	gap     bool
}

// A ring holds the newest entries. The entry with sequence number c is
// at slots[c % len(slots)], for tail <= c < head; len(slots) is a power of two. It
// is not safe for concurrent use.
type ring struct {
	limits Limits

	slots      []entry
	tail, head Cursor
	bytes      int    // of the entries kept
	giant      Cursor // the entry that is larger than the bound provides for, if giantSize says that there is one
	giantSize  int
	newest     *segment

	// index has, for each id that an entry set, the newest entry that did.
	index map[string]Cursor

	// id is the id in force at head.
	id string

	// before is the id in force at tail. It names that position exactly only
	// if exact: then whoever resumes with it has missed nothing. Otherwise
	// events without an id of their own lay between it and tail.
	before string
	exact  bool
}

func newRing(limits Limits) ring {
	return ring{limits: limits, index: make(map[string]Cursor)}
}

func (r *ring) startAfter(id string) {
	r.id, r.before, r.exact = id, id, id != ""
}

func (r *ring) at(c Cursor) *entry {
	return &r.slots[uint64(c)&uint64(len(r.slots)-1)]
}

// oldest is the first entry that can be replayed.
func (r *ring) oldest() Cursor {
	if n := Cursor(r.limits.Events); r.head-r.tail > n {
		return r.head - n
	}
	return r.tail
}

// position returns the position before entry c.
func (r *ring) position(c Cursor) Position {
	switch c {
	case r.head:
		return Position{Cursor: c, ID: r.id}
	case r.tail:
		return Position{Cursor: c, ID: r.before}
	}
	return Position{Cursor: c, ID: r.at(c - 1).id}
}

// after returns the cursor behind the newest entry that set id, if what follows
// can be replayed.
func (r *ring) after(id string) (Cursor, bool) {
	c, ok := r.keptAfter(id)
	if !ok || c < r.oldest() {
		return 0, false
	}
	return c, true
}

// keptAfter returns the cursor behind the newest entry that set id.
func (r *ring) keptAfter(id string) (Cursor, bool) {
	if c, ok := r.index[id]; ok {
		return c + 1, true
	}
	if r.exact && id == r.before {
		return r.tail, true
	}
	return 0, false
}

// run returns the bytes of the entries from c on, as far as they lie in one
// segment, and the cursor behind them.
func (r *ring) run(c Cursor) ([]byte, Cursor) {
	e := r.at(c)
	return slices.Clip(e.segment.buf[e.offset:]), e.segment.last + 1
}

// runUntil returns the bytes of the entries in [c, limit), which lie in one segment.
func (r *ring) runUntil(c, limit Cursor) []byte {
	e, last := r.at(c), r.at(limit-1)
	end := int(last.offset) + last.size
	return e.segment.buf[e.offset:end:end]
}

func (r *ring) wire(e *entry) []byte {
	return e.segment.buf[e.offset:][:e.size]
}

func (r *ring) match(from Cursor, e *Entry) (Cursor, bool) {
	next := from
	for next >= r.tail && next < r.head && r.at(next).aside && !e.Aside {
		next++
	}
	// The index knows only the newest entry of an id that came repeatedly: a
	// replay of those goes on from one to the next.
	if r.equal(next, e) {
		return next + 1, true
	}
	if e.SetsID {
		if c, ok := r.index[e.ID]; ok && c >= from && r.equal(c, e) {
			return c + 1, true
		}
	}
	return from, false
}

// equal reports whether the log has e as entry c.
func (r *ring) equal(c Cursor, e *Entry) bool {
	if c < r.tail || c >= r.head {
		return false
	}
	have := r.at(c)
	return have.setsID == e.SetsID && (!e.SetsID || have.id == e.ID) && bytes.Equal(r.wire(have), e.Wire)
}

func (r *ring) append(e *Entry, now time.Duration) {
	// Make room first, so that the bounds hold at every moment.
	r.expire(now)
	size, giantSize := len(e.Wire), 0
	if size > r.limits.Bytes/2 {
		size, giantSize = 0, size
	}
	for r.head > r.tail && (r.bytes-r.giantSize+size > r.limits.Bytes || giantSize > 0 && r.giantSize > 0) {
		r.evict()
	}
	for r.full(now) {
		r.evict()
	}
	r.fit()

	var (
		s      *segment
		offset int
	)
	if e.Gap {
		r.seal() // it stands between two runs of bytes
		s = new(segment)
	} else {
		s, offset = r.write(e.Wire)
	}
	s.last = r.head

	if e.SetsID {
		r.id = e.ID
		if e.ID != "" {
			r.index[e.ID] = r.head
		}
	}
	*r.at(r.head) = entry{
		time:    now,
		id:      r.id,
		segment: s,
		size:    len(e.Wire),
		offset:  uint32(offset),
		setsID:  e.SetsID,
		aside:   e.Aside,
		gap:     e.Gap,
	}
	if giantSize > 0 {
		r.giant, r.giantSize = r.head, giantSize
	}
	r.head++
	r.bytes += len(e.Wire)
}

// full reports whether the oldest entry is to make room for another.
func (r *ring) full(now time.Duration) bool {
	n := int(r.head - r.tail)
	return n >= max(r.limits.Events, maxSlack) ||
		n >= max(r.limits.Events, slack) && now-r.at(r.tail).time >= slackTime
}

// fit gives the ring a place for one more entry, and gives back the memory of a
// burst: neither a ring nor a map shrinks by itself.
func (r *ring) fit() {
	n := int(r.head - r.tail)
	size := max(minRing, len(r.slots))
	for n >= size {
		size *= 2
	}
	for n < size/4 && size > minRing {
		size /= 2
	}
	if size == len(r.slots) {
		return
	}
	if size < len(r.slots) {
		index := make(map[string]Cursor, len(r.index))
		maps.Copy(index, r.index)
		r.index = index
	}
	old := *r
	r.slots = make([]entry, size)
	for c := r.tail; c < r.head; c++ {
		*r.at(c) = *old.at(c)
	}
}

// write puts the bytes of an entry where they stay, and returns the segment and
// the offset in it.
func (r *ring) write(wire []byte) (*segment, int) {
	s := r.newest
	if s != nil && len(wire) <= cap(s.buf)-len(s.buf) {
		s.buf = append(s.buf, wire...)
		return s, len(s.buf) - len(wire)
	}
	r.seal()
	s = new(segment)
	if room := min(maxSegment, max(minSegment, r.bytes)); len(wire) < room/4 {
		s.buf = append(make([]byte, 0, room), wire...)
	} else {
		s.buf = slices.Clip(bytes.Clone(wire))
	}
	r.newest = s
	return s, 0
}

// seal ends the newest segment.
func (r *ring) seal() {
	if s := r.newest; s != nil && cap(s.buf)-len(s.buf) > len(s.buf)/8 {
		// Too much would stay empty. Who reads the old bytes goes on with them.
		s.buf = slices.Clip(bytes.Clone(s.buf))
	}
	r.newest = nil
}

// expire drops the entries that have reached their age.
func (r *ring) expire(now time.Duration) {
	tail := r.tail
	for r.tail < r.head && now-r.at(r.tail).time >= r.limits.Age {
		r.evict()
	}
	switch r.tail {
	case tail:
	case r.head:
		r.clear()
	default:
		r.fit()
	}
}

// drop forgets all entries.
func (r *ring) drop() {
	for r.tail < r.head {
		r.evict()
	}
	r.clear()
}

// clear gives back the memory of a log that has no entries.
func (r *ring) clear() {
	r.newest, r.slots = nil, nil
	r.index = make(map[string]Cursor)
}

// due returns when the oldest entry will have grown too old.
func (r *ring) due() (time.Duration, bool) {
	if r.tail == r.head {
		return 0, false
	}
	return r.at(r.tail).time + r.limits.Age, true
}

// rateWindow is how far back rate looks.
const rateWindow = 10 * time.Second

// rate returns how many entries came per second, from what the log has of them:
// counting costs a publisher nothing.
func (r *ring) rate(now time.Duration) float64 {
	n := sort.Search(int(r.head-r.tail), func(n int) bool {
		return now-r.at(r.head-1-Cursor(n)).time > rateWindow
	})
	if n == 0 {
		return 0
	}
	window := min(rateWindow, max(now, time.Second))
	if r.tail > 0 && n == int(r.head-r.tail) {
		// It may have dropped some that came within the window.
		window = min(window, max(now-r.at(r.tail).time, time.Millisecond))
	}
	return float64(n) / window.Seconds()
}

func (r *ring) evict() {
	e := r.at(r.tail)
	if !e.aside {
		r.before, r.exact = e.id, e.setsID && e.id != ""
	}
	if e.setsID && r.index[e.id] == r.tail {
		delete(r.index, e.id)
	}
	r.bytes -= e.size
	if r.tail == r.giant {
		r.giantSize = 0
	}
	*e = entry{}
	r.tail++
}
