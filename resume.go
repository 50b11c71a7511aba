package ssefanout

import (
	"net/http"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A joining is how a subscriber begins.
type joining int

const (
	fresh   joining = iota // it brought no id
	resumed                // it goes on just after the id that it brought
	gap                    // nobody knows its id any more
	pending                // the topic is not connected: nobody knows yet
)

func (how joining) String() string {
	return [...]string{"fresh", "resumed", "gap", "pending"}[how]
}

// begins takes note of how s has begun, once that is settled.
func (s *session) begins(how joining) {
	stats := s.topic.pool.stats
	stats.joined(how).Add(1)
	if how == gap {
		stats.gaps.Add(1)
	}
	s.outcome.Store(int32(how))
}

// firstPosition is where a client begins that joins now and brings no id the
// log has.
func (t *topic) firstPosition(resumes bool) hub.Position {
	switch first := t.pool.opts.first; {
	case resumes, first == 0:
		return t.log.Newest()
	case first == allEvents:
		return t.log.Oldest()
	default:
		return t.log.Last(first)
	}
}

// settle finds out from where s reads. It returns the id in force there and how
// s begins; if that is pending, s may have to wait for what it will read
// (unsettled), or read a catch-up that may turn out to be one or the other.
func (s *session) settle() (id string, how joining) {
	t := s.topic
	switch {
	case s.catchup != nil && s.catchup.started.Load():
		s.follow(s.catchup.log, 0)
		return s.resumeWith.id, pending
	case s.resumeWith.id == "" && s.catchup == nil:
		return s.live(fresh), fresh
	case s.resumeWith.id == "":
		return "", pending // its turn to be given a greeting is yet to come
	}
	pos, known := t.lookup(s.resumeWith)
	switch known {
	case idKnown:
		s.leaveCatchup()
		how = resumed
		if oldest, several := t.oldestOf(pos.ID, pos.Cursor); several {
			pos, how = oldest, gap
		}
		s.begins(how)
		s.follow(t.log, pos.Cursor)
		return pos.ID, how
	case idLost:
		if !s.resumeWith.usable() {
			t.pool.stats.ignoredIDs.Add(1)
		}
		s.leaveCatchup()
		return s.live(gap), gap
	case idMissing:
		if s.catchup == nil {
			return s.catchUp(s.resumeWith)
		}
		if s.hasWaitedTooLong() {
			s.leaveCatchup()
			return s.live(gap), gap
		}
	case idUnsettled:
	}
	s.setUnsettled(true)
	return s.resumeWith.id, pending
}

// turnPatience is how many times the timeout of a catch-up a client waits for its turn:
// others may hold the connections with ids that the origin does not answer. After that, a
// gap is better than no events.
const turnPatience = 3

// hasWaitedTooLong reports whether s has waited long enough for the turn of its catch-up.
func (s *session) hasWaitedTooLong() bool {
	return s.catchup.hasQueuedFor(turnPatience * time.Duration(s.topic.pool.opts.Catchup.Timeout))
}

// catchUp makes s a part of the catch-up for an id.
func (s *session) catchUp(id claim) (string, joining) {
	s.catchup = s.topic.catchups.join(s, id)
	if s.catchup == nil && s.topic.catchups.closing() {
		s.comeBack()
		s.setUnsettled(true)
		return id.id, pending
	}
	if s.catchup == nil {
		return s.live(gap), gap
	}
	s.setUnsettled(true)
	return s.settle()
}

// live makes s read the topic's log from where it joined, and returns the id in
// force there.
func (s *session) live(how joining) string {
	t := s.topic
	s.begins(how)
	if how == gap {
		// It gets a notice of its own. What lies before the last one in the log,
		// it may have had: it can have been further than the log was.
		s.joined = max(s.joined, t.noticed())
	}
	pos, ok := t.log.At(s.joined)
	if !ok {
		pos = t.log.Newest()
	}
	s.follow(t.log, pos.Cursor)
	return pos.ID
}

// greet returns the greeting for a client without a position, from behind which
// s reads the log. The client keeps having none until an event sets one: if its
// connection breaks before that, it needs the greeting again.
func (s *session) greet() (wire []byte, how joining) {
	t := s.topic
	wire, after, known := t.greeting.at()
	if !known {
		// It is yet to come, or on its way.
		s.live(fresh)
		return nil, fresh
	}
	if _, ok := t.log.At(after); ok {
		s.begins(fresh)
		s.follow(t.log, after)
		return wire, fresh
	}
	_, how = s.catchUp(claim{})
	return nil, how
}

// primer returns the first bytes of a stream: a comment, the reconnection time,
// and the id in force just before the first event that this subscriber will
// get. A connection that breaks before that event thus resumes without loss. Clients that
// would take this for an event get what is one alone.
func (s *session) primer() []byte {
	t := s.topic
	var (
		id       string
		how      joining
		greeting []byte
	)
	if s.resumeWith.id == "" && t.greeting.configured() {
		greeting, how = s.greet()
	} else {
		id, how = s.settle()
	}
	if !s.words().primer {
		return s.begin(how, greeting)
	}
	b := sse.AppendComment(nil, "sse_fanout")
	b = appendRetryField(b, t.reconnectionTime())
	b = appendPosition(b, id, how == gap)
	if how == gap {
		// In one block with the position: a client that has the one has the
		// other, wherever its connection is cut.
		return append(b, s.words().gap...)
	}
	b = append(b, '\n')
	return append(b, greeting...)
}

// begin is primer for clients that get no block without data.
func (s *session) begin(how joining, greeting []byte) (b []byte) {
	if d, said := s.topic.saidRetry(); said && s.audience == libraries {
		s.retry = appendRetryField(nil, d)
	}
	switch {
	case how == gap:
		return s.words().gap
	case len(greeting) > 0:
		b, s.retry = append(s.retry, greeting...), nil
	}
	return b
}

// maxPosition is the longest id that a client is told as its position, besides with its
// event: a longer one cannot come back, as no server takes such a header.
const maxPosition = http.DefaultMaxHeaderBytes

// appendPosition appends the field that makes id the client's last event id. If
// there is none, a client that brought one must forget it.
func appendPosition(b []byte, id string, brought bool) []byte {
	if id == "" && !brought || len(id) > maxPosition {
		return b
	}
	b = append(b, "id: "...)
	b = append(b, id...)
	return append(b, '\n')
}

// endCatchup continues with the topic's log, or says that there is a gap.
func (s *session) endCatchup(spliced bool, at hub.Cursor) ([]byte, hub.Batch) {
	s.leaveCatchup()
	if !spliced {
		s.joined = max(s.joined, at)
		return s.gapNotice(s.live(gap))
	}
	s.begins(resumed)
	s.follow(s.topic.log, at)
	batch := s.read()
	return batch.Bytes, batch
}

// comeAgain makes s go on with the newest id that it has got, now that it has all of its
// catch-up.
func (s *session) comeAgain() {
	s.resumeWith, s.leg = s.catchup.here()
	s.leaveCatchup()
	s.log, s.beat = s.topic.log, s.topic.log.Look(0).Beat // that of the catch-up goes
	s.setUnsettled(true)
}

// comeBack ends the stream of a client that nothing can be fetched for any more,
// because the topic ends: with the position that it has, it finds what comes
// after the topic.
func (s *session) comeBack() {
	s.endWithin(0, 0, endDrained)
}

func (s *session) leaveCatchup() {
	if s.catchup != nil {
		s.catchup.leave(s)
		s.catchup = nil
	}
}

// gapNotice returns what is sent in the middle of a stream to tell of a gap,
// after which id is in force.
func (s *session) gapNotice(id string) ([]byte, hub.Batch) {
	var b []byte
	if s.words().primer {
		b = appendPosition(nil, id, true)
	}
	return append(b, s.words().gap...), hub.Batch{Next: s.cursor, Beat: s.beat}
}

// setUnsettled takes note of whether it is known what s reads.
func (s *session) setUnsettled(unsettled bool) {
	if unsettled == s.unsettled {
		return
	}
	s.unsettled = unsettled
	if unsettled {
		s.topic.unsettled.Add(1)
	} else {
		s.topic.unsettled.Add(-1)
	}
}
