package multiplex

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An output writes to the client of a connection: carrier.Output, or soloOutput.
type output interface {
	relay.Carrier

	// Write sends parts. exiting says that the process exits.
	Write(exiting bool, parts ...[]byte) error

	// Failed says why a write has failed.
	Failed(err error) relay.EndReason
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

// beat adds a heartbeat if the connection has been quiet for long enough.
func (c *Conn) beat(now time.Time) {
	if h := c.options.Heartbeat; h > 0 && now.Sub(c.spoken) >= h {
		c.buf = append(c.buffered(), c.options.HeartbeatWords...)
		c.options.Stats.Heartbeats.Add(1)
	}
}

// farewell ends the connection between two events. A shard says it by itself.
func (c *Conn) farewell(reason relay.EndReason) relay.EndReason {
	if c.solo.Load() != nil {
		return reason
	}
	if err := c.output.Write(c.isExiting(), c.farewellWords()); err != nil {
		return c.output.Failed(err)
	}
	c.response.Last()
	return reason
}

// farewellWords is what the client is told last. Where many end at once, each is told a
// different time to come back.
func (c *Conn) farewellWords() []byte {
	retry := c.options.Retry
	if c.ending.Load() != nil {
		retry += rand.N(c.options.Spread + 1)
	}
	return append(relay.AppendRetryField(nil, retry), '\n')
}

// Interface guards
var (
	_ output = (*carrier.Output)(nil)
	_ output = soloOutput{}
)
