package relay

import (
	"bytes"
	"math"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A Sieve tells what one connection to the origin brings that its topic does not have: an
// origin that ignores the last event id begins with what was there before, and one that
// begins its stream anew sends the same again as news (see runs.go).
//
// It is owned by the goroutine that feeds the connection's sink. It does not change the log:
// that is for who gets its findings, at once or, where several nodes share what it finds,
// some time later.
type Sieve struct {
	Question
	topic    *Topic
	overlaps bool // another connection goes on beside this one, and brings the same

	whole     bool       // its events are those from the connection's beginning on
	judges    bool       // nobody else has said what is news
	replaying bool       // all events so far were in the log already
	replayed  hub.Cursor // up to here
	limit     hub.Cursor // what the log has from here on is news; 0: there is no limit
	begun     bool       // an event has come
	rerun     rerun
	events    int    // that are news, with data
	wire      []byte // of the newest event, used again for the next one
}

// A Question is how the origin was asked for a connection.
type Question struct {
	// ID is the last event id in the request, or empty.
	ID string

	// Anew says that the connection before has ended as a stream should.
	Anew bool

	// Ahead says that those whom the connection is for have nothing behind ID, even if the
	// log has. If the log does not have ID, they have nothing that it has.
	Ahead bool
}

// Sieve returns a sieve for a source that decides itself what is news (see Opening.News). The
// log must have all that was news on earlier connections.
func (t *Topic) Sieve(q Question) *Sieve {
	s := &Sieve{Question: q, topic: t, whole: true, judges: true, replaying: true}
	if q.Ahead {
		at, known := t.log.KeptAfter(q.ID)
		s.replaying, s.limit = known && q.ID != "" && at.Cursor > 0, at.Cursor
	}
	return s
}

// begin makes s judge what the connection brings. It may be a replay if the log has had
// anything.
func (s *Sieve) begin(replaying bool) {
	s.whole, s.judges, s.replaying = true, true, replaying
}

// A Finding is what a sieve has found of an event.
type Finding struct {
	// Began is what the connection has begun with, if that is this event (see Note).
	Began *RunStart

	// Run says that a new run begins, with what was held back, and then the event.
	Run bool

	// News says that the event is to be given to readers.
	News bool

	held []hub.Entry
}

// Held calls back for each event that was held back until now.
func (f *Finding) Held(give func(*sse.Event)) {
	for _, e := range f.held {
		sse.NewDecoder(len(e.Wire), give).Write(e.Wire) //nolint:errcheck // it is no longer than it is
	}
}

// Sift says what becomes of the next event. It takes the id from one that only names a place,
// as a fan-out begins each connection with.
func (s *Sieve) Sift(e *sse.Event) Finding {
	event := *e
	event.HasRetry = e.HasRetry && s.topic.relay.cfg.Retry == 0 // as the log has it
	f := s.sift(&event)
	if e.HasID && !event.HasID {
		e.HasID, e.ID = false, nil
	}
	return Finding{f.began, f.run, !f.known && (e.HasID || e.HasData || e.HasRetry), f.held}
}

// A finding is a Finding for who appends to the log.
type finding struct {
	entry  hub.Entry // of the event; without bytes if nothing is left of it
	known  bool      // the log has it, or it is not known yet whether it is news
	greets bool      // it is part of the greeting
	first  bool      // and no event of the connection was news before
	began  *RunStart
	run    bool
	held   []hub.Entry
}

// sift says what becomes of the next event, and gives it the id that it gets if it has none.
// The bytes of the entry are used again for the next one.
func (s *Sieve) sift(e *sse.Event) (f finding) {
	t := s.topic
	s.skipPosition(e)
	if !e.HasID && !e.HasData && !e.HasRetry {
		return f
	}
	f.entry = hub.Entry{SetsID: e.HasID, ID: eventID(e)}
	assigned := t.epoch != "" && !e.HasID && e.HasData
	if assigned {
		f.entry.SetsID, f.entry.ID = true, t.assign(t.log.Newest().Cursor)
		e.HasID, e.ID = true, []byte(f.entry.ID)
	}
	s.wire = sse.Append(s.wire[:0], e)
	f.entry.Wire = s.wire
	if cap(s.wire) > maxKeptBuffer {
		s.wire = nil
	}
	if !e.HasID && !e.HasData {
		// A reconnection time alone, as many servers begin each connection with:
		// it neither ends a replay nor is a greeting.
		f.entry.Aside = true
		return f
	}
	f.greets, f.first = t.greeting.greets(e, s.place()), s.events == 0
	if s.judges && !s.begun && !f.greets {
		s.begun = true
		if f.entry.SetsID && !assigned {
			f.began = s.begins(&f.entry)
		}
	}
	if !f.greets {
		s.judge(&f)
	}
	if e.HasData && !f.known {
		s.events++
	}
	return f
}

// place returns behind how many events of the connection the next one comes.
func (s *Sieve) place() int {
	if !s.whole {
		return math.MaxInt // it has begun some time ago
	}
	return s.events
}

// judge decides whether an event that is no greeting is news.
func (s *Sieve) judge(f *finding) {
	if s.replaying && s.isReplay(f) {
		if f.known = !s.isNewRun(&f.entry, s.replayed); f.known {
			return
		}
		s.release(f)
	}
	if f.entry.SetsID || s.replayed > 0 || !s.overlaps {
		// Beside another connection, an event without an id, as some origins begin
		// each with, is no sign that what follows has not come there.
		s.endReplay(f)
	}
}

// skipPosition takes its id from a position, as a fan-out begins each connection with. It is
// not news, and a replay may follow it.
func (s *Sieve) skipPosition(e *sse.Event) {
	if !s.replaying || !e.HasID || e.HasData {
		return
	}
	if _, known := s.topic.log.After(eventID(e)); known && !s.repeats(e) {
		e.HasID, e.ID = false, nil
	}
}

// repeats reports whether a replay has begun and has come to an event that the log has.
func (s *Sieve) repeats(e *sse.Event) bool {
	s.wire = sse.Append(s.wire[:0], e)
	_, ok := s.topic.log.Match(s.replayed, hub.Entry{Wire: s.wire, SetsID: e.HasID, ID: eventID(e)})
	return ok && s.replayed > 0
}

// isReplay reports whether an event at the start of a connection is in the log
// already, in its turn: an origin that ignores the last event id, or counts it
// differently, begins with what was there before.
func (s *Sieve) isReplay(f *finding) bool {
	e := f.entry
	if !e.SetsID && s.replayed == 0 {
		return false
	}
	t, from := s.topic, s.replayed
	if from == 0 {
		from = t.runs.newest() // an older one may have gone further
	}
	next, ok := t.log.Match(from, e)
	switch {
	case ok && s.limit > 0 && next > s.limit:
		return false
	case ok && s.replayed == 0 && s.goesOn(&e, next-1):
		f.run = s.rerun.possible
		return false
	}
	if ok {
		s.replayed = next
	}
	return ok
}

// maxKeptBuffer is how large a buffer is kept for the next event.
const maxKeptBuffer = 64 << 10

// begins records the first event of a connection.
func (s *Sieve) begins(e *hub.Entry) *RunStart {
	start := startOf(e)
	if s.topic.runs.note(start) {
		s.rerun = rerun{possible: !s.resumesWith(e), since: time.Now()}
	}
	return &start
}

// resumesWith reports whether an event is the one that follows the id that the origin was
// asked with: several connections may have been asked with the same.
func (s *Sieve) resumesWith(e *hub.Entry) bool {
	log := s.topic.log
	at, known := log.KeptAfter(s.ID)
	return s.ID != "" && known && log.FirstID(at.Cursor) == e.ID
}

// goesOn reports whether the first event of a connection, which the log has at a cursor,
// follows the id that the origin was asked with, as one like it did in an earlier run. Then
// the log ends with that id, and has the event before.
func (s *Sieve) goesOn(e *hub.Entry, at hub.Cursor) bool {
	log := s.topic.log
	before, ok := log.At(at)
	return ok && s.ID != "" && before.ID == s.ID && e.ID != s.ID && log.Newest().ID == s.ID
}

// isNewRun reports whether an event that the log has, before a cursor, belongs to a new run.
// If it is not known yet, it holds the event back.
func (s *Sieve) isNewRun(e *hub.Entry, behind hub.Cursor) bool {
	log, r := s.topic.log, &s.rerun
	if !r.possible {
		return false
	}
	if s.Anew || r.keepsPace(log.Look(behind-1).Since) {
		return true
	}
	held, ok := log.Entry(behind - 1) // for its bytes are there already
	if !ok {
		held = *e
		held.Wire = bytes.Clone(e.Wire)
	}
	r.held = append(r.held, held)
	return false
}

// release gives back what was held back, at the beginning of a new run.
func (s *Sieve) release(f *finding) {
	f.run, f.held = true, s.rerun.held
	s.replaying, s.rerun = false, rerun{}
}

// endReplay is called at the first event of a connection that the log has not. If the log had
// it, and lost it while events were held back, nobody can tell whether these were a replay.
// They are delivered, as is what follows.
func (s *Sieve) endReplay(f *finding) {
	if len(s.rerun.held) > 0 && s.replayed < s.topic.log.Tail().Cursor {
		s.release(f)
	}
	s.replaying, s.rerun = false, rerun{}
}
