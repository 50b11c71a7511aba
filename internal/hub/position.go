package hub

// A Cursor is the sequence number of the entry that a reader will get next.
// The first entry of a log has sequence number 0.
type Cursor uint64

// A Position is a place between two entries: a cursor, and the id in force
// just before the entry that the cursor names.
type Position struct {
	Cursor Cursor

	// ID is the id a client standing here would resume with. It is empty when
	// no id is in force.
	ID string
}

// At returns the position at cursor c. It reports false if the log has passed
// it, or is not there yet.
func (l *Log) At(c Cursor) (Position, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if c < l.ring.tail || c > l.ring.head {
		return Position{}, false
	}
	return l.ring.position(c), true
}

// Newest returns the position after the newest entry: live.
func (l *Log) Newest() Position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.ring.position(l.ring.head)
}

// Oldest returns the position before the oldest entry that can be replayed.
func (l *Log) Oldest() Position {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.expire(now)
	return l.ring.position(l.ring.oldest())
}

// Tail returns the position before the oldest entry that is kept.
func (l *Log) Tail() Position {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.expire(now)
	return l.ring.position(l.ring.tail)
}

// Last returns the position before the newest n entries, or before the oldest
// if there are fewer.
func (l *Log) Last(n int) Position {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.expire(now)
	from := l.ring.oldest()
	if have := uint64(l.ring.head - from); uint64(n) < have {
		from = l.ring.head - Cursor(n)
	}
	return l.ring.position(from)
}

// After returns the position just after the newest entry that set id. It
// reports false if no entry that can be replayed, nor the position before the
// oldest of them, has this id.
func (l *Log) After(id string) (Position, bool) { return l.find(id, l.ring.after) }

// KeptAfter is After for all entries that are kept, also those that can no longer be
// replayed.
func (l *Log) KeptAfter(id string) (Position, bool) { return l.find(id, l.ring.keptAfter) }

func (l *Log) find(id string, after func(id string) (Cursor, bool)) (Position, bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.expire(now)
	c, ok := after(id)
	return Position{Cursor: c, ID: id}, ok
}

// FirstAfter returns the position just after the oldest entry that can be replayed and
// has set id. It looks through all of them.
func (l *Log) FirstAfter(id string) (Position, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for c := l.ring.oldest(); c < l.ring.head; c++ {
		if e := l.ring.at(c); e.setsID && e.id == id {
			return Position{Cursor: c + 1, ID: id}, true
		}
	}
	return Position{}, false
}

// FindID returns the newest id that an entry has set of which match reports true. It looks
// through all of them, and holds no lock while match is called.
func (l *Log) FindID(match func(id string) bool) (string, bool) {
	l.mu.RLock()
	ids := make([]string, 0, l.ring.head-l.ring.tail+1)
	for c := l.ring.head; c > l.ring.tail; c-- {
		if e := l.ring.at(c - 1); e.setsID {
			ids = append(ids, e.id)
		}
	}
	if l.ring.exact {
		ids = append(ids, l.ring.before)
	}
	l.mu.RUnlock()
	for _, id := range ids {
		if match(id) {
			return id, true
		}
	}
	return "", false
}

// FirstID returns the first id that an entry has set, from cursor c on. It is empty
// if none has.
func (l *Log) FirstID(c Cursor) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for c = max(c, l.ring.tail); c < l.ring.head; c++ {
		if e := l.ring.at(c); e.setsID && e.id != "" {
			return e.id
		}
	}
	return ""
}

// Match reports whether an entry equal to e, in id and bytes, is in the log at
// or after from, and returns the position after it. It looks at from itself,
// past what is no event, and at the newest entry that set the id of e: an entry
// that sets none can only be matched at from.
func (l *Log) Match(from Cursor, e Entry) (Cursor, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.ring.match(from, &e)
}
