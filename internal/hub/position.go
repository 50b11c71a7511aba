package hub

// A Cursor is the sequence number of the entry that a reader will get next.
// The first entry of a topic has sequence number 0.
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
func (t *Topic) At(c Cursor) (Position, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if c < t.log.tail || c > t.log.head {
		return Position{}, false
	}
	return t.log.position(c), true
}

// Newest returns the position after the newest entry: live.
func (t *Topic) Newest() Position {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.log.position(t.log.head)
}

// Oldest returns the position before the oldest entry that can be replayed.
func (t *Topic) Oldest() Position {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	return t.log.position(t.log.oldest())
}

// Tail returns the position before the oldest entry that is kept.
func (t *Topic) Tail() Position {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	return t.log.position(t.log.tail)
}

// Last returns the position before the newest n entries, or before the oldest
// if there are fewer.
func (t *Topic) Last(n int) Position {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	from := t.log.oldest()
	if have := uint64(t.log.head - from); uint64(n) < have {
		from = t.log.head - Cursor(n)
	}
	return t.log.position(from)
}

// After returns the position just after the newest entry that set id. It
// reports false if no entry that can be replayed, nor the position before the
// oldest of them, has this id.
func (t *Topic) After(id string) (Position, bool) { return t.find(id, t.log.after) }

// KeptAfter is After for all entries that are kept, also those that can no longer be
// replayed.
func (t *Topic) KeptAfter(id string) (Position, bool) { return t.find(id, t.log.keptAfter) }

func (t *Topic) find(id string, after func(id string) (Cursor, bool)) (Position, bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	c, ok := after(id)
	return Position{Cursor: c, ID: id}, ok
}

// FirstAfter returns the position just after the oldest entry that can be replayed and
// has set id. It looks through all of them.
func (t *Topic) FirstAfter(id string) (Position, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for c := t.log.oldest(); c < t.log.head; c++ {
		if e := t.log.at(c); e.setsID && e.id == id {
			return Position{Cursor: c + 1, ID: id}, true
		}
	}
	return Position{}, false
}

// FindID returns the newest id that an entry has set of which match reports true. It looks
// through all of them, and holds no lock while match is called.
func (t *Topic) FindID(match func(id string) bool) (string, bool) {
	t.mu.RLock()
	ids := make([]string, 0, t.log.head-t.log.tail+1)
	for c := t.log.head; c > t.log.tail; c-- {
		if e := t.log.at(c - 1); e.setsID {
			ids = append(ids, e.id)
		}
	}
	if t.log.exact {
		ids = append(ids, t.log.before)
	}
	t.mu.RUnlock()
	for _, id := range ids {
		if match(id) {
			return id, true
		}
	}
	return "", false
}

// FirstID returns the first id that an entry has set, from cursor c on. It is empty
// if none has.
func (t *Topic) FirstID(c Cursor) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for c = max(c, t.log.tail); c < t.log.head; c++ {
		if e := t.log.at(c); e.setsID && e.id != "" {
			return e.id
		}
	}
	return ""
}

// Match reports whether an entry equal to e, in id and bytes, is in the log at
// or after from, and returns the position after it. It looks at from itself,
// past what is no event, and at the newest entry that set the id of e: an entry
// that sets none can only be matched at from.
func (t *Topic) Match(from Cursor, e Entry) (Cursor, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.log.match(from, &e)
}
