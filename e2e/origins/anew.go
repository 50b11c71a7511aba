package origins

import (
	"fmt"
	"net/http"
	"path"
	"time"
)

// The names of topics that begin anew. Their events are the same, to the byte, each time.
const (
	Finite  = "finite"  // each connection counts from 1 to FiniteEvents, and is ended then
	Endless = "endless" // each connection counts from 1
	Memory  = "memory"  // the process counts from 1, and knows its own ids
)

// FiniteEvents is how many events a connection to a finite topic brings. A history holds
// several times as many.
const FiniteEvents = 40

// BeginsAnew says whether a topic is one that begins anew.
func BeginsAnew(topic string) bool {
	switch path.Base(topic) {
	case Finite, Endless, Memory:
		return true
	}
	return false
}

// A Start is how a connection to such a topic begins. The origin tells it in the
// reconnection time that it sends first: that reaches those who listen, in its turn, and
// leaves the events as they were.
type Start int

// The ways to begin.
const (
	StartsLive    Start = iota // with what happens next
	StartsBehind               // behind the id that was brought
	StartsFirst                // with event 1, when it happens
	StartsBacklog              // with event 1, and at once with all that have happened since
)

const retryOfStarts = 300 * time.Millisecond

// StartOf returns what a reconnection time tells.
func StartOf(retry time.Duration) (Start, bool) {
	s := Start((retry - retryOfStarts) / time.Millisecond)
	return s, retry >= retryOfStarts && s <= StartsBacklog
}

// Retry is the reconnection time that tells how a connection begins.
func (s Start) Retry() time.Duration { return retryOfStarts + time.Duration(s)*time.Millisecond }

// StartOver makes the origin count anew where it counts itself, as a process does that was
// restarted, and ends the streams as a stream should end.
func (o *Numbered) StartOver() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Now()
	o.drop()
}

// serveAnew serves a topic that begins anew.
func (o *Numbered) serveAnew(w http.ResponseWriter, r *http.Request, id string) {
	topic := r.URL.Path
	dropped := o.enter(topic)
	defer o.leave(topic, dropped)
	// Only now, or it would go on with what it has counted before it was dropped.
	o.mu.Lock()
	since := o.since
	o.mu.Unlock()

	next, start := 1, StartsFirst
	if path.Base(topic) == Memory {
		newest := int(time.Since(since) / o.Interval)
		last, err := Number(topic, id)
		switch {
		case id == "":
			next, start = newest+1, StartsLive
		case err == nil && last <= newest:
			next, start = last+1, StartsBehind // of an earlier life, for all that it knows
		case newest > 0:
			start = StartsBacklog
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	fmt.Fprintf(w, "retry: %d\n\n", start.Retry().Milliseconds())
	for ; ; next++ {
		if path.Base(topic) == Finite && next > FiniteEvents {
			return
		}
		wait := o.Interval // also behind a pause: what each connection counts makes up for none
		if path.Base(topic) == Memory {
			wait = time.Until(since.Add(time.Duration(next) * o.Interval))
		}
		if wait > 0 {
			if rc.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-dropped:
				return
			case <-time.After(wait):
			}
		}
		if _, err := w.Write(appendNumbered(nil, topic, next)); err != nil {
			return
		}
	}
}
