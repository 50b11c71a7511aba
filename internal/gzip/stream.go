package gzip

import "github.com/sse-fanout/caddy-sse-fanout/internal/hub"

// A Stream is what one reader gets: a member of gzip. Its zero value has no rendition, and
// consists of stored blocks alone. It is not safe for concurrent use.
//
// The carrier sends Header, then what Private and Next say, and at last what End returns. A
// stream that is cut has no end, so that its reader does not take it for whole.
type Stream struct {
	rendition *Rendition
	isInStep  bool
	mark      Mark       // where the reader is, between pieces or behind stored blocks
	since     hub.Cursor // before the mark was shared, it had nothing but the log since here
	start     Sum        // of the mark where it got there
	own       Sum        // of what it got before
}

// Rendition returns that which the stream is of, or nil.
func (s *Stream) Rendition() *Rendition { return s.rendition }

// IsInStep reports whether the reader gets pieces.
func (s *Stream) IsInStep() bool { return s.isInStep }

// Mark returns where a reader is.
func (s *Stream) Mark() Mark { return s.mark }

// Since returns the cursor since which a reader that waits has had nothing but the log, for
// Rendition.Await.
func (s *Stream) Since() hub.Cursor { return max(s.since, s.mark.since) }

// MoveTo says where a reader is: at a mark that follows from the one where it was, or that it
// comes back to.
func (s *Stream) MoveTo(m Mark) { s.mark = m }

// Share says that a reader which is not in step gets the same stored blocks as others from now
// on. They are at a mark.
func (s *Stream) Share(m Mark) {
	s.own = s.own.Then(s.mark.sum.since(s.start))
	s.since = s.Since()
	s.mark, s.start = m, m.sum
}

// Private says that p is sent to this reader alone, in stored blocks.
func (s *Stream) Private(p []byte) {
	if len(p) > 0 {
		s.Leave()
		s.mark = s.mark.Words(p)
	}
}

// Next returns what a reader at a cursor of the log gets next. If nothing is there, it is
// empty. Took must be called when it was sent.
func (s *Stream) Next(at hub.Cursor) Batch {
	r := s.rendition
	limit, ok := s.enter(at, nil)
	if ok {
		return r.Read(s.mark)
	}
	batch := r.log.LookUntil(at, limit)
	b := Batch{Stored: batch.Bytes, Next: batch.Next, Since: batch.Since, Lagged: batch.Lagged}
	if batch.Gap {
		b.Stored = r.gap
	}
	b.Plain, b.Events = len(b.Stored), int(b.Next-at) //nolint:gosec // of one segment
	b.mark = s.mark.Entries(b.Stored, b.Next)
	return b
}

// Took says that a batch was sent.
func (s *Stream) Took(b *Batch) { s.mark = b.mark }

// Enter lets a reader at a cursor, which has had so many heartbeats of the log, get in step if
// the rendition has a restart point there, or will have. It reports whether it is. Otherwise
// the reader is sent stored blocks in front of the cursor limit, and asks again.
func (s *Stream) Enter(at hub.Cursor, beat uint64) (limit hub.Cursor, isInStep bool) {
	if s.rendition == nil {
		return uncut, false
	}
	return s.enter(at, &beat)
}

// enter is Enter, for a reader of which it is not known how many heartbeats it has had if beat
// is nil. If the reader is not in step, enter returns the cursor in front of which it is sent
// stored blocks.
func (s *Stream) enter(at hub.Cursor, beat *uint64) (limit hub.Cursor, ok bool) {
	for !s.isInStep {
		limit, ok := s.tryToEnter(at, beat)
		if !ok && (limit != at || !s.rendition.reach(at)) {
			return limit, false
		}
	}
	return 0, true
}

func (s *Stream) tryToEnter(at hub.Cursor, beat *uint64) (limit hub.Cursor, ok bool) {
	r := s.rendition
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.mark.cursor != at {
		s.mark = s.mark.Jump(at)
	}
	m, ok, limit := r.await(s.Since(), at)
	if !ok {
		return limit, false
	}
	if beat != nil && r.inStep == 0 && m.Is(r.end) {
		r.beat = *beat // nobody else waits for those that it has had
	}
	r.inStep++
	s.Share(m)
	s.isInStep = true
	return limit, true
}

// Leave makes the reader get stored blocks until the next restart point.
func (s *Stream) Leave() {
	if !s.isInStep {
		return
	}
	r := s.rendition
	r.mu.Lock()
	defer r.mu.Unlock()
	s.leftStep()
}

// leftStep counts the reader among those that wait. Rendition.mu must be held.
func (s *Stream) leftStep() {
	s.rendition.inStep--
	s.isInStep = false
}

// End returns the end of the member, with words in front of it that are sent to this reader
// alone.
func (s *Stream) End(words []byte) []byte {
	s.Private(words)
	s.Leave()
	b := AppendStored(nil, words)
	if len(words) > 0 {
		b = append(b, Flush...)
	}
	return appendEnd(b, s.own.Then(s.mark.sum.since(s.start)))
}

// Close is called when nothing more is read.
func (s *Stream) Close() {
	r := s.rendition
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.isInStep {
		s.leftStep()
	}
	r.leave()
	s.rendition = nil
}
