package multiplex

import (
	"math/bits"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A connection all of whose streams are shared, and have all that there is, needs no
// goroutine: a shard of direct delivery reads the logs. When one of the streams is to end,
// or has missed events, the shard pauses, and a goroutine attends to the connection until
// all streams are in step again (handover.go).

// A pursuit is the logs that a shard reads for a connection.
type pursuit struct {
	members []*member // in the order of direct.Solo.Follow
	unread  uint64    // of these: those whose logs may have more
	untold  uint64    // whose subscribers are to be told of what was taken
	first   int       // whose turn it is
	pauseAt time.Time // when a stream is to end, or has missed something; zero: never
}

const (
	// maxPortion is about how much a shard writes for one connection at once, but for a
	// larger event. A socket that does not take it holds a copy.
	maxPortion = 16 << 10

	// maxTurn is how much of it is of one log while others wait.
	maxTurn = 8 << 10
)

// A source is a connection as direct delivery has it.
type source struct {
	*Conn
	gone chan struct{} // closed when the socket is
}

// Next implements direct.Source.
func (s *source) Next(b []byte, news uint64, now time.Time) (p direct.Portion) {
	c, f := s.Conn, s.pursuit
	if reason := c.endsBy(now); reason != "" {
		return direct.Portion{End: direct.Reason(reason)}
	}
	if c.recalled.Load() || !f.pauseAt.IsZero() && !now.Before(f.pauseAt) {
		return s.pause()
	}
	f.unread |= news
	c.buf = b
	p.Shared = c.pursue(now, len(b)+maxPortion)
	if len(c.buf) == len(b) {
		c.beat(now)
	}
	if len(c.buf) > len(b) {
		c.spoken = now
	}
	p.Bytes, c.buf = c.buf, nil
	p.More = f.unread != 0
	p.At = c.nextLook()
	return p
}

// pursue takes from each log in turn what is new, until so much is to be written. It returns
// the data of a large event, if it has come to one: they are to be sent behind the rest.
func (c *Conn) pursue(now time.Time, limit int) (shared []byte) {
	f := c.pursuit
	for n := range f.members {
		i := (f.first + n) % len(f.members)
		if f.unread&(1<<i) == 0 {
			continue
		}
		m, until := f.members[i], min(limit, len(c.buf)+maxTurn)
		shared, more := m.follow(now, until)
		f.untold |= 1 << i
		if !more {
			f.unread &^= 1 << i
		}
		if shared != nil || len(c.buf) >= limit {
			f.first = (i + 1) % len(f.members)
			return shared
		}
	}
	return nil
}

// nextLook returns when Next is to be called if nothing happens before.
func (c *Conn) nextLook() time.Time {
	at := c.pursuit.pauseAt
	earlier := func(other time.Time) {
		if at.IsZero() || other.Before(at) {
			at = other
		}
	}
	if h := c.options.Heartbeat; h > 0 {
		earlier(c.spoken.Add(h))
	}
	if c.ending.Load() != nil {
		earlier(c.endAt)
	}
	return at
}

// Taken implements direct.Source.
func (s *source) Taken() {
	f := s.pursuit
	for ; f.untold != 0; f.untold &= f.untold - 1 {
		f.members[bits.TrailingZeros64(f.untold)].carried.took()
	}
}

// Farewell implements direct.Source.
func (s *source) Farewell(direct.Reason) []byte { return s.farewellWords() }

// Ended implements direct.Source. Whoever attends to the connection finds out. If nobody
// does, it ends here.
func (s *source) Ended(reason direct.Reason, _, _ uint64) {
	why := relay.EndReason(reason)
	s.mu.Lock()
	attended := s.attended
	s.lost = why
	s.mu.Unlock()
	close(s.gone)
	if !attended {
		s.conclude(why)
		s.over(why)
	}
}

// pause has a goroutine attend to the connection.
func (s *source) pause() direct.Portion {
	s.mu.Lock()
	s.attended = true
	s.mu.Unlock()
	go s.attend()
	return direct.Portion{Pause: true}
}

// putForward makes the shard pause at a time, unless it is to pause before.
func (f *pursuit) putForward(at time.Time) {
	if !at.IsZero() && (f.pauseAt.IsZero() || at.Before(f.pauseAt)) {
		f.pauseAt = at
	}
}

// Interface guards
var _ direct.Source = (*source)(nil)
