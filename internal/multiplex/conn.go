package multiplex

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// Options are what a connection needs to know.
type Options struct {
	// Streams are those that the client asks for, at least one, and Positions what it has
	// brought of them. Lost says that it has brought what tells no position.
	Streams   []Stream
	Positions map[string]Mark
	Lost      bool

	// Heartbeat is how long the connection is quiet before it gets HeartbeatWords; 0: never.
	Heartbeat      time.Duration
	HeartbeatWords []byte

	// Retry is the reconnection time of the connection, and of streams that name none. Where
	// many connections end at once, clients are told to come back up to Spread later.
	Retry  time.Duration
	Spread time.Duration

	// MaxEventSize is that of the largest event of a stream that is not shared, in bytes.
	MaxEventSize int

	// Ask sends the request for a stream into the site and returns when it was answered.
	Ask func(a *Asking, w http.ResponseWriter)

	// Base is the context of all requests for streams, but for its end.
	Base context.Context

	// Admits reports whether the page behind the client may read an answer with this header.
	Admits func(http.Header) bool

	// Adopt hands the connection over to direct delivery. Nil: that cannot be done. It is
	// called once, by Serve. Kept is told why it has failed.
	Adopt func(direct.Source) (*direct.Solo, error)
	Kept  func(why error)

	// Ended is called when the connection has ended, whoever has served it last.
	Ended func(reason relay.EndReason)

	// Panicked is told of panics of handlers.
	Panicked func(value any)

	// Stats are counted in.
	Stats *Stats
}

// A Conn is a response with several streams. It is attended to by one goroutine: that of
// its request until it is handed over to direct delivery, and from then on one that is
// there while a stream begins or ends. At all other times, a shard reads the logs of its
// streams (follow.go).
type Conn struct {
	options *Options
	number  uint64
	started time.Time

	response *carrier.Output // of its request: owned by Serve

	// Owned by whoever attends to it, or by the shard.
	output    output
	gone      <-chan struct{} // closed when the client has gone
	members   []*member
	positions *positions
	moved     bool            // a position has changed since an id was written
	base      context.Context // of all requests for streams
	cancel    context.CancelFunc
	endAt     time.Time
	spoken    time.Time // when it was last written to
	buf       []byte    // to be written
	buffer    *[]byte
	unsent    []sentStep
	selector  selector
	pursuit   *pursuit // of a shard that reads the logs

	running  sync.WaitGroup
	underway atomic.Int32 // requests for streams

	wake     chan struct{} // there is news
	recalled atomic.Bool   // the shard is to pause
	ending   atomic.Pointer[relay.Ending]
	solo     atomic.Pointer[direct.Solo] // once it was handed over
	done     chan struct{}               // closed when it has ended

	mu sync.Mutex

	// Guarded by mu.
	views    []memberView
	carrier  relay.Carrier   // of output
	attended bool            // the goroutine that does goes on until it has ended the connection, or handed it over
	lost     relay.EndReason // why its socket was closed, once it was handed over
}

// A sentStep is what a reader is to be told of once it is written.
type sentStep struct {
	reader *relay.Reader
	step   relay.Step
}

// lastConn is the number of the newest connection of the process.
var lastConn atomic.Uint64

// New returns the connection that answers with what is written to output.
func New(options *Options, output *carrier.Output) *Conn {
	now := time.Now()
	c := &Conn{
		options:   options,
		number:    lastConn.Add(1),
		started:   now,
		response:  output,
		output:    output,
		carrier:   output,
		attended:  true,
		positions: newPositions(options.Streams, options.Positions),
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		spoken:    now,
		views:     make([]memberView, len(options.Streams)),
	}
	options.Positions = nil // which may be large
	c.base, c.cancel = context.WithCancel(options.Base)
	// A client that has brought its position in the query has it in no event yet.
	c.moved = c.positions.length > 0
	for i, s := range options.Streams {
		c.members = append(c.members, &member{conn: c, index: i, stream: s, at: now, lost: options.Lost})
		c.views[i] = memberView{state: resting, since: now}
	}
	return c
}

// notify makes whoever serves the connection look for news.
func (c *Conn) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if solo := c.solo.Load(); solo != nil {
		solo.Wake()
	}
}

// End ends the connection between two events, at a random moment within e.Over. An exit, or
// an administrator, ends at once what is ending already.
func (c *Conn) End(e relay.Ending) {
	for {
		now := c.ending.Load()
		if now != nil && (now.Reason == e.Reason || e.Reason != relay.EndExiting && e.Reason != relay.EndDeleted) {
			return
		}
		if c.ending.CompareAndSwap(now, &e) {
			break
		}
	}
	if e.Reason == relay.EndExiting {
		c.mu.Lock()
		carrier := c.carrier
		c.mu.Unlock()
		carrier.Hurry()
	}
	c.notify()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Serve returns when the connection has ended, with the reason, or when it was handed over:
// then there is no reason. If it is to be aborted, it has ended inside an event, which a
// client must not take for a clean end. The header is written before it.
func (c *Conn) Serve(gone <-chan struct{}) (reason relay.EndReason, abort bool) {
	c.options.Stats.Connections.Add(1)
	c.gone = gone
	handedOver := false
	defer func() {
		switch {
		case handedOver:
			c.response.Close("")
		case c.solo.Load() == nil:
			c.conclude(reason)
			abort = c.response.Close(reason)
			c.over(reason)
		default: // it was lost when it was handed over
			c.finish(reason)
			c.response.Close("")
			reason = ""
		}
		c.response = nil
	}()
	c.greet()
	reason = c.run()
	handedOver = reason == ""
	return reason, false
}

// greet begins the stream.
func (c *Conn) greet() {
	c.buf = relay.AppendRetryField(sse.AppendComment(c.buf, "sse_fanout"), c.options.Retry)
	c.buf = append(c.buf, '\n')
}

// run attends to the connection until it is to end, or a shard goes on with it: then there
// is no reason.
func (c *Conn) run() relay.EndReason {
	for {
		busy, reason := c.round(time.Now())
		if err := c.flush(); err != nil {
			return c.output.Failed(err)
		}
		switch {
		case reason != "":
			return c.farewell(reason)
		case busy:
			continue
		case c.handOver():
			return ""
		}
		if c.wait() {
			return c.lostFor()
		}
	}
}

// round makes each stream take a turn. It reports whether another would bring more at once,
// and why the connection is to end.
func (c *Conn) round(now time.Time) (busy bool, reason relay.EndReason) {
	if reason := c.endsBy(now); reason != "" {
		return false, reason
	}
	for _, m := range c.members {
		more, reason := m.turn(now)
		if reason != "" {
			return false, reason
		}
		busy = busy || more
	}
	if len(c.buf) == 0 {
		c.beat(now)
	}
	return busy, ""
}

// endsBy returns why the connection is to end, if its time has come.
func (c *Conn) endsBy(now time.Time) relay.EndReason {
	e := c.ending.Load()
	if e == nil {
		return ""
	}
	if c.endAt.IsZero() || e.Over == 0 {
		c.endAt = now
		if e.Over > 0 {
			c.endAt = now.Add(rand.N(e.Over))
		}
	}
	if now.Before(c.endAt) {
		return ""
	}
	return e.Reason
}

// isExiting reports whether the process exits.
func (c *Conn) isExiting() bool {
	e := c.ending.Load()
	return e != nil && e.Reason == relay.EndExiting
}

// conclude ends all that the connection has under way. Without a reason, a handler has
// panicked.
func (c *Conn) conclude(reason relay.EndReason) {
	if reason == "" {
		reason = relay.EndClientGone
	}
	c.cancel()
	for _, m := range c.members {
		m.leave(reason)
	}
	c.running.Wait()
	for _, m := range c.members {
		m.discard()
	}
}

// over is called last.
func (c *Conn) over(reason relay.EndReason) {
	c.options.Stats.Connections.Add(-1)
	c.options.Ended(reason)
	close(c.done)
}
