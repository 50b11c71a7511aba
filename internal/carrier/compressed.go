package carrier

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// Gzip is the content coding of a compressed stream (RFC 9110, section 8.4.1.3).
const Gzip = "gzip"

func (s *Session) beginCompressed(words []byte) error {
	s.gzip.Private(words)
	return s.write(append([][]byte{[]byte(gzip.Header)}, gzip.StoredParts(words)...)...)
}

// sendCompressed does a step in gzip. What all readers of the topic get is sent as its
// rendition has it, which may be less than the step, or a heartbeat before it.
func (s *Session) sendCompressed(step relay.Step) error {
	z := s.gzip
	joins := step.IsBeat() && !z.IsInStep()
	if z.Rendition() == nil || !step.IsShared() || joins && !s.enter() {
		if err := s.sendPrivately(step.Words, step.Bytes); err != nil {
			return err
		}
		s.reader.Sent(step)
		return nil
	}
	if len(step.Words) > 0 {
		if err := s.sendPrivately(step.Words); err != nil {
			return err
		}
	}
	batch := z.Next(s.reader.Cursor())
	switch {
	case batch.IsEmpty() && joins:
		// The heartbeat stands before the restart point.
		if err := s.sendPrivately(step.Bytes); err != nil {
			return err
		}
		s.reader.Sent(step)
		return nil
	case batch.IsEmpty() && step.IsBeat() && !batch.Lagged:
		s.reader.Sent(step) // it was in the rendition already
		return nil
	case batch.IsEmpty():
		z.Leave() // the reader finds out whether the log has it
		return nil
	}
	parts := [][]byte{batch.Bytes}
	if len(batch.Stored) > 0 {
		parts = gzip.StoredParts(batch.Stored)
	}
	if err := s.write(parts...); err != nil {
		return err
	}
	z.Took(&batch)
	s.count(parts, batch.Plain)
	s.reader.Sent(step.Instead(&batch))
	return nil
}

// enter lets the client get in step, if it can now, and reports whether it is.
func (s *Session) enter() bool {
	_, ok := s.gzip.Enter(s.reader.Cursor(), s.reader.Beat())
	return ok
}

// sendPrivately sends words for this client alone.
func (s *Session) sendPrivately(words ...[]byte) error {
	parts := make([][]byte, 0, 3*len(words))
	size := 0
	for _, w := range words {
		s.gzip.Private(w)
		parts = append(parts, gzip.StoredParts(w)...)
		size += len(w)
	}
	if err := s.write(parts...); err != nil {
		return err
	}
	s.count(parts, size)
	return nil
}

// count counts what was sent, and of how many bytes it was.
func (s *Session) count(parts [][]byte, of int) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	s.reader.Topic().CountCompressed(uint64(n), uint64(of)) //nolint:gosec // lengths
}
