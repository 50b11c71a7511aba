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
	mark      Mark // where the reader is, while it is in step
	start     Sum  // of the rendition, where it got in step
	own       Sum  // of what it got before
}

// Rendition returns that which the stream is of, or nil.
func (s *Stream) Rendition() *Rendition { return s.rendition }

// IsInStep reports whether the reader gets pieces.
func (s *Stream) IsInStep() bool { return s.isInStep }

// Mark returns where a reader is that is in step.
func (s *Stream) Mark() Mark { return s.mark }

// MoveTo says where a reader is that is in step.
func (s *Stream) MoveTo(m Mark) { s.mark = m }

// Private says that p is sent to this reader alone, in stored blocks.
func (s *Stream) Private(p []byte) {
	if len(p) > 0 {
		s.Leave()
		s.own = s.own.Add(p)
	}
}

// Next returns what a reader at a cursor of the log gets next. If nothing is there, it is
// empty. Took must be called when it was sent.
func (s *Stream) Next(at hub.Cursor) Batch {
	r := s.rendition
	r.mu.Lock()
	defer r.mu.Unlock()
	limit, ok := s.enter(at)
	if ok {
		return r.read(s.mark)
	}
	batch := r.log.LookUntil(at, limit)
	b := Batch{Stored: batch.Bytes, Next: batch.Next, Since: batch.Since, Lagged: batch.Lagged}
	if batch.Gap {
		b.Stored = r.gap
	}
	b.Plain, b.Events = len(b.Stored), int(b.Next-at) //nolint:gosec // of one segment
	return b
}

// Took says that a batch was sent.
func (s *Stream) Took(b *Batch) {
	if s.isInStep {
		s.mark = b.mark
	} else {
		s.own = s.own.Add(b.Stored)
	}
}

// Enter lets a reader at a cursor, which has had so many heartbeats of the log, get in step if
// the rendition has a restart point there, or will have. It reports whether it is.
func (s *Stream) Enter(at hub.Cursor, beat uint64) bool {
	r := s.rendition
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !s.isInStep && r.inStep == 0
	_, ok := s.enter(at)
	if first && ok && s.mark.Is(r.end) {
		r.beat = beat // nobody else waits for those that it has had
	}
	return ok
}

func (s *Stream) enter(at hub.Cursor) (limit hub.Cursor, ok bool) {
	if s.isInStep {
		return 0, true
	}
	m, ok, limit := s.rendition.enter(at)
	if ok {
		s.rendition.inStep++
		s.isInStep, s.mark, s.start = true, m, m.sum
	}
	return limit, ok
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

func (s *Stream) leftStep() {
	s.rendition.inStep--
	s.isInStep = false
	s.own = s.own.Then(s.mark.sum.since(s.start))
}

// End returns the end of the member, with words in front of it that are sent to this reader
// alone.
func (s *Stream) End(words []byte) []byte {
	s.Leave()
	s.own = s.own.Add(words)
	b := AppendStored(nil, words)
	if len(words) > 0 {
		b = append(b, Flush...)
	}
	return appendEnd(b, s.own)
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
