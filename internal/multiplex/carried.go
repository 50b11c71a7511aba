package multiplex

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A carried is a stream that a shard reads: a relay.Carriage.
type carried struct {
	member     *member
	subscriber *relay.Subscriber
	log        *hub.Log
	cursor     hub.Cursor    // of what is to be read next
	size       int           // bytes that were read, and that the client has not taken yet
	since      time.Time     // when the first of these was published
	ending     *relay.Ending // the last seen
	endAt      time.Time     // when the stream is to end; zero: never
	reason     relay.EndReason

	// What the client has taken, which anybody may read.
	events, bytes, taken atomic.Uint64

	deleted atomic.Bool // by an administrator
	back    atomic.Bool // the subscriber has a reader again
}

// Progress implements relay.Carriage.
func (k *carried) Progress() (events, bytes uint64, at hub.Cursor) {
	return k.events.Load(), k.bytes.Load(), hub.Cursor(k.taken.Load())
}

// End implements relay.Carriage.
func (k *carried) End(relay.EndReason) {
	// In this order: takeBack looks at the flag after it has said that there is a reader.
	k.deleted.Store(true)
	if k.back.Load() {
		k.subscriber.End()
		return
	}
	c := k.member.conn
	c.recalled.Store(true)
	c.notify()
}

// handOver gives the stream, which is in step, to a shard.
func (m *member) handOver() {
	k := &carried{member: m, subscriber: m.reader.Subscriber}
	m.carried = k
	_ = m.reader.HandOver(func(h *relay.Handover) (relay.Carriage, error) { // which fails only if this does
		k.log, k.cursor, k.endAt, k.reason = h.Log, h.Cursor, h.EndAt, h.EndReason
		k.events.Store(h.Events)
		k.bytes.Store(h.Bytes)
		k.taken.Store(uint64(h.Cursor))
		return k, nil
	})
	m.closeReader()
	m.enter(handed)
}

// takeBack makes the stream have a reader again. The client has taken all that was read.
func (m *member) takeBack() {
	k := m.carried
	m.carried = nil
	m.reader = k.subscriber.TakeBack(&relay.Handover{
		Log:       k.log,
		Cursor:    k.cursor,
		Events:    k.events.Load(),
		Bytes:     k.bytes.Load(),
		EndAt:     k.endAt,
		EndReason: k.reason,
	}, m.conn.output)
	k.back.Store(true)
	if k.deleted.Load() {
		k.subscriber.End()
	}
	m.ready = true
	m.enter(reading)
}

// follow takes what is new in the log until so much is to be written. It returns the data of
// a large event, if it has come to one, and whether there is more. If the stream is to end, or
// has missed events, it makes the shard pause.
func (m *member) follow(now time.Time, until int) (shared []byte, more bool) {
	c, k := m.conn, m.carried
	if e := k.subscriber.Topic().Ending(); e != k.ending {
		k.heed(e, now)
	}
	for {
		batch := k.log.Look(k.cursor)
		switch {
		case batch.Lagged:
			c.pursuit.putForward(now)
			return nil, true
		case batch.Gap:
			k.cursor = batch.Next
			c.encode(m, &block{gap: true})
			continue
		case len(batch.Bytes) == 0:
			return nil, false
		}
		if uint64(k.cursor) == k.taken.Load() {
			k.since = batch.Since
		}
		for wire := batch.Bytes; ; {
			if len(c.buf) >= until {
				return nil, true
			}
			var b block
			size := len(wire)
			b, wire = nextBlock(wire)
			k.cursor++
			k.size += size - len(wire)
			if len(wire) == 0 {
				k.cursor = batch.Next
			}
			if shared := c.encode(m, &b); shared != nil {
				return shared, true
			}
			if len(wire) == 0 {
				break
			}
		}
	}
}

// heed takes note that the topic ends its subscribers.
func (k *carried) heed(e *relay.Ending, now time.Time) {
	k.ending = e
	if e.Over > 0 {
		now = now.Add(rand.N(e.Over))
	}
	if k.endAt.IsZero() || now.Before(k.endAt) {
		k.endAt, k.reason = now, e.Reason
		k.member.conn.pursuit.putForward(now)
	}
}

// took tells the subscriber that the client has taken all that was read.
func (k *carried) took() {
	events := uint64(k.cursor) - k.taken.Load()
	if events == 0 {
		return
	}
	size := uint64(k.size) //nolint:gosec // a length
	k.size = 0
	k.events.Add(events)
	k.bytes.Add(size)
	k.taken.Store(uint64(k.cursor))
	k.subscriber.Took(events, size, k.cursor, k.since)
}

// Interface guards
var _ relay.Carriage = (*carried)(nil)
