package ssefanout

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
)

// A subscriber is one client of a topic, and all that is kept of it however it is
// served: by a session, until its connection is handed over, and then through its
// socket. There is one for every client: it is laid out to be small.
type subscriber struct {
	// Static after construction.
	number   uint64 // names it to administrators
	topic    *topic
	clientIP string // as it is counted
	started  time.Time

	bystander bool // it has not brought the id that the topic was opened with
	audience  audience

	outcome atomic.Int32 // a joining

	session atomic.Pointer[session]
	socket  atomic.Pointer[direct.Socket]
}

// lastSubscriber is the number of the newest subscriber of the process.
var lastSubscriber atomic.Uint64

func newSubscriber(t *topic, clientIP string, a audience) *subscriber {
	s := &subscriber{
		number:   lastSubscriber.Add(1),
		topic:    t,
		clientIP: clientIP,
		audience: a,
		started:  time.Now(),
	}
	s.outcome.Store(int32(pending))
	return s
}

// delivered returns how many events, and bytes of them, the client has got.
func (s *subscriber) delivered() (events, bytes uint64) {
	if k := s.socket.Load(); k != nil {
		events, bytes, _ = k.Progress()
		return events, bytes
	}
	if served := s.session.Load(); served != nil {
		return served.events.Load(), served.bytes.Load()
	}
	return 0, 0
}

// position returns the cursor of s, unless it reads something else than its
// topic's log: a catch-up, or nothing yet.
func (s *subscriber) position() (cursor uint64, ok bool) {
	if k := s.socket.Load(); k != nil {
		_, _, at := k.Progress()
		return uint64(at), true
	}
	if served := s.session.Load(); served != nil {
		return served.position()
	}
	return 0, false
}

// delete ends s between two events.
func (s *subscriber) delete() {
	if served := s.session.Load(); served != nil {
		// In this order: run sets the timer before it looks at the flag. If it
		// hands over instead, it looks at the flag after that.
		served.deleted.Store(true)
		served.timer.Reset(0)
	}
	if k := s.socket.Load(); k != nil {
		k.End(endDeleted)
	}
}

// hurry shortens a write that is under way, for Caddy exits.
func (s *subscriber) hurry() {
	if served := s.session.Load(); served != nil {
		served.deadline.hurry()
	}
}

// Farewell returns what the client is told when its stream ends. Where many end at
// once, each is told a different time to come back. Where the origin has ended the stream,
// its own word holds.
func (s *subscriber) Farewell(reason endReason) []byte {
	if !s.words().primer || reason == endUpstreamEnded {
		return nil
	}
	if reason == endYielded {
		return append(appendRetryField(nil, turnAwayDelay()), '\n')
	}
	e := s.topic.ending.Load()
	if (e == nil || reason != e.Reason) && reason != endDrained {
		return nil
	}
	retry := s.topic.reconnectionTime() + rand.N(time.Duration(s.topic.pool.opts.StreamCloseDelay)+1)
	return append(appendRetryField(nil, retry), '\n')
}

// Ended is called when a connection that was handed over is closed.
func (s *subscriber) Ended(reason endReason, events, bytes uint64) {
	s.ended(reason, events, bytes)
	s.topic.roster.leave(s)
	s.topic.pool.leave(s.topic, s.clientIP)
}

// ended takes note of how the stream has ended.
func (s *subscriber) ended(reason endReason, events, bytes uint64) {
	p := s.topic.pool
	p.stats.ended.count(reason)
	if c := p.log().Check(zapcore.DebugLevel, "subscriber ended"); c != nil {
		c.Write(zap.String("topic", s.topic.name),
			zap.Uint64("subscriber", s.number),
			zap.Stringer("outcome", joining(s.outcome.Load())),
			zap.String("reason", string(reason)),
			zap.Uint64("events", events),
			zap.Uint64("bytes", bytes),
			zap.Duration("duration", time.Since(s.started)))
	}
}

// Interface guards
var _ direct.Client = (*subscriber)(nil)
