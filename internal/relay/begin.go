package relay

import (
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// begins takes note of how s has begun, once that is settled.
func (s *Reader) begins(how Joining) {
	stats := s.topic.relay.stats
	stats.Joined(how).Add(1)
	if how == Gap {
		stats.Gaps.Add(1)
	}
	s.outcome.Store(int32(how))
}

// firstPosition is where a client begins that joins now and brings no id the
// log has.
func (t *Topic) firstPosition(resumes bool) hub.Position {
	switch first := t.relay.cfg.FirstEvents; {
	case resumes, first == 0:
		return t.log.Newest()
	case first == AllEvents:
		return t.log.Oldest()
	default:
		return t.log.Last(first)
	}
}

// settle decides where s begins: in the history, with a catch-up, or behind a gap. It
// returns the id in force there and how s begins. If that is pending, either s waits, as
// nothing is known yet, or it reads a catch-up that will end as resumed or as a gap.
func (s *Reader) settle() (id string, how Joining) {
	t := s.topic
	switch {
	case s.catchup != nil && !s.catchup.stage.now().isQueued():
		s.follow(s.catchup.log, 0)
		return s.resumeWith.ID, Pending
	case s.resumeWith.ID == "" && s.catchup == nil:
		return s.live(Fresh), Fresh
	case s.resumeWith.ID == "":
		return "", Pending // its turn to be given a greeting is yet to come
	}
	pos, known := t.lookup(s.resumeWith)
	switch known {
	case idKnown:
		s.leaveCatchup()
		how = Resumed
		if oldest, several := t.oldestOf(pos.ID, pos.Cursor); several {
			pos, how = oldest, Gap
		}
		s.begins(how)
		s.follow(t.log, pos.Cursor)
		return pos.ID, how
	case idLost:
		if !s.resumeWith.Usable() {
			t.relay.stats.IgnoredIDs.Add(1)
		}
		s.leaveCatchup()
		return s.live(Gap), Gap
	case idMissing:
		if s.catchup == nil {
			return s.catchUp(s.resumeWith)
		}
		if s.hasWaitedTooLong() {
			s.leaveCatchup()
			return s.live(Gap), Gap
		}
	case idUnsettled:
	}
	s.on(phaseHolds)
	return s.resumeWith.ID, Pending
}

// TurnPatience is how many times the timeout of a catch-up a client waits for its turn:
// others may hold the connections with ids that the origin does not answer. After that, a
// gap is better than no events.
const TurnPatience = 3

// hasWaitedTooLong reports whether s has waited long enough for the turn of its catch-up.
func (s *Reader) hasWaitedTooLong() bool {
	return s.catchup.hasQueuedFor(TurnPatience * s.topic.relay.cfg.CatchupTimeout)
}

// catchUp makes s a part of the catch-up for an id.
func (s *Reader) catchUp(id Claim) (string, Joining) {
	s.catchup = s.topic.catchups.join(s, id)
	if s.catchup == nil && s.topic.catchups.closing() {
		s.comeBack()
		s.on(phaseHolds)
		return id.ID, Pending
	}
	if s.catchup == nil {
		return s.live(Gap), Gap
	}
	s.on(phaseQueues)
	return s.settle()
}

// firstSince returns where a client begins at the earliest that is not known to be anywhere
// in the log: what a source remembers of earlier connections is for those who resume.
func (t *Topic) firstSince(how Joining) hub.Cursor {
	t.mu.Lock()
	defer t.mu.Unlock()
	if how == Gap {
		return t.opened
	}
	return t.first
}

// live makes s read the topic's log from where it joined, and returns the id in
// force there.
func (s *Reader) live(how Joining) string {
	t := s.topic
	s.begins(how)
	s.joined = max(s.joined, t.firstSince(how))
	if how == Gap {
		// It gets a notice of its own. It may have had the events before the log's
		// last gap, because it may have read further than the log.
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
func (s *Reader) greet() (wire []byte, how Joining) {
	t := s.topic
	wire, after, known := t.greeting.at()
	if !known && !t.greeting.isMissing() {
		// It is yet to come, or on its way.
		s.live(Fresh)
		return nil, Fresh
	}
	if _, ok := t.log.At(after); known && ok {
		s.begins(Fresh)
		s.follow(t.log, after)
		return wire, Fresh
	}
	_, how = s.catchUp(Claim{})
	return nil, how
}

// Begin returns the first bytes of a stream: a comment, the reconnection time,
// and the id in force just before the first event that this subscriber will
// get. A connection that breaks before that event thus resumes without loss. Clients that
// would take these bytes for an event get none of them but a greeting or a gap event.
func (s *Reader) Begin() []byte {
	b := s.primer()
	if s.waits() {
		s.spoken = time.Now()
	}
	return b
}

func (s *Reader) primer() []byte {
	t := s.topic
	var (
		id       string
		how      Joining
		greeting []byte
	)
	if s.resumeWith.ID == "" && t.greeting.configured() {
		greeting, how = s.greet()
	} else {
		id, how = s.settle()
	}
	if !s.words().Primer {
		return s.begin(how, greeting)
	}
	b := sse.AppendComment(nil, "sse_fanout")
	b = AppendRetryField(b, t.reconnectionTime())
	b = s.appendPosition(b, id, how == Gap)
	if how == Gap {
		// In one block with the position: a client that has the one has the
		// other, wherever its connection is cut.
		return append(b, s.words().Gap...)
	}
	b = append(b, '\n')
	return append(b, greeting...)
}

// begin is primer for clients that get no block without data.
func (s *Reader) begin(how Joining, greeting []byte) (b []byte) {
	if d, said := s.topic.saidRetry(); said && s.words().Retry {
		s.retry = AppendRetryField(nil, d)
	}
	switch {
	case how == Gap:
		return s.words().Gap
	case len(greeting) > 0:
		b, s.retry = append(s.retry, greeting...), nil
	}
	return b
}

// appendPosition appends the fields that make id the client's last event id. If
// there is none, a client that brought one, and is told of a gap, must forget it.
func (s *Reader) appendPosition(b []byte, id string, gap bool) []byte {
	if id == "" && !gap || len(id) > MaxPosition {
		return b
	}
	b = append(b, "id: "...)
	b = append(b, id...)
	b = append(b, '\n')
	if gap {
		return append(b, s.words().GapPosition...)
	}
	return append(b, s.words().Position...)
}

// endCatchup continues with the topic's log, or says that there is a gap.
func (s *Reader) endCatchup(spliced bool, at hub.Cursor) ([]byte, hub.Batch) {
	s.leaveCatchup()
	if !spliced {
		s.joined = max(s.joined, at)
		return s.gapNotice(s.live(Gap))
	}
	s.begins(Resumed)
	s.follow(s.topic.log, at)
	batch := s.read()
	return batch.Bytes, batch
}

// comeAgain makes s go on with the newest id that it has got, now that it has all of its
// catch-up.
func (s *Reader) comeAgain() {
	s.resumeWith, s.leg = s.catchup.here()
	s.leaveCatchup()
	s.log, s.beat = s.topic.log, s.topic.log.Look(0).Beat // that of the catch-up goes
	s.on(phaseContinues)
}

// comeBack ends the stream of a client that nothing can be fetched for any more,
// because the topic ends: with the position that it has, it finds what comes
// after the topic.
func (s *Reader) comeBack() {
	s.endWithin(0, 0, EndDrained)
}

// gapNotice returns what is sent in the middle of a stream to tell of a gap,
// after which id is in force.
func (s *Reader) gapNotice(id string) ([]byte, hub.Batch) {
	var b []byte
	if s.words().Primer {
		b = s.appendPosition(nil, id, true)
	}
	return append(b, s.words().Gap...), hub.Batch{Next: s.cursor, Beat: s.beat}
}

// oldestOf returns the oldest place that an id names, if it names one in several runs:
// nobody knows which of them the client means that brings it.
func (t *Topic) oldestOf(id string, newest hub.Cursor) (oldest hub.Position, several bool) {
	runs := t.runs.all()
	if len(runs) == 0 {
		return hub.Position{}, false
	}
	oldest, known := t.log.FirstAfter(id)
	return oldest, known && slices.ContainsFunc(runs, func(start hub.Cursor) bool {
		return oldest.Cursor <= start && start < newest
	})
}

func (s *Reader) leaveCatchup() {
	if s.catchup != nil {
		s.catchup.leave(s)
		s.catchup = nil
	}
}
