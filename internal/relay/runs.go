package relay

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// An origin may begin its stream anew: it has ended, or was restarted, and counts from
// one again. What it sends then is in the log already, to the byte, and is no replay of it.
// A connection begins a new run if it begins with an event that an earlier one began with,
// which is not the one that follows the id that the origin was asked with, and
//
//   - the origin had ended the last connection as a stream should end, or
//   - the events come at the pace at which they came before: an origin that ignores the
//     last event id, and begins with what was there before, sends that at once.

// runPatience is for how long a connection must have brought nothing but what was there
// before for its pace to tell.
const runPatience = time.Second

// maxRunStarts is how many events are known that a connection has begun with.
const maxRunStarts = 8

// A runStart is an event that a connection has begun with.
type runStart struct {
	id  string
	sum uint64 // of its bytes
}

var runSeed = maphash.MakeSeed()

func startOf(e *hub.Entry) runStart { return runStart{e.ID, maphash.Bytes(runSeed, e.Wire)} }

// A rerun is a connection that may begin a new run.
type rerun struct {
	possible bool         // it has begun with an event that an earlier one began with
	since    time.Time    // when that came
	held     []hub.Cursor // where in the log the events are that have come since
}

// begins takes note of the first event of a connection.
func (c *connection) begins(e *hub.Entry) {
	u, start := c.up, startOf(e)
	c.begun = true
	if !e.SetsID {
		return
	}
	if i := slices.Index(u.starts, start); i >= 0 {
		c.rerun = rerun{possible: !c.resumesWith(e), since: time.Now()}
		u.starts = slices.Delete(u.starts, i, i+1)
	}
	u.starts = append(u.starts, start)
	if len(u.starts) > maxRunStarts {
		u.starts = slices.Delete(u.starts, 0, 1)
	}
}

// resumesWith reports whether an event is the one that follows the id that the origin was
// asked with: several connections may have been asked with the same.
func (c *connection) resumesWith(e *hub.Entry) bool {
	log := c.up.topic.log
	at, known := log.KeptAfter(c.ID)
	return c.ID != "" && known && log.FirstID(at.Cursor) == e.ID
}

// isNewRun reports whether an event that the log has, before a cursor, is not a replay. It
// then appends those that were held back until that was known.
func (c *connection) isNewRun(behind hub.Cursor) bool {
	t := c.up.topic
	if !c.rerun.possible {
		return false
	}
	if !c.anew && !c.keepsPace(behind) {
		c.rerun.held = append(c.rerun.held, behind-1)
		return false
	}
	t.beginRun()
	for _, at := range c.rerun.held {
		if held, ok := t.log.Entry(at); ok {
			c.append(held)
		}
	}
	c.rerun, c.replaying = rerun{}, false
	return true
}

// keepsPace reports whether the events of a connection come as they came before.
func (c *connection) keepsPace(behind hub.Cursor) bool {
	if len(c.rerun.held) == 0 {
		return false
	}
	log, took := c.up.topic.log, time.Since(c.rerun.since)
	first, last := log.Look(c.rerun.held[0]), log.Look(behind-1)
	return took >= runPatience && 2*took >= last.Since.Sub(first.Since)
}

// beginRun takes note that what is appended next begins a new run.
func (t *Topic) beginRun() {
	start, tail := t.log.Newest().Cursor, t.log.Tail().Cursor
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs = slices.DeleteFunc(t.runs, func(c hub.Cursor) bool { return c <= tail })
	t.runs = append(t.runs, start)
}

// oldestOf returns the oldest place that an id names, if it names one in several runs:
// nobody knows which of them the client means that brings it.
func (t *Topic) oldestOf(id string, newest hub.Cursor) (oldest hub.Position, several bool) {
	t.mu.Lock()
	runs := slices.Clone(t.runs)
	t.mu.Unlock()
	if len(runs) == 0 {
		return hub.Position{}, false
	}
	oldest, known := t.log.FirstAfter(id)
	return oldest, known && slices.ContainsFunc(runs, func(start hub.Cursor) bool {
		return oldest.Cursor <= start && start < newest
	})
}
