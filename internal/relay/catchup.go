package relay

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// SpliceTimeouts is how many times the timeout a catch-up may take to meet the log.
const SpliceTimeouts = 10

// A catchup is a second, short-lived connection to the origin that fetches what
// resuming subscribers have missed and the log no longer has. Its events go to
// them alone, through a log of its own, until one is in the topic's log too,
// where they continue.
//
// With an empty id, it fetches a new greeting instead.
type catchup struct {
	group *catchups
	id    Claim
	log   *hub.Log
	past  leg // of the catch-up that this one continues

	// Guarded by group.mu.
	stage       life[stage, stageEvent]
	subscribers map[*Reader]struct{}
	askers      map[string]int     // subscribers by client address
	queues      int                // how many it is in
	since       time.Time          // when it began to wait for its turn, or was started
	asked       time.Time          // when its subscribers began to wait, over all its turns
	billed      string             // the address in whose turn it was started
	cost        float64            // charged to it
	cancel      context.CancelFunc // set once it has started

	// tried says that an event of the topic's has ended its waiting. It is set before
	// it is started.
	tried bool

	// successor is the id that has followed this one's id in the topic's log,
	// if that has come to it.
	successor atomic.Pointer[string]

	// next is the first id that has come to the topic's log since this began.
	next atomic.Pointer[string]

	// newest is that of the event here that the log has yet to come to.
	newest atomic.Pointer[awaited]

	mu sync.Mutex

	// Guarded by mu.
	progress life[progress, progressEvent]
	floor    hub.Cursor   // the oldest entry of the topic's log at the start, behind its last gap
	floorID  string       // in force behind that entry, or the first since the gap
	start    hub.Position // where the topic's log ended then (see topic.logEnd)
	firstID  string       // of the first event here that has one
	lastID   string       // of the newest event here
	quietOn  int          // the connection of the topic during which the origin was quiet
	events   int
	bytes    int
	noIDs    bool       // the origin has sent events, and none with an id yet
	wholeAt  hub.Cursor // where the topic's log ended when it was found to be whole
	splice   hub.Cursor // where in the topic's log the subscribers continue
	why      error      // why it has failed
	finished chan struct{}
	met      struct{ missing, jumping string } // the cases of the splice that have decided, last
	begun    chan struct{}                     // closed at the first event that is for the subscribers
}

// An awaited is an id that a topic's log may come to.
type awaited struct {
	id   string
	come atomic.Uint64 // the cursor behind the event with it, once the log has that
}

var (
	errCatchupIgnored = errors.New("the origin has ignored the last event id")
	errCatchupSize    = errors.New("the origin has sent more than the history holds")
	errCatchupSilent  = errors.New("the origin has sent no event with an id in time")
	errCatchupNoIDs   = errors.New("the origin sends events without ids")
	errCatchupSlow    = errors.New("the origin has sent no event that the history has in time")
	errCatchupEnded   = errors.New("the origin has ended the stream")
	errCatchupQueue   = errors.New("too many wait for one")
	errCatchupQuiet   = errors.New("the origin has had no more to send yet")
	errCatchupYields  = errors.New("the origin has sent nothing yet, and others wait for the connection")
	errCatchupFull    = errors.New("the origin has sent as much as one catch-up takes")
	errCatchupRefused = errors.New("the origin has answered with something else than an event stream")
)

// catchups are those of one topic: running, up to the configured number, and
// waiting for their turn, which goes round by client address so that nobody who
// asks for many ids holds up the others.
type catchups struct {
	topic *Topic
	any   atomic.Bool // byID is not empty, but for a moment

	// anyParked is set before it is looked whether a catch-up is to be parked, so that
	// the event that it would wait for cannot slip through.
	anyParked atomic.Bool

	// end is the id of the newest event that the origin has, as far as catch-ups that
	// have gone quiet can tell.
	end atomic.Pointer[string]

	// Written under mu, read without it by views.
	queued  atomic.Int32 // catch-ups that have not started, the parked ones included
	started atomic.Int32 // that have, and are not over
	asking  atomic.Int32 // addresses that have some in their queues

	mu sync.Mutex

	// Guarded by mu.
	byID    map[Claim]*catchup
	running []*catchup
	parked  map[*catchup]struct{}
	queues  map[string]*queue // by client address
	turns   list.List         // of queues in which some wait, the next first
	rates   fetchRates
	alarm   *time.Timer
	closed  bool
}

func newCatchups(t *Topic) *catchups {
	return &catchups{
		topic:  t,
		byID:   make(map[Claim]*catchup),
		parked: make(map[*catchup]struct{}),
		queues: make(map[string]*queue),
		rates:  fetchRates{futile: debts{allowance: futileInTopic}, all: &t.relay.futile},
	}
}

// A leg is what is known of the catch-up that another one continues.
type leg struct {
	firstID string        // of its events
	yielded time.Time     // if it has left its place to others: since when its subscribers wait
	quietOn int           // the connection of the topic during which the origin had no more; 0: it had
	pause   time.Duration // after which a quiet origin is asked again if nothing happens
}

// A queue has the catch-ups that clients of one address ask for and that have not
// started. A catch-up that clients of several addresses ask for is in the queue of
// each: nobody waits for the turn of somebody else.
type queue struct {
	ip      string
	waiting []*catchup
	parked  []*catchup
	turn    *list.Element // set while some wait
}

func (q *queue) len() int { return len(q.waiting) + len(q.parked) }

// last returns the catch-up to give up first.
func (q *queue) last() *catchup {
	if n := len(q.waiting); n > 0 {
		return q.waiting[n-1]
	}
	return q.parked[len(q.parked)-1]
}

// follows takes note that in the topic's log, an event with an id has followed
// the id before.
func (g *catchups) follows(before, id string) {
	if before == "" || before == id {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	note := func(param string) {
		if c := g.byID[Claim{before, param}]; c != nil {
			successor := id // nothing is allocated for those that nobody waits for
			c.successor.Store(&successor)
		}
	}
	note("")
	for param := range IDParams {
		note(param)
	}
}

// comes takes note that the topic's log has come to an id, behind which it is at a
// cursor. It may be far past it, and have it no longer, when it is looked at next.
func (g *catchups) comes(id string, behind hub.Cursor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.running {
		if c.next.Load() == nil {
			next := id
			c.next.Store(&next)
		}
		if a := c.newest.Load(); a != nil && a.id == id {
			a.come.Store(uint64(behind))
		}
	}
}

// canBeContinued reports whether a client that has got all that is here can ask for
// what follows, as if it had come back with the last id. However much a client has
// missed, no more than a log's worth is held for it at once. c.mu must be held.
func (c *catchup) canBeContinued() bool {
	here := Claim{ID: c.lastID}
	return c.id.ID != "" && c.lastID != c.id.ID && here.Usable() && c.group.topic.askableID(here.ID) != ""
}

// startsOver reports whether the origin has ignored the id of a catch-up that continues
// another, and has come to an event again that the other had. It would do so for ever.
// c.mu must be held.
func (c *catchup) startsOver(id string) bool {
	if c.past.firstID == "" {
		return false
	}
	return c.firstID == "" && id == c.past.firstID || c.lastID != c.id.ID && id == c.id.ID
}

// append adds an event. c.mu must be held.
func (c *catchup) append(e hub.Entry) {
	c.log.Append(e)
	c.events++
	c.noIDs = false
	c.bytes += len(e.Wire)
	if e.SetsID {
		c.lastID = e.ID
	}
}

// silence says why no event has begun the catch-up. Where the topic's log has come to
// no id either, the origin has none.
func (c *catchup) silence() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.noIDs && c.group.topic.log.Newest().ID == "" {
		return errCatchupNoIDs
	}
	return errCatchupSilent
}

func (c *catchup) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.progress.now().isOver() {
		c.finish(false, 0, why)
	}
}

// finish ends the catch-up. c.mu must be held.
func (c *catchup) finish(spliced bool, at hub.Cursor, why error) {
	if !spliced && at == 0 {
		// Behind a gap, too, nobody gets again what was here.
		if last, ok := c.group.topic.log.KeptAfter(c.lastID); ok {
			at = last.Cursor
		}
	}
	c.splice, c.why = at, why
	if spliced {
		c.progressOn(progressSplices)
	} else {
		c.progressOn(progressFails)
	}
	close(c.finished)
	if spliced && c.id.ID == "" {
		c.group.topic.greeting.renew(c.log, at)
	}
	c.log.Wake()
}

// result tells whether the catch-up is over and where its subscribers continue
// once they have all that is here. If it was not spliced, why tells what has
// become of it, and they continue no earlier than that.
func (c *catchup) result() (over, spliced bool, at hub.Cursor, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.progress.now()
	return is.isOver(), is == progressJoined, c.splice, c.why
}

// progressOn changes the progress of c. c.mu must be held.
func (c *catchup) progressOn(e progressEvent) {
	c.progress.on(e, &progresses, c.group.topic.misfit)
}

// stageOn changes the stage of c, and counts. g.mu must be held.
func (g *catchups) stageOn(c *catchup, e stageEvent) {
	from, to := c.stage.on(e, &stages, g.topic.misfit)
	g.queued.Add(count(to.isQueued()) - count(from.isQueued()))
	g.started.Add(count(to.isStarted()) - count(from.isStarted()))
}
