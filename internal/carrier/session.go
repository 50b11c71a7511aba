// Package carrier brings to HTTP clients what their readers tell: from the goroutine of the
// request, or by handing the connection over to direct delivery.
package carrier

import (
	"net/http"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A Service carries to the clients of a relay: it is what they have in common.
type Service struct {
	// Timeout is how long a client may take nothing of what is written to it.
	Timeout time.Duration

	// Direct is what takes connections over, and HandsOver whether it is given any.
	Direct    *direct.Writer
	HandsOver bool

	// Sockets are those beneath the connections of clients.
	Sockets Sockets

	// Kept is told why a connection that could have been handed over was not.
	Kept func(reader *relay.Reader, why error)

	// Delivered is told of batches of direct delivery how long they took.
	Delivered func(took time.Duration)
}

// A Session is a client that is served by the goroutine of its request: for as long as
// that lasts, or until its connection is handed over to direct delivery. It carries what
// its reader tells.
type Session struct {
	*Output
	service *Service
	reader  *relay.Reader

	gzip *gzip.Stream // nil: the client gets what is sent as it is

	// detachable is set while the connection may be handed over.
	detachable bool
}

// Begin begins to serve a client that was admitted, in gzip if there is a stream of it. The
// header is to be written after it. Serve must be called then, and Release at last.
func (c *Service) Begin(w http.ResponseWriter, r *http.Request, reader *relay.Reader, z *gzip.Stream) *Session {
	s := &Session{Output: c.NewOutput(w, r), service: c, reader: reader, gzip: z}
	reader.Enter(s)
	s.detachable = c.Detachable(w, r)
	return s
}

// Serve returns when the stream has ended, or when the connection was handed over: then
// there is no reason. If it is to be aborted, the stream has ended inside an event, which a
// client must not take for a clean end.
func (s *Session) Serve() (reason relay.EndReason, abort bool) {
	defer s.resumeIdle() // also if it panics
	reason = s.run(s.r.Context().Done())
	if s.reader.IsCarried() {
		s.Close("")
		return "", false
	}
	s.reader.Ended(reason)
	return reason, s.Close(reason)
}

// Release gives back what the session has taken, unless it was handed over with the connection.
func (s *Session) Release() {
	if s.gzip != nil && !s.reader.IsCarried() {
		s.gzip.Close()
	}
}

// run sends all that comes, until the stream ends or the connection is handed over.
func (s *Session) run(gone <-chan struct{}) relay.EndReason {
	if err := s.begin(s.reader.Begin()); err != nil {
		return s.Failed(err)
	}
	for {
		step := s.reader.Next()
		switch step.Kind {
		case relay.Send:
			if err := s.send(step); err != nil {
				return s.Failed(err)
			}
			continue
		case relay.End:
			return s.end(step.Reason)
		case relay.Wait:
		}
		if s.detachable && s.handOver() {
			return ""
		}
		select {
		case <-step.Wake:
		case <-step.Timer:
		case <-gone:
			return relay.EndClientGone
		}
	}
}

// begin writes what comes first.
func (s *Session) begin(words []byte) error {
	if s.gzip != nil {
		return s.beginCompressed(words)
	}
	return s.write(words)
}

// send does a step.
func (s *Session) send(step relay.Step) error {
	if s.gzip != nil {
		return s.sendCompressed(step)
	}
	if err := s.write(step.Words, step.Bytes); err != nil {
		return err
	}
	s.reader.Sent(step)
	return nil
}

// end ends the stream between two events.
func (s *Session) end(reason relay.EndReason) relay.EndReason {
	words := s.reader.Farewell(reason)
	if s.gzip != nil {
		words = s.gzip.End(words)
	}
	if len(words) > 0 {
		if err := s.write(words); err != nil {
			return s.Failed(err)
		}
	}
	s.Last()
	return reason
}

// write sends what is given and flushes it.
func (s *Session) write(parts ...[]byte) error { return s.Write(s.reader.IsExiting(), parts...) }
