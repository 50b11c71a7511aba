package faults

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// gapEvent is the type of event that tells of a gap.
const gapEvent = "gap"

// A checker follows what one client gets over all its connections.
type checker struct {
	store *origins.Numbered
	topic string

	mu sync.Mutex

	// Guarded by mu.
	tally
	started bool
	last    int  // everything up to here has come, or was told to be missing
	told    bool // of a gap, behind which no event has come yet
	held    bool // the origin still had the position when that was told
	missing []span
	notes   []string
	failed  error // told to go for good
	lead    lead  // where the topic begins anew

	progress int // events since setOut
}

type span struct{ from, to int }

// A tally is what a checker has found.
type tally struct {
	events      int // dispatched
	lost        int // missing, though not told or still with the origin
	repeated    int
	disordered  int
	corrupt     int
	gaps        int // told, when the origin had the position no longer
	missed      int // events in those
	falseAlarms int // told, but nothing was missing
	longIDs     int // events with ids of 1 KiB and more
	startOvers  int // event 1 came again
	taken       int // of those that did not, as it was at once, or not for long: taken for a replay
}

func (t *tally) add(o tally) {
	t.events += o.events
	t.lost += o.lost
	t.repeated += o.repeated
	t.disordered += o.disordered
	t.corrupt += o.corrupt
	t.gaps += o.gaps
	t.missed += o.missed
	t.falseAlarms += o.falseAlarms
	t.longIDs += o.longIDs
	t.startOvers += o.startOvers
	t.taken += o.taken
}

func (t tally) String() string {
	return fmt.Sprintf("%d events; lost %d, repeated %d, out of order %d, corrupt %d; gaps told %d (%d events), of nothing %d; long ids %d; start-overs %d, taken for a replay %d",
		t.events, t.lost, t.repeated, t.disordered, t.corrupt, t.gaps, t.missed, t.falseAlarms, t.longIDs, t.startOvers, t.taken)
}

func (t *tally) wrong() bool { return t.lost+t.repeated+t.disordered+t.corrupt > 0 }

// note keeps what an unlucky client has to say.
func (c *checker) note(format string, args ...any) {
	if len(c.notes) < 5 {
		c.notes = append(c.notes, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// anew is a page that was loaded again.
func (c *checker) anew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started, c.told, c.missing = false, false, nil
}

// between counts the dispatched events after a, and before b.
func between(a, b int) (n int) {
	for i := a + 1; i < b; i++ {
		if origins.Dispatched(i) {
			n++
		}
	}
	return n
}

// position takes an id that a block without data has set. It must not be ahead
// of what has come: whoever resumes with it would miss the rest.
func (c *checker) position(id string) {
	n, err := origins.Number(c.topic, id)
	if err != nil {
		return // forgotten, or never set
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		// Where runs differ in nothing, this one may be over.
		c.started, c.last = !origins.BeginsAnew(c.topic), n
	} else if n > c.last && between(c.last, n+1) == 0 {
		c.last = n
	}
}

func (c *checker) event(e eventsource.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Type == gapEvent {
		// For an id that is too long, nobody is asked.
		askable := len(origins.ID(c.topic, c.last)) <= origins.MostAsked
		c.told, c.held = true, askable && c.store.Has(c.last, time.Now())
		return
	}
	n, err := origins.Number(c.topic, e.ID)
	if err != nil || e.ID != origins.ID(c.topic, n) || e.Data != origins.Data(c.topic, n) {
		c.corrupt++
		c.note("the id %q has the data %.60q", e.ID, e.Data)
		return
	}
	c.events++
	if len(e.ID) >= 1<<10 {
		c.longIDs++
	}
	if origins.BeginsAnew(c.topic) {
		c.counted(n)
		return
	}
	switch missed := between(c.last, n); {
	case !c.started:
		c.started = true
	case n <= c.last && c.isMissing(n):
		c.disordered++
		c.note("%d comes after %d", n, c.last)
		return
	case n <= c.last:
		c.repeated++
		c.note("%d comes again after %d", n, c.last)
		return
	case c.told && missed == 0:
		c.falseAlarms++
		c.note("a gap was told before %d, and there was none", n)
	case c.told && !c.held:
		c.gaps++
		c.missed += missed
		c.missing = append(c.missing, span{c.last + 1, n - 1})
	case missed > 0:
		c.lost += missed
		c.missing = append(c.missing, span{c.last + 1, n - 1})
		c.note("%d comes after %d (gap told: %v)", n, c.last, c.told)
	}
	c.last, c.told = n, false
}

func (c *checker) isMissing(n int) bool {
	for _, s := range c.missing {
		if s.from <= n && n <= s.to {
			return true
		}
	}
	return false
}

// place says how far the client is.
func (c *checker) place() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("it is at %d, %d events after the last fault", c.last, c.progress)
}

func (c *checker) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = err
	c.note("%v", err)
}

// setOut begins to count events for isBehind.
func (c *checker) setOut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress = 0
}

// isBehind reports whether the client has yet to get event n or, where that says nothing,
// some events since setOut.
func (c *checker) isBehind(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if origins.BeginsAnew(c.topic) {
		return c.progress < 2*origins.FiniteEvents
	}
	return c.last < n
}

// report returns what was found, whether the client was wronged, and the story
// of one that has something to say.
func (c *checker) report() (found tally, wronged bool, story string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notes) > 0 {
		story = c.tally.String() + "\n\t" + strings.Join(c.notes, "\n\t")
	}
	return c.tally, c.wrong() || c.failed != nil, story
}
