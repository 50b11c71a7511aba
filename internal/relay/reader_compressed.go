package relay

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// Compressed returns the stream of a client that accepts gzip, or nil if it is to get the log
// as it is: too few share the topic, or there are too many compressors. A client that must
// have gzip then gets a stream of its own, which compresses nothing. The stream must be closed.
func (s *Reader) Compressed(must bool) *gzip.Stream {
	t := s.topic
	if t.renditions == nil {
		return nil
	}
	if t.Subscribers() >= t.relay.cfg.CompressFrom {
		if z, ok := t.renditions[s.audience].Join(); ok {
			return z
		}
	}
	if must {
		return new(gzip.Stream)
	}
	return nil
}

// Cursor returns the place in its log behind all that was sent.
func (s *Reader) Cursor() hub.Cursor { return s.cursor }

// Beat returns how many heartbeats of its log the client has had.
func (s *Reader) Beat() uint64 { return s.beat }

// IsShared reports whether the Bytes of a step are what all readers of the topic get at its
// cursor: a rendition has them, too.
func (step *Step) IsShared() bool { return step.shared }

// IsBeat reports whether the Bytes of a shared step are a heartbeat.
func (step *Step) IsBeat() bool { return step.batch.Next == step.at }

// Instead returns the step for a carrier that has sent what a rendition had at its place.
func (step Step) Instead(b *gzip.Batch) Step {
	step.batch.Next, step.size = b.Next, b.Plain
	if b.Events > 0 {
		step.batch.Since = b.Since
	}
	return step
}
