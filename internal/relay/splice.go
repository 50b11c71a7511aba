package relay

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A catch-up is spliced into its topic's log where both have an event. Two questions
// decide whether its subscribers may go on in the log from there: whether anything is
// missing between what the catch-up has brought and that event, and whether the origin has
// passed over where the log ended when the catch-up began. Each has a table, of which the
// first case that applies decides. In the pictures, the upper line is the catch-up, asked
// for what follows 7, the lower one is the log, and [ ] is the event that both have.

// A meeting is an event that a catch-up and its topic's log both have. c.mu must be held.
type meeting struct {
	*catchup
	at hub.Cursor // behind the event, in the topic's log
	id string     // of the event

	before    hub.Position // in front of the event, in the topic's log
	hasBefore bool
	from      hub.Cursor   // where the log begins, or its last gap
	first     hub.Position // there
	lost      bool         // the log has lost its beginning since the catch-up has begun
}

// A ruling is a case of a table.
type ruling struct {
	name    string
	applies func(m *meeting) bool
	joins   bool // the subscribers may go on in the log
}

// missing says whether anything is missing between what the catch-up has brought and the
// event that both have.
var missing = []ruling{
	// Whoever has the greeting goes on with what came after it.
	{"a greeting", func(m *meeting) bool { return m.catchup.id.ID == "" }, true},

	//	8 ─ 9 ─[10]
	//	    9 ─[10]─ 11
	{"the next event", func(m *meeting) bool { return m.hasBefore && m.before.ID == m.lastID }, true},

	// The log's beginning was lost while the origin was silent, or was away. It must have
	// come by here, unless it is what came after the log's end that is met.
	//
	//	─────────[12]
	//	(9 ─ 10)─[12]
	{"past the log's lost beginning", func(m *meeting) bool {
		_, passed := m.log.After(m.floorID)
		return m.lost && m.at <= m.start.Cursor && m.floorID != "" && !passed && m.id != m.floorID
	}, false},

	// What the log itself has not, is not missing.
	//
	//	8 ─ 9 ─[10]
	//	       [10]─ 11
	{"the log's first event", func(m *meeting) bool { return m.at <= m.from+1 }, true},

	//	8 ─ 9 ─────[10]
	//	     x ─ x ─[10]─ 11     (x have no id)
	{"the log's first event with an id", func(m *meeting) bool { return m.hasBefore && m.first.ID == m.before.ID }, true},

	// The origin has ignored the id, or has not got all.
	//
	//	────────────[12]
	//	10 ─ 11 ─────[12]
	{"a hole", func(*meeting) bool { return true }, false},
}

// jumping says whether the origin has passed over where the log ended when the catch-up
// began (|), to go on with what came later: it has ignored the id, and its next events came
// here sooner than to the log.
var jumping = []ruling{
	{"nothing with an id", func(m *meeting) bool { return m.catchup.id.ID == "" || m.firstID == "" }, true},

	//	8 ─ 9 ─[10]
	//	       [10]─ 11 |
	{"in what the log had", func(m *meeting) bool { return m.at <= m.start.Cursor }, true},

	// An origin that refuses an id ignores none.
	{"the origin refuses ids", func(m *meeting) bool { return m.group.topic.refusedSince(m.start.Cursor) }, true},

	// It was a newer id, to which the log has come.
	//
	//	           8 ─[9]
	//	5 | 6 ─ 7 ─ 8 ─[9]
	{"what followed the id", func(m *meeting) bool {
		next := m.successor.Load()
		return next != nil && *next == m.firstID
	}, true},
	{"something else than what followed the id", func(m *meeting) bool { return m.successor.Load() != nil }, false},

	//	─────── [13]
	//	11 ─ 12 |[13]
	{"past the log's end", func(m *meeting) bool {
		end := m.end()
		_, passed := m.log.After(end)
		return end != "" && !passed
	}, false},

	//	8 ─ 9 ─[10]
	//	      |[10]
	{"by the log's end", func(*meeting) bool { return true }, true},
}

// end returns the id in force where the log ended when the catch-up began, or the first
// since then.
func (m *meeting) end() string {
	if next := m.next.Load(); m.start.ID == "" && next != nil {
		return *next // there was no event yet, or none since a gap
	}
	return m.start.ID
}

// rule returns the first case of a table that applies.
func (m *meeting) rule(table []ruling) *ruling {
	for i := range table {
		if table[i].applies(m) {
			return &table[i]
		}
	}
	return nil
}

// meetingAt returns the meeting at the event with an id, behind which the topic's log has
// the position at. c.mu must be held.
func (c *catchup) meetingAt(at hub.Cursor, id string) *meeting {
	t := c.group.topic
	m := &meeting{catchup: c, at: at, id: id, from: max(c.floor, t.noticed())}
	m.before, m.hasBefore = t.log.At(at - 1)
	var ok bool
	if m.first, ok = t.log.At(m.from); !ok {
		m.lost = true
		m.first = t.log.Tail()
		m.from = m.first.Cursor
	}
	return m
}

// continues reports whether nothing is missing in front of an event that both have. c.mu
// must be held.
func (c *catchup) continues(at hub.Cursor, id string) bool {
	r := c.meetingAt(at, id).rule(missing)
	c.met.missing = r.name
	return r.joins
}

// jumped reports whether the origin has passed over the log's end, to come to an event
// that both have. c.mu must be held.
func (c *catchup) jumped(at hub.Cursor) bool {
	r := (&meeting{catchup: c, at: at}).rule(jumping)
	c.met.jumping = r.name
	return !r.joins
}

// meet looks whether the topic's log has come to have what is here: the catch-up
// may run ahead of it. Then no more is taken from the origin, and the catch-up is
// spliced as soon as the log has the last event too.
func (c *catchup) meet() (met bool) {
	t := c.group.topic
	c.mu.Lock()
	defer c.mu.Unlock()
	if over := c.progress.now().isOver(); over || c.lastID == "" {
		return over
	}
	if c.progress.is(progressWhole) && t.noticed() > c.wholeAt {
		c.progressOn(progressParts)
	}
	at, ok := c.place()
	if !ok && c.events > 0 && c.progress.is(progressFetching) {
		newest := t.logEnd()
		if newest.ID == "" || newest.ID == c.id.ID {
			return false
		}
		if _, here := c.log.After(newest.ID); !here {
			return false
		}
		c.wholeAt = newest.Cursor
		c.progressOn(progressMeets)
		at, ok = c.place() // it may just have come
	}
	switch {
	case !ok:
		return false
	case c.jumped(at):
		c.finish(false, at, errCatchupIgnored)
	default:
		c.finish(true, at, nil)
	}
	return true
}

// place returns where in the topic's log the last id here is, or was: nothing more is
// taken from the origin if the catch-up is whole. c.mu must be held.
func (c *catchup) place() (hub.Cursor, bool) {
	if a := c.newest.Load(); c.progress.is(progressWhole) && a != nil && a.id == c.lastID {
		if at := hub.Cursor(a.come.Load()); at > 0 {
			return at, true
		}
	}
	at, ok := c.group.topic.log.KeptAfter(c.lastID)
	return at.Cursor, ok
}
