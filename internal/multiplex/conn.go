package multiplex

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
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

	// Panicked is told of panics of handlers.
	Panicked func(value any)

	// Stats are counted in.
	Stats *Stats
}

// A Conn is a response with several streams. Its goroutine is the only one that it costs,
// but for requests that are under way, and streams that are not shared.
type Conn struct {
	options *Options
	number  uint64
	started time.Time
	output  *carrier.Output

	members   []*member
	positions *positions
	moved     bool // a position has changed since an id was written
	running   sync.WaitGroup
	base      context.Context // of all requests for streams

	wake   chan struct{} // there is news
	ending atomic.Pointer[relay.Ending]
	endAt  time.Time
	spoken time.Time // when it was last written to

	buf      []byte // to be written
	buffer   *[]byte
	unsent   []sentStep
	selector selector

	mu sync.Mutex

	// Guarded by mu.
	views []memberView
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
		output:    output,
		positions: newPositions(options.Streams, options.Positions),
		wake:      make(chan struct{}, 1),
		spoken:    now,
		views:     make([]memberView, len(options.Streams)),
	}
	// A client that has brought its position in the query has it in no event yet.
	c.moved = c.positions.length > 0
	for i, s := range options.Streams {
		c.members = append(c.members, &member{conn: c, index: i, stream: s, at: now, lost: options.Lost})
		c.views[i] = memberView{state: resting, since: now}
	}
	return c
}

// notify makes the goroutine of the connection look for news.
func (c *Conn) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
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
		c.output.Hurry()
	}
	c.notify()
}

// Serve returns when the connection has ended, with the reason. If it is to be aborted, it
// has ended inside an event, which a client must not take for a clean end. The header is
// written before it.
func (c *Conn) Serve(gone <-chan struct{}) (reason relay.EndReason, abort bool) {
	stats := c.options.Stats
	stats.Connections.Add(1)
	defer stats.Connections.Add(-1)
	base, cancel := context.WithCancel(c.options.Base)
	c.base = base
	defer func() {
		cancel()
		c.leave(reason)
		c.running.Wait()
		for _, m := range c.members {
			m.discard()
		}
		abort = c.output.Close(reason)
	}()
	return c.run(gone), false
}

// run serves the streams until the connection ends.
func (c *Conn) run(gone <-chan struct{}) relay.EndReason {
	c.buf = relay.AppendRetryField(sse.AppendComment(c.buf, "sse_fanout"), c.options.Retry)
	c.buf = append(c.buf, '\n')
	for {
		busy, reason := c.round(time.Now())
		if err := c.flush(); err != nil {
			return c.output.Failed(err)
		}
		if reason != "" {
			return c.farewell(reason)
		}
		if !busy && c.wait(gone) {
			return relay.EndClientGone
		}
	}
}

// round makes each stream take a turn. It reports whether another would bring more at once,
// and why the connection is to end.
func (c *Conn) round(now time.Time) (busy bool, reason relay.EndReason) {
	if e := c.ending.Load(); e != nil {
		if c.endAt.IsZero() || e.Over == 0 {
			c.endAt = now
			if e.Over > 0 {
				c.endAt = now.Add(rand.N(e.Over))
			}
		}
		if !now.Before(c.endAt) {
			return false, e.Reason
		}
	}
	for _, m := range c.members {
		more, reason := m.turn(now)
		if reason != "" {
			return false, reason
		}
		busy = busy || more
	}
	if h := c.options.Heartbeat; h > 0 && len(c.buf) == 0 && now.Sub(c.spoken) >= h {
		c.buf = append(c.buffered(), c.options.HeartbeatWords...)
		c.options.Stats.Heartbeats.Add(1)
	}
	return busy, ""
}

// isExiting reports whether the process exits.
func (c *Conn) isExiting() bool {
	e := c.ending.Load()
	return e != nil && e.Reason == relay.EndExiting
}

// buffers hold what is about to be written: a connection that waits needs none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxBuffer is how much is written at once, but for larger events.
const maxBuffer = 64 << 10

// buffered returns what is to be written, to be appended to.
func (c *Conn) buffered() []byte {
	if c.buf == nil {
		c.buffer = buffers.Get().(*[]byte)
		c.buf = (*c.buffer)[:0]
	}
	return c.buf
}

// flush writes what is to be written, and tells the readers that it is.
func (c *Conn) flush(more ...[]byte) error {
	if len(c.buf) > 0 || len(more) > 0 {
		if err := c.write(more); err != nil {
			return err
		}
	}
	// Of the heartbeat of a topic, nothing is written.
	for _, s := range c.unsent {
		s.reader.Sent(s.step)
	}
	clear(c.unsent)
	c.unsent = c.unsent[:0]
	return nil
}

// write writes what is buffered, and more.
func (c *Conn) write(more [][]byte) error {
	err := c.output.Write(c.isExiting(), append([][]byte{c.buf}, more...)...)
	if c.buffer != nil && cap(c.buf) <= 2*maxBuffer {
		*c.buffer = c.buf
		buffers.Put(c.buffer)
	}
	c.buf, c.buffer = nil, nil
	if err != nil {
		return err
	}
	c.spoken = time.Now()
	return nil
}

// farewell ends the connection between two events. Where many end at once, each is told a
// different time to come back.
func (c *Conn) farewell(reason relay.EndReason) relay.EndReason {
	retry := c.options.Retry
	if c.ending.Load() != nil {
		retry += rand.N(c.options.Spread + 1)
	}
	if err := c.output.Write(c.isExiting(), append(relay.AppendRetryField(nil, retry), '\n')); err != nil {
		return c.output.Failed(err)
	}
	c.output.Last()
	return reason
}

// leave ends the readers.
func (c *Conn) leave(reason relay.EndReason) {
	for _, m := range c.members {
		if m.reader != nil {
			m.reader.Ended(reason)
			m.closeReader()
		}
		m.enter(over)
	}
}
