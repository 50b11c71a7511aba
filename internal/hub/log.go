package hub

import (
	"bytes"
	"maps"
	"slices"
	"sort"
	"time"
)

// The log keeps entries for readers that are merely a little behind, whatever
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

// Segments grow with what the log holds, so that a quiet topic stays small.
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

// An entry is what the log knows of one event. There is one for every event of
// every topic: it is laid out to be small.
type entry struct {
	time    time.Duration // since the topic began
	id      string        // in force after it
	segment *segment
	size    int
	offset  uint32 // below maxSegment, as what is larger has a segment of its own
	setsID  bool
	aside   bool
	gap     bool
}

// A log is a ring of the newest entries. The entry with sequence number c is
// at ring[c % len(ring)], for tail <= c < head; len(ring) is a power of two. It
// is not safe for concurrent use.
type log struct {
	limits Limits

	ring       []entry
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

func newLog(limits Limits) log {
	return log{limits: limits, index: make(map[string]Cursor)}
}

func (l *log) startAfter(id string) {
	l.id, l.before, l.exact = id, id, id != ""
}

func (l *log) at(c Cursor) *entry {
	return &l.ring[uint64(c)&uint64(len(l.ring)-1)]
}

// oldest is the first entry that can be replayed.
func (l *log) oldest() Cursor {
	if n := Cursor(l.limits.Events); l.head-l.tail > n {
		return l.head - n
	}
	return l.tail
}

// position returns the position before entry c.
func (l *log) position(c Cursor) Position {
	switch c {
	case l.head:
		return Position{Cursor: c, ID: l.id}
	case l.tail:
		return Position{Cursor: c, ID: l.before}
	}
	return Position{Cursor: c, ID: l.at(c - 1).id}
}

// after returns the cursor behind the newest entry that set id, if what follows
// can be replayed.
func (l *log) after(id string) (Cursor, bool) {
	c, ok := l.keptAfter(id)
	if !ok || c < l.oldest() {
		return 0, false
	}
	return c, true
}

// keptAfter returns the cursor behind the newest entry that set id.
func (l *log) keptAfter(id string) (Cursor, bool) {
	if c, ok := l.index[id]; ok {
		return c + 1, true
	}
	if l.exact && id == l.before {
		return l.tail, true
	}
	return 0, false
}

// run returns the bytes of the entries from c on, as far as they lie in one
// segment, and the cursor behind them.
func (l *log) run(c Cursor) ([]byte, Cursor) {
	e := l.at(c)
	return slices.Clip(e.segment.buf[e.offset:]), e.segment.last + 1
}

// runUntil returns the bytes of the entries in [c, limit), which lie in one segment.
func (l *log) runUntil(c, limit Cursor) []byte {
	e, last := l.at(c), l.at(limit-1)
	end := int(last.offset) + last.size
	return e.segment.buf[e.offset:end:end]
}

func (l *log) wire(e *entry) []byte {
	return e.segment.buf[e.offset:][:e.size]
}

func (l *log) match(from Cursor, e *Entry) (Cursor, bool) {
	next := from
	for next >= l.tail && next < l.head && l.at(next).aside && !e.Aside {
		next++
	}
	// The index knows only the newest entry of an id that came repeatedly: a
	// replay of those goes on from one to the next.
	if l.equal(next, e) {
		return next + 1, true
	}
	if e.SetsID {
		if c, ok := l.index[e.ID]; ok && c >= from && l.equal(c, e) {
			return c + 1, true
		}
	}
	return from, false
}

// equal reports whether the log has e as entry c.
func (l *log) equal(c Cursor, e *Entry) bool {
	if c < l.tail || c >= l.head {
		return false
	}
	have := l.at(c)
	return have.setsID == e.SetsID && (!e.SetsID || have.id == e.ID) && bytes.Equal(l.wire(have), e.Wire)
}

func (l *log) append(e *Entry, now time.Duration) {
	// Make room first, so that the bounds hold at every moment.
	l.expire(now)
	size, giantSize := len(e.Wire), 0
	if size > l.limits.Bytes/2 {
		size, giantSize = 0, size
	}
	for l.head > l.tail && (l.bytes-l.giantSize+size > l.limits.Bytes || giantSize > 0 && l.giantSize > 0) {
		l.evict()
	}
	for l.full(now) {
		l.evict()
	}
	l.fit()

	var (
		s      *segment
		offset int
	)
	if e.Gap {
		l.seal() // it stands between two runs of bytes
		s = new(segment)
	} else {
		s, offset = l.write(e.Wire)
	}
	s.last = l.head

	if e.SetsID {
		l.id = e.ID
		if e.ID != "" {
			l.index[e.ID] = l.head
		}
	}
	*l.at(l.head) = entry{
		time:    now,
		id:      l.id,
		segment: s,
		size:    len(e.Wire),
		offset:  uint32(offset),
		setsID:  e.SetsID,
		aside:   e.Aside,
		gap:     e.Gap,
	}
	if giantSize > 0 {
		l.giant, l.giantSize = l.head, giantSize
	}
	l.head++
	l.bytes += len(e.Wire)
}

// full reports whether the oldest entry is to make room for another.
func (l *log) full(now time.Duration) bool {
	n := int(l.head - l.tail)
	return n >= max(l.limits.Events, maxSlack) ||
		n >= max(l.limits.Events, slack) && now-l.at(l.tail).time >= slackTime
}

// fit gives the ring a place for one more entry, and gives back the memory of a
// burst: neither a ring nor a map shrinks by itself.
func (l *log) fit() {
	n := int(l.head - l.tail)
	size := max(minRing, len(l.ring))
	for n >= size {
		size *= 2
	}
	for n < size/4 && size > minRing {
		size /= 2
	}
	if size == len(l.ring) {
		return
	}
	if size < len(l.ring) {
		index := make(map[string]Cursor, len(l.index))
		maps.Copy(index, l.index)
		l.index = index
	}
	old := *l
	l.ring = make([]entry, size)
	for c := l.tail; c < l.head; c++ {
		*l.at(c) = *old.at(c)
	}
}

// write puts the bytes of an entry where they stay, and returns the segment and
// the offset in it.
func (l *log) write(wire []byte) (*segment, int) {
	s := l.newest
	if s != nil && len(wire) <= cap(s.buf)-len(s.buf) {
		s.buf = append(s.buf, wire...)
		return s, len(s.buf) - len(wire)
	}
	l.seal()
	s = new(segment)
	if room := min(maxSegment, max(minSegment, l.bytes)); len(wire) < room/4 {
		s.buf = append(make([]byte, 0, room), wire...)
	} else {
		s.buf = slices.Clip(bytes.Clone(wire))
	}
	l.newest = s
	return s, 0
}

// seal ends the newest segment.
func (l *log) seal() {
	if s := l.newest; s != nil && cap(s.buf)-len(s.buf) > len(s.buf)/8 {
		// Too much would stay empty. Who reads the old bytes goes on with them.
		s.buf = slices.Clip(bytes.Clone(s.buf))
	}
	l.newest = nil
}

// expire drops the entries that have reached their age.
func (l *log) expire(now time.Duration) {
	tail := l.tail
	for l.tail < l.head && now-l.at(l.tail).time >= l.limits.Age {
		l.evict()
	}
	switch l.tail {
	case tail:
	case l.head:
		l.clear()
	default:
		l.fit()
	}
}

// drop forgets all entries.
func (l *log) drop() {
	for l.tail < l.head {
		l.evict()
	}
	l.clear()
}

// clear gives back the memory of a log that has no entries.
func (l *log) clear() {
	l.newest, l.ring = nil, nil
	l.index = make(map[string]Cursor)
}

// due returns when the oldest entry will have grown too old.
func (l *log) due() (time.Duration, bool) {
	if l.tail == l.head {
		return 0, false
	}
	return l.at(l.tail).time + l.limits.Age, true
}

// rateWindow is how far back rate looks.
const rateWindow = 10 * time.Second

// rate returns how many entries came per second, from what the log has of them:
// counting costs a publisher nothing.
func (l *log) rate(now time.Duration) float64 {
	n := sort.Search(int(l.head-l.tail), func(n int) bool {
		return now-l.at(l.head-1-Cursor(n)).time > rateWindow
	})
	if n == 0 {
		return 0
	}
	window := min(rateWindow, max(now, time.Second))
	if l.tail > 0 && n == int(l.head-l.tail) {
		// It may have dropped some that came within the window.
		window = min(window, max(now-l.at(l.tail).time, time.Millisecond))
	}
	return float64(n) / window.Seconds()
}

func (l *log) evict() {
	e := l.at(l.tail)
	if !e.aside {
		l.before, l.exact = e.id, e.setsID && e.id != ""
	}
	if e.setsID && l.index[e.id] == l.tail {
		delete(l.index, e.id)
	}
	l.bytes -= e.size
	if l.tail == l.giant {
		l.giantSize = 0
	}
	*e = entry{}
	l.tail++
}
