package ssefanout

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// secondThought is how long a catch-up waits, when its connection has ended,
// before it decides what that means: if the shared connection turns out to be
// lost too, it was the origin and not the id.
const secondThought = 250 * time.Millisecond

// A fetch is one connection of a catch-up to the origin.
type fetch struct {
	stop  func() // and wait for it to end
	ended chan outcome
	began time.Time
	heard atomic.Int64 // when the answer or an event has come last, in Unix nanoseconds; 0: none has

	// connects is which connection of the topic was the shared one when the
	// fetch began.
	connects int
}

// fetch begins to take what the origin has after the newest event here.
func (c *catchup) fetch(ctx context.Context) *fetch {
	t := c.group.topic
	c.mu.Lock()
	from := claim{c.lastID, c.id.param}.resumption()
	c.mu.Unlock()
	_, connects := t.connection()
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{began: time.Now(), ended: make(chan outcome, 1), connects: connects}

	stream := &catchupStream{catchup: c, heard: &f.heard}
	accepted := false
	a := newAnswer(func(http.Header) (io.Writer, func()) {
		accepted = true
		f.heard.Store(time.Now().UnixNano())
		t.pool.stats.connections.Add(1)
		return stream, nil
	}, func() {}, t.restrictionOf)
	stream.decoder = a.newDecoder(t.pool.opts, stream.publish, nil)
	done := make(chan struct{})
	t.helpers.Go(func() {
		defer close(done)
		src, ok := t.pool.source()
		if !ok {
			f.ended <- outcome{err: errTopicClosing}
			return
		}
		out := ask(ctx, src, t, from, a)
		if accepted { // nothing is, any more
			t.pool.stats.connections.Add(-1)
		}
		f.ended <- out
	})
	f.stop = func() {
		cancel()
		<-done
	}
	return f
}

// resumable reports whether another fetch can go on where this log ends. A
// greeting that has begun cannot be pieced together.
func (c *catchup) resumable() bool {
	c.mu.Lock()
	lastID, events := c.lastID, c.events
	c.mu.Unlock()
	if c.id.id == "" {
		return events == 0
	}
	return c.group.topic.askableID(lastID) != ""
}

// run fetches events until the catch-up meets the log, or must be given up. What
// takes the shared connection away is not held against it: it goes on when that
// is back.
func (c *catchup) run(ctx context.Context) {
	t := c.group.topic
	started := time.Now()
	t.log.Wake() // those who have waited read c.log from now on

	c.mu.Lock()
	c.floor, c.start = t.log.Tail().Cursor, t.logEnd()
	if behind, ok := t.log.At(c.floor + 1); ok {
		c.floorID = behind.ID
	}
	if at := t.noticed(); at > 0 && at >= c.floor {
		c.floor, c.floorID = at, t.log.FirstID(at)
	}
	c.mu.Unlock()
	if c.meet() {
		return // while it was waiting, the log has come past its id
	}

	t.pool.stats.catchups.Add(1)
	c.pursue(ctx)
	t.pool.log().Debug("catch-up ended",
		zap.String("topic", t.name),
		zap.String("last_event_id", c.id.id),
		zap.Int("events", c.events),
		zap.Bool("resumed", c.spliced),
		zap.Duration("duration", time.Since(started)),
		zap.NamedError("reason", c.why))
}

// pursue makes one fetch after another until the catch-up is over.
func (c *catchup) pursue(ctx context.Context) {
	t := c.group.topic
	timeout := time.Duration(t.pool.opts.Catchup.Timeout)
	silent := time.NewTimer(timeout)
	defer silent.Stop()
	slow := time.NewTimer(spliceTimeouts * timeout)
	defer slow.Stop()
	quietTime := min(quietTime, timeout/2)
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	thought := time.NewTimer(time.Hour)
	defer thought.Stop()
	pause := secondThought

	f := c.fetch(ctx)
	defer func() { f.stop() }()
	var last outcome // of the fetch that has ended
	begun := c.begun
	beat := t.log.Look(0).Beat
	var wake <-chan struct{}
	for {
		var beats uint64
		wake, beats = t.log.Watch(wake)
		c.meet()
		if beats != beat {
			beat = beats
			c.log.Beat()
		} else {
			c.log.Wake() // a subscriber may have to end
		}
		if connected, connects := t.connection(); connected && connects != f.connects && c.resumable() && !c.isWhole() {
			if c.proceed() {
				f.stop()
				thought.Stop()
				f, pause = c.fetch(ctx), secondThought
				quiet.Reset(quietTime)
				if begun != nil {
					silent.Reset(timeout)
				}
				slow.Reset(spliceTimeouts * timeout)
			} else {
				thought.Reset(secondThought)
			}
		}
		select {
		case <-c.finished:
			return
		case <-begun:
			silent.Stop()
			begun = nil
		case <-wake:
		case last = <-f.ended:
			if errors.Is(last.err, errTopicClosing) {
				c.fail(errTopicClosing)
			}
			if blamesID(last.verdict, last.status) {
				c.rest()
			}
			thought.Reset(pause)
			pause = min(2*pause, time.Duration(t.pool.opts.Reconnect.Max))
		case <-thought.C:
			if c.isToGoOn(f, &last) {
				f = c.fetch(ctx)
			}
		case <-quiet.C:
			switch {
			case c.isQuiet(f, quietTime):
				c.endQuiet(f)
			case begun != nil && f.hasBroughtNothing(quietTime) && c.mustYield():
				c.fail(errCatchupYields)
			case begun != nil || t.isNowhere():
				quiet.Reset(quietTime / 4)
			}
		case <-silent.C:
			c.endSilent(f)
		case <-slow.C:
			if !c.disrupted(f) {
				c.fail(errCatchupSlow)
			}
		case <-ctx.Done():
			c.fail(errTopicClosing) // or nobody is left to be told
		}
	}
}

// isToGoOn decides what the end of a fetch means, and reports whether there is to be
// another.
func (c *catchup) isToGoOn(f *fetch, last *outcome) bool {
	switch {
	case c.isWhole(), c.disrupted(f):
	case blamesID(last.verdict, last.status):
		c.fail(errCatchupRefused)
	case !c.resumable():
		c.fail(errCatchupEnded)
	case !c.hasBegun() && c.mustYield():
		c.fail(errCatchupYields)
	default:
		return c.proceed()
	}
	return false
}

// endSilent ends a catch-up for which no event has come in time.
func (c *catchup) endSilent(f *fetch) {
	switch {
	case c.disrupted(f):
	case c.isQuiet(f, 0):
		c.endQuiet(f)
	default:
		c.fail(c.silence())
	}
}

// isSilent reports whether the origin has answered, and sent nothing for some time.
func (f *fetch) isSilent(least time.Duration) bool {
	heard := f.heard.Load()
	return heard > 0 && time.Since(time.Unix(0, heard)) >= least
}

// hasBroughtNothing reports whether the origin has sent nothing for some time, not even an
// answer.
func (f *fetch) hasBroughtNothing(least time.Duration) bool {
	return f.isSilent(least) || f.heard.Load() == 0 && time.Since(f.began) >= least
}

// hasBegun reports whether an event has come that is for the subscribers.
func (c *catchup) hasBegun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events > 0
}

// disrupted reports whether the topic has lost its shared connection since f
// began, and the catch-up is to go on once there is another.
func (c *catchup) disrupted(f *fetch) bool {
	connected, connects := c.group.topic.connection()
	return (!connected || connects != f.connects) && c.resumable()
}

// A catchupStream decodes what the origin sends to a catch-up.
type catchupStream struct {
	catchup *catchup
	heard   *atomic.Int64
	decoder *sse.Decoder
	wire    []byte
	missed  bool // it was not listened to: what it has from then on is no continuation

	held      []hub.Entry // until there is one with an id
	heldBytes int
	withData  int // events that are not held
}

func (s *catchupStream) Write(p []byte) (int, error) {
	n, err := s.decoder.Write(p)
	s.catchup.log.Wake()
	return n, err
}
