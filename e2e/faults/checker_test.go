package faults

import (
	"fmt"
	"strconv"
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
}

func (t tally) String() string {
	return fmt.Sprintf("%d events; lost %d, repeated %d, out of order %d, corrupt %d; gaps told %d (%d events), of nothing %d",
		t.events, t.lost, t.repeated, t.disordered, t.corrupt, t.gaps, t.missed, t.falseAlarms)
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
	n, err := strconv.Atoi(id)
	if err != nil {
		return // forgotten, or never set
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		c.started, c.last = true, n
	} else if n > c.last && between(c.last, n+1) == 0 {
		c.last = n
	}
}

func (c *checker) event(e eventsource.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Type == gapEvent {
		c.told, c.held = true, c.store.Has(c.last, time.Now())
		return
	}
	n, err := strconv.Atoi(e.ID)
	if err != nil || e.Data != origins.Data(c.topic, n) {
		c.corrupt++
		c.note("the id %q has the data %.60q", e.ID, e.Data)
		return
	}
	c.events++
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

func (c *checker) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = err
	c.note("%v", err)
}

func (c *checker) newest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
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
