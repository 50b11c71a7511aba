package relay

import (
	"hash/fnv"
	"slices"
	"sync"
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

// A RunStart is an event that a connection has begun with. Nodes that share a topic have the
// same.
type RunStart struct {
	ID  string `json:"id"`
	Sum uint64 `json:"sum"` // of its bytes
}

func startOf(e *hub.Entry) RunStart {
	sum := fnv.New64a()
	_, _ = sum.Write(e.Wire)
	return RunStart{e.ID, sum.Sum64()}
}

// runs is what is known of how the origin of a topic begins its streams.
type runs struct {
	mu sync.Mutex

	// Guarded by mu.
	starts []RunStart   // what connections have begun with, the newest last
	places []hub.Cursor // where it has begun its stream anew, as far as the log reaches
}

// note records what a connection has begun with, and reports whether an earlier one has begun
// with the same.
func (r *runs) note(start RunStart) (known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.starts, start); i >= 0 {
		known = true
		r.starts = slices.Delete(r.starts, i, i+1)
	}
	r.starts = append(r.starts, start)
	if len(r.starts) > maxRunStarts {
		r.starts = slices.Delete(r.starts, 0, 1)
	}
	return known
}

// begin records that what is appended to the log next begins a new run.
func (r *runs) begin(log *hub.Log) {
	start, tail := log.Newest().Cursor, log.Tail().Cursor
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places = slices.DeleteFunc(r.places, func(c hub.Cursor) bool { return c <= tail })
	r.places = append(r.places, start)
}

// newest returns where in the log the newest run begins that was seen to be one, or 0.
func (r *runs) newest() hub.Cursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.places) == 0 {
		return 0
	}
	return r.places[len(r.places)-1]
}

func (r *runs) all() []hub.Cursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.places)
}

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
