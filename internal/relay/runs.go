package relay

import (
	"bytes"
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
	possible bool          // it has begun with an event that an earlier one began with
	since    time.Time     // when that came
	held     []hub.Entry   // that have come since: the log may lose its own meanwhile
	newest   time.Time     // when the newest of these came before
	took     time.Duration // for how long they came before; a pause counts for runPatience
	pauses   pauses        // the longest in that
}

// pauses are the longest times between two events. The same events may come without them:
// an origin was away, or was asked again.
type pauses [3]time.Duration

// add takes a time between two events.
func (p *pauses) add(d time.Duration) {
	for i := range p {
		if d > p[i] {
			p[i], d = d, p[i]
		}
	}
}

func (p *pauses) sum() (sum time.Duration) {
	for _, d := range p {
		sum += d
	}
	return sum
}

// begins records the first event of a connection.
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

// goesOn reports whether the first event of a connection, which the log has at a cursor,
// follows the id that the origin was asked with, as one like it did in an earlier run. Then
// the log ends with that id, and has the event before.
func (c *connection) goesOn(e *hub.Entry, at hub.Cursor) bool {
	log := c.up.topic.log
	before, ok := log.At(at)
	return ok && c.ID != "" && before.ID == c.ID && e.ID != c.ID && log.Newest().ID == c.ID
}

// isNewRun reports whether an event that the log has, before a cursor, belongs to a new run.
// It then appends those that were held back. If it is not known yet, it holds this one back.
func (c *connection) isNewRun(e *hub.Entry, behind hub.Cursor) bool {
	t, r := c.up.topic, &c.rerun
	if !r.possible {
		return false
	}
	if !c.anew && !r.keepsPace(t.log.Look(behind-1).Since) {
		held, ok := t.log.Entry(behind - 1) // for its bytes are there already
		if !ok {
			held = *e
			held.Wire = bytes.Clone(e.Wire)
		}
		r.held = append(r.held, held)
		return false
	}
	c.release()
	return true
}

// release appends what was held back, at the beginning of a new run.
func (c *connection) release() {
	c.up.topic.beginRun()
	for _, held := range c.rerun.held {
		c.append(held)
	}
	c.replaying, c.rerun = false, rerun{}
}

// endReplay is called at the first event of a connection that the log has not. If the log had
// it, and lost it while events were held back, nobody can tell whether these were a replay.
// They are delivered, as is what follows.
func (c *connection) endReplay() {
	if len(c.rerun.held) > 0 && c.replayed < c.up.topic.log.Tail().Cursor {
		c.release()
	}
	c.replaying, c.rerun = false, rerun{}
}

// keepsPace reports whether the events of a connection come as they came before. The
// newest of them came at the time before.
func (r *rerun) keepsPace(before time.Time) bool {
	if len(r.held) > 0 {
		// If a pause counted in full, all events behind one would seem to come too early.
		gap := min(max(0, before.Sub(r.newest)), runPatience)
		r.took += gap
		r.pauses.add(gap)
	}
	r.newest = before
	took := time.Since(r.since)
	return len(r.held) > 0 && took >= runPatience && 2*took >= r.took-r.pauses.sum()
}

// newestRun returns where in the log the newest run begins that was seen to be one, or 0.
func (t *Topic) newestRun() hub.Cursor {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.runs) == 0 {
		return 0
	}
	return t.runs[len(t.runs)-1]
}

// beginRun records that what is appended next begins a new run.
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
